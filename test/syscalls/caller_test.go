package syscalls

import (
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

const threadFlags = linux.CLONE_VM | linux.CLONE_FS | linux.CLONE_FILES | linux.CLONE_SIGHAND | linux.CLONE_THREAD | linux.CLONE_SYSVSEM

// TestFromThread protects a call by a thread that is not its process's first: the
// child's parent is the process, and any thread of it can wait.
func TestFromThread(t *testing.T) {
	onEachABI(t, func(t *testing.T, a *abi) {
		s := newScript(t)
		pid := s.sys(unix.SYS_GETPID)
		child := s.newList()
		ppid := child.sys(unix.SYS_GETPPID)
		child.exit(4)
		thread := s.newList()
		call := thread.clone4(a, sigchld, linux.Clone4Args{}, child)
		thread.sys(unix.SYS_EXIT, 0)
		tid := s.p.Word()
		start := s.clone4(a, threadFlags|linux.CLONE_PARENT_SETTID|linux.CLONE_CHILD_CLEARTID, linux.Clone4Args{
			StackStart: stackTop(memory(t, 1)),
			Ptid:       uint64(rawclone.Addr(tid)),
			Ctid:       uint64(rawclone.Addr(tid)),
		}, thread)
		s.sys(unix.SYS_FUTEX, tid, 0 /* FUTEX_WAIT */, start, 0)
		wait, status := s.wait(call, 0)
		s.run()
		s.ok(start, call, wait)
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
	onEachABI(t, func(t *testing.T, a *abi) {
		s := newScript(t)
		grandchild := s.newList()
		gppid := grandchild.sys(unix.SYS_GETPPID)
		grandchild.exit(4)
		child := s.newList()
		inner := child.clone4(a, linux.CLONE_VM|linux.CLONE_VFORK|sigchld, linux.Clone4Args{StackStart: stackTop(memory(t, 1))}, grandchild)
		innerWait, innerStatus := child.wait(inner, 0)
		child.exit(5)
		outer := s.clone4(a, linux.CLONE_VM|linux.CLONE_VFORK|sigchld, linux.Clone4Args{StackStart: stackTop(memory(t, 1))}, child)
		outerWait, outerStatus := s.wait(outer, 0)
		s.run()
		s.ok(outer, outerWait, inner, innerWait)
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
	onEachABI(t, func(t *testing.T, a *abi) {
		s := newScript(t)
		ptid := s.p.Word()
		child := s.newList()
		pid, ppid := child.sys(unix.SYS_GETPID), child.sys(unix.SYS_GETPPID)
		child.exit(0)
		init := s.newList()
		call := init.clone4(a, linux.CLONE_PARENT_SETTID|sigchld, linux.Clone4Args{Ptid: uint64(rawclone.Addr(ptid))}, child)
		wait, _ := init.wait(call, 0)
		sibling := init.clone4(a, linux.CLONE_PARENT|sigchld, linux.Clone4Args{}, s.exiting(0))
		init.exit(0)
		start := s.clone4(a, linux.CLONE_NEWPID|sigchld, linux.Clone4Args{}, init)
		s.wait(start, 0)
		s.run()
		s.ok(start, call, wait)
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
			t.Errorf("CLONE_PARENT: %s, want EINVAL", errName(got))
		}
	})
}

// TestProcessLimit protects that a limit on processes holds for clone4 as for
// clone.
func TestProcessLimit(t *testing.T) {
	onEachABI(t, func(t *testing.T, a *abi) {
		for _, tc := range []struct {
			limit uintptr
			want  syscall.Errno
			// Not 1: gVisor still counts a process for the user it began as.
		}{{2, 0}, {0, unix.EAGAIN}} {
			s := newScript(t)
			limit := s.buffer(16)
			*word(limit), *word(limit[8:]) = tc.limit, tc.limit
			const uid = 23456 // nobody else's
			drop := s.sys(unix.SYS_SETRESUID, uid, uid, uid)
			set := s.sys(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NPROC, addr(limit), 0)
			call := s.clone4(a, sigchld, linux.Clone4Args{}, s.exiting(0))
			s.wait(call, 0)
			older := s.op(rawclone.Op{Trap: unix.SYS_CLONE, Args: [6]uintptr{uintptr(sigchld)}, Child: s.exiting(0).first})
			s.wait(older, 0)
			s.run()
			s.ok(drop, set)
			if c4, c := call.Errno(), older.Errno(); c4 != tc.want || c != tc.want {
				t.Errorf("limit %d: clone4 %s, clone %s; want %s", tc.limit, errName(c4), errName(c), errName(tc.want))
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
	onEachABI(t, func(t *testing.T, a *abi) {
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
			{"fork event", allEvents, sigchld, forkEvent, false},
			{"vfork event", allEvents, linux.CLONE_VFORK | sigchld, vforkEvent, false},
			{"UNTRACED", allEvents, linux.CLONE_UNTRACED, exited, false},
			{"UNTRACED VFORK", allEvents, linux.CLONE_UNTRACED | linux.CLONE_VFORK | sigchld, exited, false},
			{"UNTRACED PTRACE", 0, linux.CLONE_UNTRACED | linux.CLONE_PTRACE, stopped, ofChild},
		} {
			s := newScript(t)
			tracee := s.newList()
			me := tracee.sys(unix.SYS_GETPID)
			tracee.sys(unix.SYS_PTRACE, unix.PTRACE_TRACEME)
			tracee.sys(unix.SYS_KILL, me, int(unix.SIGSTOP))
			call := tracee.clone4(a, tc.flags, linux.Clone4Args{}, s.exiting(0))
			tracee.wait(call, unix.WALL)
			tracee.exit(6)

			start := s.op(rawclone.Op{Trap: unix.SYS_CLONE, Args: [6]uintptr{uintptr(sigchld)}, Child: tracee.first})
			s.wait(start, 0)
			options := s.sys(unix.SYS_PTRACE, unix.PTRACE_SETOPTIONS, start, 0, tc.options|unix.PTRACE_O_EXITKILL)
			s.sys(unix.SYS_PTRACE, unix.PTRACE_CONT, start)
			var of any = start // of tracee and child, either can be the first
			if tc.child {
				of = -1
			}
			first, status := s.wait(of, unix.WALL)
			s.run() // ends the tracer, and so whatever it traces
			s.ok(start, options, first)
			if *status != tc.status || (first.Ret != start.Ret) != tc.child {
				t.Errorf("%s: the tracer saw status %#x, of the child: %v; want %#x, %v", tc.name, *status, first.Ret != start.Ret, tc.status, tc.child)
			}
		}
	})
}
