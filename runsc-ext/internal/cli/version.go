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

// setVersion makes runsc say our version wherever it says its own, which a build
// without linker flags leaves unset: --version, logs, and the check that a
// checkpoint is restored by the version that made it.
//
// It returns the version of gVisor.
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
			return "", fmt.Errorf("runsc says its version is %q, not %q: this gVisor keeps it elsewhere than in runsc/version.version", got, runscVersion)
		}
		return dep.Version, nil
	}
	return "", fmt.Errorf("this binary's build information has no module %s: build it with the go command, in module mode", gvisorModule)
}
