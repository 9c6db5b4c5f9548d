// SPDX-License-Identifier: Apache-2.0

package engines_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"runsc-ext/test/sandbox"
)

// TestContainerdShim checks containers, levels, exit statuses, exec and kill with gVisor's
// shim, without the Container Runtime Interface.
func TestContainerdShim(t *testing.T) {
	programs := builtPrograms(t)
	e := newEngine(t, filepath.Join(programs, "containerd"), "containerd")
	options := e.write(t, "runsc-ext.toml", fmt.Sprintf("root = %q\n", e.path("runsc"))+
		strings.ReplaceAll(readDeployed(t, "runsc-ext.toml"), "/usr/local/bin/runsc-ext", sandbox.Install(t, e.dir, "runsc-ext"))+
		"network = \"none\"\nignore-cgroups = \"true\"\n")
	ctr := []string{filepath.Join(programs, "ctr"), "-a", e.path("sock"), "-n", "k8s.io"}
	e.startContainerd(t, "", programs, append(ctr, "version"))
	// containerd's CRI plugin sets this annotation for a pod. The shim hangs without it.
	e.checkTasks(t, ctr, "--runtime=io.containerd.runsc.v1", "--runtime-config-path="+options,
		"--annotation=io.kubernetes.cri.container-type=sandbox")
}
