// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"fmt"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/test/kit"
)

// TestExitSignal protects which signal tells the caller of the child's end, and
// which kind of wait sees the child.
func TestExitSignal(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		for _, tc := range []struct {
			signal uint64
			comes  int // 0: none
		}{
			{0, 0},
			{1, 1},
			{uint64(unix.SIGUSR1), int(unix.SIGUSR1)},
			{uint64(unix.SIGCHLD), int(unix.SIGCHLD)},
			{32, 32},
			{34, 34},
			{64, 64},
			{65, 0},
			{128, 0},
			{200, 0},
			{255, 0},
		} {
			s := kit.NewScript(t)
			all := s.Word()
			*all = ^uintptr(0)
			info := s.Buffer(128)
			now := s.Buffer(16)

			call := a.Clone4(s.List, tc.signal, linux.Clone4Args{}, s.Exiting(9))
			plain, plainStatus := s.Wait(call, 0)
			clone, cloneStatus := s.Wait(call, unix.WCLONE)
			pending := s.Sys(unix.SYS_RT_SIGTIMEDWAIT, all, info, now, 8)
			none, _ := s.Wait(-1, unix.WALL)
			s.Run()
			s.OK(call)

			name := fmt.Sprintf("exit signal %d", tc.signal)
			// "Wait for "clone" children only ... (A "clone" child is one which
			// delivers no signal, or a signal other than SIGCHLD to its parent
			// upon termination.)" - waitpid(2)
			sees, status, not := clone, cloneStatus, plain
			if tc.signal == uint64(unix.SIGCHLD) {
				sees, status, not = plain, plainStatus, clone
			}
			if sees.Ret != call.Ret || unix.WaitStatus(*status).ExitStatus() != 9 {
				t.Errorf("%s: the wait that sees the child returned %d, status %#x; want %d, exit status 9", name, int(sees.Ret), *status, call.Ret)
			}
			if e := not.Errno(); e != unix.ECHILD {
				t.Errorf("%s: the wait that does not see the child: %s, want ECHILD", name, kit.ErrnoName(e))
			}
			if e := none.Errno(); e != unix.ECHILD {
				t.Errorf("%s: a child is left: %s", name, kit.ErrnoName(e))
			}
			if tc.comes == 0 {
				if e := pending.Errno(); e != unix.EAGAIN {
					t.Errorf("%s: signal %d came, error %s; want none", name, int(pending.Ret), kit.ErrnoName(e))
				}
				continue
			}
			if int(pending.Ret) != tc.comes {
				t.Errorf("%s: signal %d (%s), want %d", name, int(pending.Ret), kit.ErrnoName(pending.Errno()), tc.comes)
				continue
			}
			i := kit.SiginfoOf(info)
			if i.Signo != int32(tc.comes) || i.Code != kit.CLD_EXITED || i.PID != int32(call.Ret) || i.Status != 9 {
				t.Errorf("%s: siginfo %+v, want signo %d, code CLD_EXITED, pid %d, status 9", name, i, tc.comes, call.Ret)
			}
		}
	})
}

// TestKilledChild protects that the child's end by a signal is told as such.
func TestKilledChild(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		s := kit.NewScript(t)
		child := s.NewList()
		pid := child.Sys(unix.SYS_GETPID)
		child.Sys(unix.SYS_KILL, pid, int(unix.SIGKILL))
		child.Exit(0)
		call := a.Clone4(s.List, kit.SIGCHLD, linux.Clone4Args{}, child)
		wait, status := s.Wait(call, 0)
		s.Run()
		s.OK(call, wait)
		if ws := unix.WaitStatus(*status); !ws.Signaled() || ws.Signal() != syscall.SIGKILL {
			t.Errorf("wait status %#x, want the one of SIGKILL", ws)
		}
	})
}
