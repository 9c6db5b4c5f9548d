// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/sentry/platform"

	"runsc-ext/internal/rawclone"
)

// check finds the common reasons why a sandbox cannot start on a machine, and returns an error
// with the way out. runsc itself would only report that a system call failed, or that a
// process exited.
func (c *commandLine) check() error {
	if !c.checked {
		return nil
	}
	if err := checkPlatform(c.flag("platform"), c.flag("platform_device_path")); err != nil {
		return err
	}
	if c.flag("TESTONLY-unsafe-nonroot") == "true" {
		return nil
	}
	return checkNamespaces(c.flag("rootless") == "true")
}

func checkPlatform(name, device string) error {
	p, err := platform.Lookup(name)
	if err != nil {
		return fmt.Errorf("unknown platform %q: the platforms are %s; systrap, the default, works on most machines", name, strings.Join(platform.List(), ", "))
	}
	if name != "kvm" {
		return nil
	}
	const instead = "the kvm platform needs a /dev/kvm that this user may read and write, and that creates virtual machines; --platform=systrap needs none"
	f, err := p.OpenDevice(device)
	if err != nil {
		return fmt.Errorf("%w: %s", err, instead)
	}
	defer f.Close()
	const createVM = 0xae01 // KVM_CREATE_VM
	vm, err := unix.IoctlRetInt(f.FD(), createVM)
	if err != nil {
		return fmt.Errorf("creating a virtual machine: %w: %s", err, instead)
	}
	return unix.Close(vm)
}

// checkNamespaces checks that this process may create the namespaces of a sandbox. It creates
// a child in such namespaces, which only exits. The child shares memory with this process,
// because copying the memory would take most of the time.
func checkNamespaces(rootless bool) error {
	flags := uintptr(unix.CLONE_VM | unix.CLONE_NEWIPC | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS)
	if rootless {
		flags |= unix.CLONE_NEWUSER
	}
	p := rawclone.NewProgram()
	exit := p.List(rawclone.Op{Trap: unix.SYS_EXIT_GROUP})
	pid, errno := rawclone.Do(p.List(rawclone.Op{
		Trap:  unix.SYS_CLONE,
		Args:  [6]uintptr{flags | uintptr(unix.SIGCHLD)},
		Child: exit,
	}))
	if errno == 0 {
		_, err := unix.Wait4(int(pid), nil, 0, nil)
		for err == unix.EINTR {
			_, err = unix.Wait4(int(pid), nil, 0, nil)
		}
		return err
	}
	return fmt.Errorf("a sandbox needs new namespaces, and this process may not create them (%s): %s", unix.ErrnoName(errno), namespaceHint(errno, rootless))
}

// namespaceHint says what to do about errno.
func namespaceHint(errno syscall.Errno, rootless bool) string {
	switch {
	case !rootless && os.Geteuid() != 0:
		return "run it as root, or with --rootless"
	case !rootless:
		return "this root has no CAP_SYS_ADMIN, as in a container that is not privileged: run it with --rootless, or give the container --privileged"
	case errno == unix.ENOSPC || errno == unix.EUSERS:
		return "a limit is reached: see sysctl user.max_user_namespaces, or run it as root without --rootless"
	default:
		return "user namespaces are switched off, for all (sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns) or by a seccomp profile (in a container: --security-opt seccomp=unconfined): switch them on, or run it as root without --rootless"
	}
}
