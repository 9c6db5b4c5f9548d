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

// TestFromThread protects a call by a thread that is not its process's first: the
// child's parent is the process, and any thread of it can wait.
func TestFromThread(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		s := kit.NewScript(t)
		pid := s.Sys(unix.SYS_GETPID)
		child := s.NewList()
		ppid := child.Sys(unix.SYS_GETPPID)
		child.Exit(4)
		thread := s.NewList()
		call := a.Clone4(thread, kit.SIGCHLD, linux.Clone4Args{}, child)
		thread.Sys(unix.SYS_EXIT, 0)
		tid := s.Word()
		start := a.Clone4(s.List, kit.ThreadFlags|linux.CLONE_PARENT_SETTID|linux.CLONE_CHILD_CLEARTID, linux.Clone4Args{
			StackStart: kit.Stack(t),
			Ptid:       uint64(rawclone.Addr(tid)),
			Ctid:       uint64(rawclone.Addr(tid)),
		}, thread)
		s.FutexWait(tid, start, 0)
		wait, status := s.Wait(call, 0)
		s.Run()
		s.OK(start, call, wait)
		if ppid.Ret != pid.Ret {
			t.Errorf("parent of the child: %d, want the process, %d", ppid.Ret, pid.Ret)
		}
		if got := unix.WaitStatus(*status).ExitStatus(); got != 4 {
			t.Errorf("exit status %d, want 4", got)
		}
	})
}

// TestFromVforkChild protects a call by a child that its own parent waits for.
func TestFromVforkChild(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		s := kit.NewScript(t)
		grandchild := s.NewList()
		gppid := grandchild.Sys(unix.SYS_GETPPID)
		grandchild.Exit(4)
		child := s.NewList()
		inner := a.Clone4(child, linux.CLONE_VM|linux.CLONE_VFORK|kit.SIGCHLD, linux.Clone4Args{StackStart: kit.Stack(t)}, grandchild)
		innerWait, innerStatus := child.Wait(inner, 0)
		child.Exit(5)
		outer := a.Clone4(s.List, linux.CLONE_VM|linux.CLONE_VFORK|kit.SIGCHLD, linux.Clone4Args{StackStart: kit.Stack(t)}, child)
		outerWait, outerStatus := s.Wait(outer, 0)
		s.Run()
		s.OK(outer, outerWait, inner, innerWait)
		if gppid.Ret != outer.Ret {
			t.Errorf("parent of the grandchild: %d, want the vfork child, %d", gppid.Ret, outer.Ret)
		}
		if i, o := unix.WaitStatus(*innerStatus).ExitStatus(), unix.WaitStatus(*outerStatus).ExitStatus(); i != 4 || o != 5 {
			t.Errorf("exit statuses %d and %d, want 4 and 5", i, o)
		}
	})
}

// TestFromInit protects a call by the first process of a PID namespace: IDs are
// those of the namespace, in the result and in memory, and such a process cannot
// have siblings.
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
		for _, check := range []struct {
			what string
			got  uintptr
			want uintptr
		}{
			{"clone4 returned", call.Ret, 2},
			{"*ptid", *ptid, 2},
			{"getpid()", pid.Ret, 2},
			{"getppid()", ppid.Ret, 1},
		} {
			if check.got != check.want {
				t.Errorf("%s: %d, want %d", check.what, check.got, check.want)
			}
		}
		if got := sibling.Errno(); got != unix.EINVAL {
			t.Errorf("CLONE_PARENT: %s, want EINVAL", kit.ErrnoName(got))
		}
	})
}

// TestProcessLimit protects that a limit on processes holds for clone4 as for
// clone.
func TestProcessLimit(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		for _, tc := range []struct {
			limit uintptr
			want  syscall.Errno
			// Not 1: gVisor still counts a process for the user it began as.
		}{{2, 0}, {0, unix.EAGAIN}} {
			s := kit.NewScript(t)
			limit := s.Buffer(16)
			*rawclone.WordOf(limit), *rawclone.WordOf(limit[8:]) = tc.limit, tc.limit
			const uid = 23456 // nobody else's
			drop := s.Sys(unix.SYS_SETRESUID, uid, uid, uid)
			set := s.Sys(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NPROC, limit, 0)
			call := a.Clone4(s.List, kit.SIGCHLD, linux.Clone4Args{}, s.Exiting(0))
			s.Wait(call, 0)
			older := s.Clone(kit.SIGCHLD, s.Exiting(0))
			s.Wait(older, 0)
			s.Run()
			s.OK(drop, set)
			if c4, c := call.Errno(), older.Errno(); c4 != tc.want || c != tc.want {
				t.Errorf("limit %d: clone4 %s, clone %s; want %s", tc.limit, kit.ErrnoName(c4), kit.ErrnoName(c), kit.ErrnoName(tc.want))
			}
		}
	})
}

// TestTraced protects what a tracer of the caller sees of a call: the first thing
// that happens to the caller, or to a child that the call makes a tracee too.
func TestTraced(t *testing.T) {
	const (
		stopped    = 0x7f | uintptr(unix.SIGSTOP)<<8
		cloneEvent = 0x7f | uintptr(unix.SIGTRAP)<<8 | unix.PTRACE_EVENT_CLONE<<16
		vforkEvent = 0x7f | uintptr(unix.SIGTRAP)<<8 | unix.PTRACE_EVENT_VFORK<<16
		forkEvent  = 0x7f | uintptr(unix.SIGTRAP)<<8 | unix.PTRACE_EVENT_FORK<<16
		exited     = 6 << 8
		ofChild    = true
	)
	const allEvents = unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		for _, tc := range []struct {
			name    string
			options int
			flags   uint64
			status  uintptr
			child   bool // it is the child's
		}{
			{"untraced child", 0, 0, exited, false},
			{"PTRACE", 0, linux.CLONE_PTRACE, stopped, ofChild},
			{"clone event", allEvents, 0, cloneEvent, false},
			{"clone event, no signal", allEvents, 200, cloneEvent, false},
			{"fork event", allEvents, kit.SIGCHLD, forkEvent, false},
			{"vfork event", allEvents, linux.CLONE_VFORK | kit.SIGCHLD, vforkEvent, false},
			{"UNTRACED", allEvents, linux.CLONE_UNTRACED, exited, false},
			{"UNTRACED VFORK", allEvents, linux.CLONE_UNTRACED | linux.CLONE_VFORK | kit.SIGCHLD, exited, false},
			{"UNTRACED PTRACE", 0, linux.CLONE_UNTRACED | linux.CLONE_PTRACE, stopped, ofChild},
		} {
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
			var of any = start // of tracee and child, either can be the first
			if tc.child {
				of = -1
			}
			first, status := s.Wait(of, unix.WALL)
			s.Run() // ends the tracer, and so whatever it traces
			s.OK(start, options, first)
			if *status != tc.status || (first.Ret != start.Ret) != tc.child {
				t.Errorf("%s: the tracer saw status %#x, of the child: %v; want %#x, %v", tc.name, *status, first.Ret != start.Ret, tc.status, tc.child)
			}
		}
	})
}
