// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"runtime/debug"

	"gvisor.dev/gvisor/runsc/version"
)

// Version is the version of runsc-ext.
const Version = "0.2.0"

const gvisorModule = "gvisor.dev/gvisor"

// setVersion makes runsc use the version of runsc-ext as its own: in --version, in logs, and
// in the check that only the version that made a checkpoint restores it. A build without
// linker flags leaves runsc's version unset.
//
// setVersion returns the version of gVisor.
func setVersion() (gvisor string, err error) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", errors.New("this binary has no build information: build it with the go command, in module mode")
	}
	for _, dep := range info.Deps {
		if dep.Path != gvisorModule {
			continue
		}
		runscVersion = fmt.Sprintf("runsc-ext %s (gVisor %s)", Version, dep.Version)
		if got := version.Version(); got != runscVersion {
			return "", fmt.Errorf("runsc reports the version %q instead of %q: this gVisor does not take its version from runsc/version.version", got, runscVersion)
		}
		return dep.Version, nil
	}
	return "", fmt.Errorf("this binary's build information has no module %s: build it with the go command, in module mode", gvisorModule)
}
