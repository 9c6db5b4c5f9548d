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

// TestFromThread checks a call by a thread that is not the first of its process. The parent of
// the child is the process, so every thread of the process can wait for the child.
func TestFromThread(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		s := kit.NewScript(t)
		pid := s.Sys(unix.SYS_GETPID)
		child := s.NewList()
		ppid := child.Sys(unix.SYS_GETPPID)
		child.Exit(4)
		thread := s.NewList()
		call := a.Clone4(thread, kit.SIGCHLD, linux.Clone4Args{}, child)
		thread.ExitTask(0)
		tid := s.Word()
		start := a.Clone4(s.List, kit.ThreadFlags|linux.CLONE_PARENT_SETTID|linux.CLONE_CHILD_CLEARTID, linux.Clone4Args{
			StackStart: kit.Stack(t),
			Ptid:       uint64(rawclone.Addr(tid)),
			Ctid:       uint64(rawclone.Addr(tid)),
		}, thread)
		s.FutexWait(tid, start, 0)
		wait, status := s.Wait(call, 0)
		s.Run()
		s.OK(start, call)
		kit.CheckRet(t, "getppid() of the child", ppid.Ret, pid.Ret)
		kit.CheckWait(t, "the child", call, wait, status, "exit status 4")
	})
}

// TestFromVforkChild checks a call by a child of CLONE_VFORK, whose parent still waits.
func TestFromVforkChild(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		const flags = linux.CLONE_VM | linux.CLONE_VFORK | kit.SIGCHLD
		s := kit.NewScript(t)
		grandchild := s.NewList()
		gppid := grandchild.Sys(unix.SYS_GETPPID)
		grandchild.Exit(4)
		child := s.NewList()
		inner := a.Clone4(child, flags, linux.Clone4Args{StackStart: kit.Stack(t)}, grandchild)
		innerWait, innerStatus := child.Wait(inner, 0)
		child.Exit(5)
		outer := a.Clone4(s.List, flags, linux.Clone4Args{StackStart: kit.Stack(t)}, child)
		outerWait, outerStatus := s.Wait(outer, 0)
		s.Run()
		s.OK(outer, inner)
		kit.CheckRet(t, "getppid() of the grandchild", gppid.Ret, outer.Ret)
		kit.CheckWait(t, "the grandchild", inner, innerWait, innerStatus, "exit status 4")
		kit.CheckWait(t, "the child", outer, outerWait, outerStatus, "exit status 5")
	})
}

// TestFromInit checks a call by the first process of a PID namespace. The result and the memory
// have IDs of the namespace, and the process may not use CLONE_PARENT.
func TestFromInit(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		s := kit.NewScript(t)
		ptid := s.Word()
		child := s.NewList()
		pid, ppid := child.Sys(unix.SYS_GETPID), child.Sys(unix.SYS_GETPPID)
		child.Exit(0)
		init := s.NewList()
		call := a.Clone4(init, linux.CLONE_PARENT_SETTID|kit.SIGCHLD, linux.Clone4Args{Ptid: uint64(rawclone.Addr(ptid))}, child)
		wait, _ := init.Wait(call, 0)
		sibling := a.Clone4(init, linux.CLONE_PARENT|kit.SIGCHLD, linux.Clone4Args{}, s.Exiting(0))
		init.Exit(0)
		start := a.Clone4(s.List, linux.CLONE_NEWPID|kit.SIGCHLD, linux.Clone4Args{}, init)
		s.Wait(start, 0)
		s.Run()
		s.OK(start, call, wait)
		kit.CheckRet(t, "clone4 in the namespace", call.Ret, 2)
		kit.CheckRet(t, "*ptid", *ptid, 2)
		kit.CheckRet(t, "getpid() of the child", pid.Ret, 2)
		kit.CheckRet(t, "getppid() of the child", ppid.Ret, 1)
		kit.CheckErrno(t, "clone4 with CLONE_PARENT", sibling, unix.EINVAL)
	})
}

