// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"runsc-ext/test/sandbox"
)

// filteredCommand is an argument of the test binary, which then executes its other arguments
// under a seccomp filter that refuses user namespaces.
const filteredCommand = "without-user-namespaces"

func execFiltered(args []string) error {
	runtime.LockOSThread()
	if err := refuseUserNamespaces(); err != nil {
		return err
	}
	return unix.Exec(args[0], args, os.Environ())
}

// TestFirstContact checks that a machine that cannot run a sandbox gets a message that says
// what is missing and what to do.
func TestFirstContact(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, which takes privileges away from the commands")
	}
	bin := installFor(t, nobody)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	helper := filepath.Join(filepath.Dir(bin), "helper") // in a directory that nobody may enter
	if b, err := os.ReadFile(self); err != nil {
		t.Fatal(err)
	} else if err := os.WriteFile(helper, b, 0o755); err != nil {
		t.Fatal(err)
	}
	root := "--root=" + filepath.Join(filepath.Dir(bin), "state")
	asNobody := []string{"setpriv", fmt.Sprintf("--reuid=%d", nobody), fmt.Sprintf("--regid=%d", nobody), "--clear-groups"}
	noLimit := []string{"unshare", "--user", "--map-root-user", "sh", "-c", `echo 0 >/proc/sys/user/max_user_namespaces; exec "$@"`, "sh"}
	const dev = "--platform_device_path="
	for _, tc := range []struct {
		name string
		via  []string
		args []string
		want []string
	}{
		{"no root", asNobody, []string{"do", "/bin/true"}, []string{"EPERM", "as root, or with --rootless"}},
		{"no capability", []string{"setpriv", "--bounding-set=-sys_admin"}, []string{"do", "/bin/true"}, []string{"EPERM", "CAP_SYS_ADMIN", "--rootless", "--privileged"}},
		{"no user namespaces", noLimit, []string{"--rootless", "do", "/bin/true"}, []string{"ENOSPC", "user.max_user_namespaces"}},
		{"no user namespaces, probe", noLimit, []string{"--rootless", "probe"}, []string{"ENOSPC", "user.max_user_namespaces"}},
		{"seccomp", append(asNobody, helper, filteredCommand), []string{"--rootless", "do", "/bin/true"}, []string{"EPERM", "seccomp=unconfined", "kernel.unprivileged_userns_clone", "as root"}},
		{"seccomp, probe", append(asNobody, helper, filteredCommand), []string{"probe"}, []string{"EPERM", "seccomp=unconfined"}},
		{"unknown platform", nil, []string{"--platform=abacus", "do", "/bin/true"}, []string{`"abacus"`, "kvm, ptrace", "systrap"}},
		{"no KVM", nil, []string{"--platform=kvm", dev + "/nowhere", "do", "/bin/true"}, []string{"/nowhere", "no such file", "/dev/kvm", "--platform=systrap"}},
		{"device that is not KVM", nil, []string{"--platform=kvm", dev + "/dev/null", "do", "/bin/true"}, []string{"virtual machine", "/dev/kvm", "--platform=systrap"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			args := append(append(append([]string(nil), tc.via...), bin, root, "--network=none"), tc.args...)
			if _, err := exec.LookPath(args[0]); err != nil {
				t.Skip(err)
			}
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Dir = "/"
			sandbox.Output(t, cmd).CheckRefused(t, tc.want...)
		})
	}
	// The same user can start a sandbox if nothing is missing.
	cmd := exec.Command(asNobody[0], append(asNobody[1:], bin, root, "--network=none", "--rootless", "--platform="+sandbox.Platforms[0], "do", "/bin/true")...)
	cmd.Dir = "/"
	sandbox.Output(t, cmd).Check(t, 0, "")
}
