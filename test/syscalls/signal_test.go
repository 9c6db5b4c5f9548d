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

// TestExitSignal checks for each exit signal which signal the parent gets, and which kind of
// wait call returns the child.
func TestExitSignal(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		for _, signal := range []syscall.Signal{0, 1, unix.SIGUSR1, unix.SIGCHLD, 32, 34, 64, 65, 128, 200, 255} {
			t.Run(fmt.Sprint(int(signal)), func(t *testing.T) {
				s := kit.NewScript(t)
				info := s.Buffer(kit.SizeOfSiginfo)
				call := a.Clone4(s.List, uint64(signal), linux.Clone4Args{}, s.Exiting(9))
				plain, plainStatus := s.Wait(call, 0)
				clone, cloneStatus := s.Wait(call, unix.WCLONE)
				pending := s.Sys(unix.SYS_RT_SIGTIMEDWAIT, s.AllSignals(), info, s.Timespec(0), 8)
				none, _ := s.Wait(-1, unix.WALL)
				s.Run()
				s.OK(call)

				// "Wait for "clone" children only ... (A "clone" child is one which
				// delivers no signal, or a signal other than SIGCHLD to its parent
				// upon termination.)" - waitpid(2)
				if signal == unix.SIGCHLD {
					kit.CheckWait(t, "a plain wait", call, plain, plainStatus, "exit status 9")
					kit.CheckErrno(t, "a wait with WCLONE", clone, unix.ECHILD)
				} else {
					kit.CheckErrno(t, "a plain wait", plain, unix.ECHILD)
					kit.CheckWait(t, "a wait with WCLONE", call, clone, cloneStatus, "exit status 9")
				}
				kit.CheckErrno(t, "a wait for another child", none, unix.ECHILD)
				if signal == 0 || signal > 64 {
					kit.CheckErrno(t, "waiting for a signal", pending, unix.EAGAIN)
					return
				}
				if int(pending.Ret) != int(signal) {
					t.Fatalf("signal %d (%s), want %d", int(pending.Ret), kit.ErrnoName(pending.Errno()), signal)
				}
				if i := kit.SiginfoOf(info); i.Signo != int32(signal) || i.Code != kit.CLD_EXITED || i.PID != int32(call.Ret) || i.Status != 9 {
					t.Errorf("%v, want %s, si_code %d, si_pid %d, si_status 9", i, kit.SignalName(signal), kit.CLD_EXITED, call.Ret)
				}
			})
		}
	})
}

// TestKilledChild checks that a wait call reports the signal that killed a child.
func TestKilledChild(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		s := kit.NewScript(t)
		child := s.NewList()
		child.Sys(unix.SYS_KILL, child.Sys(unix.SYS_GETPID), int(unix.SIGKILL))
		child.Exit(0)
		call := a.Clone4(s.List, kit.SIGCHLD, linux.Clone4Args{}, child)
		wait, status := s.Wait(call, 0)
		s.Run()
		s.OK(call)
		kit.CheckWait(t, "the child", call, wait, status, "SIGKILL")
	})
}
