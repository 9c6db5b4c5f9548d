// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"fmt"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// TestFlagBits checks for each of the 64 flags whether clone4 accepts it alone.
func TestFlagBits(t *testing.T) {
	const needsAnother = linux.CLONE_SIGHAND | linux.CLONE_THREAD
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		for bit := range 64 {
			flag := uint64(1) << bit
			t.Run(fmt.Sprintf("%d,%s", bit, kit.FlagNames(flag)), func(t *testing.T) {
				var want syscall.Errno
				if bit >= 32 || flag&(kit.RefusedFlags|needsAnother) != 0 {
					want = unix.EINVAL
				}
				s := kit.NewScript(t)
				call := a.Clone4(s.List, flag, linux.Clone4Args{
					StackStart: kit.Stack(t),
					Ptid:       uint64(rawclone.Addr(s.Word())),
					Ctid:       uint64(rawclone.Addr(s.Word())),
				}, s.Exiting(0))
				s.Wait(call, unix.WALL)
				s.Run()
				kit.CheckErrno(t, "clone4", call, want)
				if flag == linux.CLONE_PARENT && want == 0 { // the test is the parent
					kit.Reap(t, int(call.Ret))
				}
			})
		}
	})
}

// TestFlagCombinations checks the error of each invalid combination of flags, with and without
// privilege. EINVAL comes before EPERM, except for the one combination that the kernel checks
// together with the privilege.
func TestFlagCombinations(t *testing.T) {
	const (
		vm      = linux.CLONE_VM
		thread  = linux.CLONE_VM | linux.CLONE_SIGHAND | linux.CLONE_THREAD
		newuser = linux.CLONE_NEWUSER
	)
	for _, tc := range []struct {
		name           string
		flags          uint64
		root, ordinary syscall.Errno
	}{
		{name: "FS NEWNS", flags: linux.CLONE_FS | linux.CLONE_NEWNS, root: unix.EINVAL, ordinary: unix.EINVAL},
		{name: "FS NEWUSER", flags: linux.CLONE_FS | newuser, root: unix.EINVAL, ordinary: unix.EINVAL},
		{name: "SIGHAND", flags: linux.CLONE_SIGHAND, root: unix.EINVAL, ordinary: unix.EINVAL},
		{name: "THREAD", flags: linux.CLONE_THREAD, root: unix.EINVAL, ordinary: unix.EINVAL},
		{name: "VM THREAD", flags: vm | linux.CLONE_THREAD, root: unix.EINVAL, ordinary: unix.EINVAL},
		{name: "SIGHAND THREAD", flags: linux.CLONE_SIGHAND | linux.CLONE_THREAD, root: unix.EINVAL, ordinary: unix.EINVAL},
		{name: "thread NEWUSER", flags: thread | newuser, root: unix.EINVAL, ordinary: unix.EINVAL},
		{name: "thread NEWPID", flags: thread | linux.CLONE_NEWPID, root: unix.EINVAL, ordinary: unix.EINVAL},
		{name: "NEWIPC SYSVSEM", flags: linux.CLONE_NEWIPC | linux.CLONE_SYSVSEM, root: unix.EINVAL, ordinary: unix.EPERM},
		{name: "NEWIPC SYSVSEM NEWUSER", flags: linux.CLONE_NEWIPC | linux.CLONE_SYSVSEM | newuser, root: unix.EINVAL, ordinary: unix.EINVAL},
		{name: "NEWIPC SYSVSEM FS NEWNS", flags: linux.CLONE_NEWIPC | linux.CLONE_SYSVSEM | linux.CLONE_FS | linux.CLONE_NEWNS, root: unix.EINVAL, ordinary: unix.EINVAL},
		{name: "NEWNS", flags: linux.CLONE_NEWNS, ordinary: unix.EPERM},
		{name: "NEWUTS", flags: linux.CLONE_NEWUTS, ordinary: unix.EPERM},
		{name: "NEWIPC", flags: linux.CLONE_NEWIPC, ordinary: unix.EPERM},
		{name: "NEWPID", flags: linux.CLONE_NEWPID, ordinary: unix.EPERM},
		{name: "NEWNET", flags: linux.CLONE_NEWNET, ordinary: unix.EPERM},
		{name: "NEWNS FS", flags: linux.CLONE_NEWNS | linux.CLONE_FS, root: unix.EINVAL, ordinary: unix.EINVAL},
		{name: "NEWNS SIGHAND", flags: linux.CLONE_NEWNS | linux.CLONE_SIGHAND, root: unix.EINVAL, ordinary: unix.EINVAL},
		{name: "NEWNS CLONE_STOPPED", flags: linux.CLONE_NEWNS | linux.CLONE_STOPPED, root: unix.EINVAL, ordinary: unix.EINVAL},
		{name: "NEWUSER", flags: newuser},
		{name: "NEWUSER NEWNS NEWUTS NEWIPC NEWPID NEWNET", flags: newuser | linux.CLONE_NEWNS | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC | linux.CLONE_NEWPID | linux.CLONE_NEWNET},
		{name: "VM FS FILES SIGHAND SYSVSEM IO", flags: vm | linux.CLONE_FS | linux.CLONE_FILES | linux.CLONE_SIGHAND | linux.CLONE_SYSVSEM | linux.CLONE_IO},
		{name: "VFORK UNTRACED PTRACE", flags: linux.CLONE_VFORK | linux.CLONE_UNTRACED | linux.CLONE_PTRACE},
	} {
		t.Run(tc.name, func(t *testing.T) {
			kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
				for _, user := range []struct {
					name string
					uid  int
					want syscall.Errno
				}{{name: "root", want: tc.root}, {name: "ordinary", uid: 12345, want: tc.ordinary}} {
					t.Run(user.name, func(t *testing.T) {
						s := kit.NewScript(t)
						setuid := s.Sys(unix.SYS_SETRESUID, user.uid, user.uid, user.uid)
						call := a.Clone4(s.List, tc.flags|kit.SIGCHLD, linux.Clone4Args{StackStart: kit.Stack(t)}, s.Exiting(0))
						s.Wait(call, unix.WALL)
						s.Run()
						s.OK(setuid)
						kit.CheckErrno(t, "clone4", call, user.want)
					})
				}
			})
		})
	}
}
