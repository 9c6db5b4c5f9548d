// SPDX-License-Identifier: Apache-2.0

package clonefd

import (
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// TestFDKillOnClosePrivilege checks that CLONEFD_KILL_ON_CLOSE needs CAP_SYS_ADMIN in the user
// namespace of the caller, or no_new_privs.
func TestFDKillOnClosePrivilege(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		for _, tc := range []struct {
			name       string
			user       uintptr
			drop       bool // drop CAP_SYS_ADMIN
			userNS     bool
			noNewPrivs bool
			fdFlags    uint32
			flags      uint64
			want       syscall.Errno
		}{
			{name: "root", fdFlags: linux.CLONEFD_KILL_ON_CLOSE},
			{name: "root without CAP_SYS_ADMIN", drop: true, fdFlags: linux.CLONEFD_KILL_ON_CLOSE, want: unix.EPERM},
			{name: "user", user: 1000, fdFlags: linux.CLONEFD_KILL_ON_CLOSE, want: unix.EPERM},
			{name: "user, autoreap", user: 1000, flags: linux.CLONE_AUTOREAP, fdFlags: linux.CLONEFD_KILL_ON_CLOSE, want: unix.EPERM},
			{name: "user, vfork", user: 1000, flags: linux.CLONE_VFORK, fdFlags: linux.CLONEFD_KILL_ON_CLOSE, want: unix.EPERM},
			{name: "user, child in a user namespace", user: 1000, flags: linux.CLONE_NEWUSER, fdFlags: linux.CLONEFD_KILL_ON_CLOSE, want: unix.EPERM},
			{name: "user, no_new_privs", user: 1000, noNewPrivs: true, fdFlags: linux.CLONEFD_KILL_ON_CLOSE},
			{name: "user in a user namespace", user: 1000, userNS: true, fdFlags: linux.CLONEFD_KILL_ON_CLOSE},
			{name: "user, another flag", user: 1000, fdFlags: linux.CLONEFD_CLOEXEC},
			{name: "user, unknown flag", user: 1000, fdFlags: linux.CLONEFD_KILL_ON_CLOSE | 8, want: unix.EINVAL},
			{name: "user, thread", user: 1000, flags: kit.ThreadFlags, fdFlags: linux.CLONEFD_KILL_ON_CLOSE, want: unix.EINVAL},
		} {
			t.Run(tc.name, func(t *testing.T) {
				s := kit.NewScript(t)
				if tc.noNewPrivs {
					s.Sys(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
				}
				if tc.user != 0 {
					s.Sys(unix.SYS_SETRESUID, tc.user, tc.user, tc.user)
				}
				if tc.drop {
					// capset drops all permitted and effective capabilities.
					header, caps := s.Buffer(8), s.Buffer(24)
					*rawclone.WordOf(header) = unix.LINUX_CAPABILITY_VERSION_3
					s.Sys(unix.SYS_CAPGET, rawclone.AddrOf(header), rawclone.AddrOf(caps))
					s.Sys(unix.SYS_CAPSET, rawclone.AddrOf(header), rawclone.AddrOf(s.Buffer(24)))
				}
				if tc.userNS {
					s.Sys(unix.SYS_UNSHARE, unix.CLONE_NEWUSER)
				}
				before := s.Sys(unix.SYS_DUP, 0)
				s.Sys(unix.SYS_CLOSE, before)
				call, fd := a.Clone4FD(s.List, kit.SIGCHLD|linux.CLONE_FD|tc.flags, linux.Clone4FDArgs{ClonefdFlags: tc.fdFlags}, s.Exiting(0))
				after := s.Sys(unix.SYS_DUP, 0)
				none := s.Sys(unix.SYS_WAIT4, -1, 0, unix.WALL)
				s.Run()
				if e := call.Errno(); e != tc.want {
					t.Fatalf("clone4: %s, want %s", kit.ErrnoName(e), kit.ErrnoName(tc.want))
				}
				if tc.want == 0 {
					return
				}
				if e := none.Errno(); e != unix.ECHILD {
					t.Errorf("wait4: %d (%s), want ECHILD: the call has created a child", int(none.Ret), kit.ErrnoName(e))
				}
				if *fd != kit.NoFD || after.Ret != before.Ret {
					t.Errorf("*clonefd is %#x, and the next descriptor %d; want %#x and %d", *fd, after.Ret, kit.NoFD, before.Ret)
				}
			})
		}
	})
}

// TestFDAutoreapExec checks that execve resets the exit signal to SIGCHLD, as on Linux. A child
// without an exit signal that executes a program therefore sends SIGCHLD.
func TestFDAutoreapExec(t *testing.T) {
	for _, tc := range []struct {
		name  string
		flags uint64
	}{
		{name: "no exit signal", flags: linux.CLONE_AUTOREAP},
		{name: "SIGUSR1", flags: linux.CLONE_AUTOREAP | uint64(unix.SIGUSR1)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := kit.NewScript(t)
			child := s.NewList()
			kit.Exec(child)
			child.Exit(1)
			call, fdAt := kit.Default().Clone4FD(s.List, tc.flags|linux.CLONE_FD, linux.Clone4FDArgs{}, child)
			buf := s.Buffer(fdInfoSize)
			s.Sys(unix.SYS_READ, kit.LoadFD(s.List, fdAt), rawclone.AddrOf(buf), len(buf))
			checkSignal := nextSignal(s)
			checkGone := gone(s, call)
			s.Run()
			s.OK(call)
			checkSignal(t, int(unix.SIGCHLD), call, kit.ExecStatus)
			checkGone(t)
		})
	}
}
