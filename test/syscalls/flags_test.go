// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// TestFlagBits protects which of the 64 flags are accepted, each of them alone.
func TestFlagBits(t *testing.T) {
	refused := map[int]string{
		11: "CLONE_SIGHAND, which needs CLONE_VM",
		12: "CLONE_PID",
		16: "CLONE_THREAD, which needs CLONE_SIGHAND",
		22: "CLONE_DETACHED",
		25: "CLONE_STOPPED",
	}
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		for bit := range 64 {
			var want syscall.Errno
			if refused[bit] != "" || bit >= 32 {
				want = unix.EINVAL
			}
			s := kit.NewScript(t)
			call := a.Clone4(s.List, 1<<bit, linux.Clone4Args{
				StackStart: kit.Stack(t),
				Ptid:       uint64(rawclone.Addr(s.Word())),
				Ctid:       uint64(rawclone.Addr(s.Word())),
			}, s.Exiting(0))
			s.Wait(call, unix.WALL)
			s.Run()
			if got := call.Errno(); got != want {
				t.Errorf("bit %d: %s, want %s (%s)", bit, kit.ErrnoName(got), kit.ErrnoName(want), refused[bit])
			}
			if bit == 15 && want == 0 { // CLONE_PARENT: the child is ours.
				kit.Reap(t, int(call.Ret))
			}
		}
	})
}

// TestFlagCombinations protects the combinations that make no sense, and what an
// unprivileged caller is told of them: EINVAL comes before EPERM, but for the one
// that is looked at together with the privileges.
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
					s := kit.NewScript(t)
					setuid := s.Sys(unix.SYS_SETRESUID, user.uid, user.uid, user.uid)
					call := a.Clone4(s.List, tc.flags|kit.SIGCHLD, linux.Clone4Args{StackStart: kit.Stack(t)}, s.Exiting(0))
					s.Wait(call, unix.WALL)
					s.Run()
					s.OK(setuid)
					if got := call.Errno(); got != user.want {
						t.Errorf("as %s: %s, want %s", user.name, kit.ErrnoName(got), kit.ErrnoName(user.want))
					}
				}
			})
		})
	}
}
