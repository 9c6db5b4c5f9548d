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

// TestFlagBits checks which of the 64 flags are accepted, each of them alone.
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
				if flag == linux.CLONE_PARENT && want == 0 { // the child is ours
					kit.Reap(t, int(call.Ret))
				}
			})
		}
	})
}

// TestFlagCombinations checks the combinations that make no sense, and what they return to
// an unprivileged caller: EINVAL comes before EPERM, but for the one combination that the
// kernel checks together with the privileges.
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
		{"FS NEWNS", linux.CLONE_FS | linux.CLONE_NEWNS, unix.EINVAL, unix.EINVAL},
		{"FS NEWUSER", linux.CLONE_FS | newuser, unix.EINVAL, unix.EINVAL},
		{"SIGHAND", linux.CLONE_SIGHAND, unix.EINVAL, unix.EINVAL},
		{"THREAD", linux.CLONE_THREAD, unix.EINVAL, unix.EINVAL},
		{"VM THREAD", vm | linux.CLONE_THREAD, unix.EINVAL, unix.EINVAL},
		{"SIGHAND THREAD", linux.CLONE_SIGHAND | linux.CLONE_THREAD, unix.EINVAL, unix.EINVAL},
		{"thread NEWUSER", thread | newuser, unix.EINVAL, unix.EINVAL},
		{"thread NEWPID", thread | linux.CLONE_NEWPID, unix.EINVAL, unix.EINVAL},
		{"NEWIPC SYSVSEM", linux.CLONE_NEWIPC | linux.CLONE_SYSVSEM, unix.EINVAL, unix.EPERM},
		{"NEWIPC SYSVSEM NEWUSER", linux.CLONE_NEWIPC | linux.CLONE_SYSVSEM | newuser, unix.EINVAL, unix.EINVAL},
		{"NEWIPC SYSVSEM FS NEWNS", linux.CLONE_NEWIPC | linux.CLONE_SYSVSEM | linux.CLONE_FS | linux.CLONE_NEWNS, unix.EINVAL, unix.EINVAL},
		{"NEWNS", linux.CLONE_NEWNS, 0, unix.EPERM},
		{"NEWUTS", linux.CLONE_NEWUTS, 0, unix.EPERM},
		{"NEWIPC", linux.CLONE_NEWIPC, 0, unix.EPERM},
		{"NEWPID", linux.CLONE_NEWPID, 0, unix.EPERM},
		{"NEWNET", linux.CLONE_NEWNET, 0, unix.EPERM},
		{"NEWNS FS", linux.CLONE_NEWNS | linux.CLONE_FS, unix.EINVAL, unix.EINVAL},
		{"NEWNS SIGHAND", linux.CLONE_NEWNS | linux.CLONE_SIGHAND, unix.EINVAL, unix.EINVAL},
		{"NEWNS CLONE_STOPPED", linux.CLONE_NEWNS | linux.CLONE_STOPPED, unix.EINVAL, unix.EINVAL},
		{"NEWUSER", newuser, 0, 0},
		{"NEWUSER NEWNS NEWUTS NEWIPC NEWPID NEWNET", newuser | linux.CLONE_NEWNS | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC | linux.CLONE_NEWPID | linux.CLONE_NEWNET, 0, 0},
		{"VM FS FILES SIGHAND SYSVSEM IO", vm | linux.CLONE_FS | linux.CLONE_FILES | linux.CLONE_SIGHAND | linux.CLONE_SYSVSEM | linux.CLONE_IO, 0, 0},
		{"VFORK UNTRACED PTRACE", linux.CLONE_VFORK | linux.CLONE_UNTRACED | linux.CLONE_PTRACE, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
				for _, user := range []struct {
					name string
					uid  int
					want syscall.Errno
				}{{"root", 0, tc.root}, {"ordinary", 12345, tc.ordinary}} {
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