// TestProcessLimit checks that a limit on processes holds for clone4 as for clone(2).
func TestProcessLimit(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		for limit, want := range map[uintptr]syscall.Errno{
			2: 0, // not 1: gVisor still counts the process for the user with which it began
			0: unix.EAGAIN,
		} {
			t.Run(fmt.Sprint(limit), func(t *testing.T) {
				s := kit.NewScript(t)
				rlimit := s.Buffer(16)
				*rawclone.WordOf(rlimit), *rawclone.WordOf(rlimit[8:]) = limit, limit
				const uid = 23456 // no other process has it
				drop := s.Sys(unix.SYS_SETRESUID, uid, uid, uid)
				set := s.Sys(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NPROC, rlimit, 0)
				call := a.Clone4(s.List, kit.SIGCHLD, linux.Clone4Args{}, s.Exiting(0))
				s.Wait(call, 0)
				older := s.Clone(kit.SIGCHLD, s.Exiting(0))
				s.Wait(older, 0)
				s.Run()
				s.OK(drop, set)
				kit.CheckErrno(t, "clone4", call, want)
				kit.CheckErrno(t, "clone", older, want)
			})
		}
	})
}

// TestTraced checks the first stop that the tracer of a caller sees: of the caller, or of a
// child that becomes a tracee too.
func TestTraced(t *testing.T) {
	const (
		ofChild   = true
		allEvents = unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK
	)
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		for _, tc := range []struct {
			name    string
			options int
			flags   uint64
			status  string
			child   bool // the stop is the child's
		}{
			{name: "untraced child", status: "exit status 6"},
			{name: "PTRACE", flags: linux.CLONE_PTRACE, status: "stopped by SIGSTOP", child: ofChild},
			{name: "clone event", options: allEvents, status: "PTRACE_EVENT_CLONE"},
			{name: "clone event, no signal", options: allEvents, flags: 200, status: "PTRACE_EVENT_CLONE"},
			{name: "fork event", options: allEvents, flags: kit.SIGCHLD, status: "PTRACE_EVENT_FORK"},
			{name: "vfork event", options: allEvents, flags: linux.CLONE_VFORK | kit.SIGCHLD, status: "PTRACE_EVENT_VFORK"},
			{name: "UNTRACED", options: allEvents, flags: linux.CLONE_UNTRACED, status: "exit status 6"},
			{name: "UNTRACED VFORK", options: allEvents, flags: linux.CLONE_UNTRACED | linux.CLONE_VFORK | kit.SIGCHLD, status: "exit status 6"},
			{name: "UNTRACED PTRACE", flags: linux.CLONE_UNTRACED | linux.CLONE_PTRACE, status: "stopped by SIGSTOP", child: ofChild},
		} {
			t.Run(tc.name, func(t *testing.T) {
				s := kit.NewScript(t)
				tracee := s.NewList()
				me := tracee.Sys(unix.SYS_GETPID)
				tracee.Sys(unix.SYS_PTRACE, unix.PTRACE_TRACEME)
				tracee.Sys(unix.SYS_KILL, me, int(unix.SIGSTOP))
				call := a.Clone4(tracee, tc.flags, linux.Clone4Args{}, s.Exiting(0))
				tracee.Wait(call, unix.WALL)
				tracee.Exit(6)

				start := s.Clone(kit.SIGCHLD, tracee)
				s.Wait(start, 0)
				options := s.Sys(unix.SYS_PTRACE, unix.PTRACE_SETOPTIONS, start, 0, tc.options|unix.PTRACE_O_EXITKILL)
				s.Sys(unix.SYS_PTRACE, unix.PTRACE_CONT, start)
				var of any = start // the tracee or the child can be first
				if tc.child {
					of = -1
				}
				first, status := s.Wait(of, unix.WALL)
				s.Run() // the tracer exits, which ends its tracees
				s.OK(start, options, first)
				kit.CheckStatus(t, "the first that happened", *status, tc.status)
				if ofChild := first.Ret != start.Ret; ofChild != tc.child {
					t.Errorf("the stop is the child's: %v, want %v", ofChild, tc.child)
				}
			})
		}
	})
}
