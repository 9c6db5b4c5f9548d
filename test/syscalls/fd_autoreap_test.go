package syscalls

import (
	"testing"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

const autoreap = uint64(linux.CLONE_AUTOREAP)

// gate is a pipe in a script: who reads from it goes on when another process has
// written to it.
type gate struct{ ends *uintptr }

func (s *script) gate() gate {
	g := gate{s.p.Word()}
	s.sys(unix.SYS_PIPE2, g.ends, 0)
	return g
}

// pass appends the waiting at a gate, open the end of it for one process.
func (l *list) pass(g gate) {
	l.sys(unix.SYS_READ, l.fdIn(g.ends), l.s.p.Word(), 1)
}

func (l *list) open(g gate) {
	l.sys(unix.SYS_WRITE, l.sys(rawclone.TrapLoad, rawclone.Addr(g.ends)+4), l.s.p.Word(), 1)
}

// nextSignal appends the taking of a signal that is pending, or comes soon.
func (l *list) nextSignal() (*rawclone.Op, func() siginfo) {
	info, patience := l.s.buffer(128), l.s.buffer(16)
	*word(patience) = 10
	return l.sys(unix.SYS_RT_SIGTIMEDWAIT, l.s.allSignals(), addr(info), addr(patience), 8), func() siginfo { return siginfoOf(info) }
}

// noSignal appends the taking of a signal, which there must not be.
func (l *list) noSignal() *rawclone.Op {
	return l.sys(unix.SYS_RT_SIGTIMEDWAIT, l.s.allSignals(), 0, addr(l.s.buffer(16)), 8)
}

// gone appends what must fail with ECHILD, and with ESRCH, once pid is reaped.
func (l *list) gone(pid any) (waits []*rawclone.Op, kill *rawclone.Op) {
	for _, options := range []int{unix.WALL, unix.WALL | unix.WNOHANG, unix.WALL | unix.WUNTRACED | unix.WCONTINUED} {
		waits = append(waits, l.sys(unix.SYS_WAIT4, pid, 0, options))
	}
	const pPID = 1
	waits = append(waits, l.sys(unix.SYS_WAITID, pPID, pid, 0, unix.WEXITED|unix.WALL, 0))
	return waits, l.sys(unix.SYS_KILL, pid, 0)
}

func checkGone(t *testing.T, name string, waits []*rawclone.Op, kill *rawclone.Op) {
	t.Helper()
	for i, w := range waits {
		if e := w.Errno(); e != unix.ECHILD {
			t.Errorf("%s: wait %d: %d (%s), want ECHILD", name, i, int(w.Ret), errName(e))
		}
	}
	if e := kill.Errno(); e != unix.ESRCH {
		t.Errorf("%s: kill of a child that is gone: %s, want ESRCH", name, errName(e))
	}
}

// TestFDAutoreap protects that no wait returns such a child, that one that waits does
// so until the end, and that the signal comes all the same.
func TestFDAutoreap(t *testing.T) {
	onEachABI(t, func(t *testing.T, a *abi) {
		for _, flags := range []uint64{0, uint64(unix.SIGCHLD), uint64(unix.SIGUSR1), 64, 200, linux.CLONE_FD | sigchld, linux.CLONE_VFORK | sigchld} {
			s := newScript(t)
			g := s.gate()
			child := s.newList()
			child.pass(g)
			child.exit(9)
			if flags&linux.CLONE_VFORK != 0 {
				s.open(g)
			}
			call, _ := s.clone4FD(a, flags|autoreap, linux.Clone4FDArgs{}, child)
			early, _ := s.wait(call, unix.WALL|unix.WNOHANG)
			s.open(g)
			late, _ := s.wait(call, unix.WALL)
			signal, info := s.nextSignalUnless(flags&linux.CSIGNAL == 0 || flags&linux.CSIGNAL > 64)
			none := s.noSignal()
			waits, kill := s.gone(call)
			s.run()
			s.ok(call)
			if flags&linux.CLONE_VFORK == 0 && early.Ret != 0 {
				t.Errorf("flags %#x: wait while the child lives: %d (%s), want 0", flags, int(early.Ret), errName(early.Errno()))
			}
			checkGone(t, "", append(waits, late), kill)
			if signal != nil {
				i := info()
				if want := int(flags & linux.CSIGNAL); int(signal.Ret) != want || i.code != cldExited || i.pid != int32(call.Ret) || i.status != 9 {
					t.Errorf("flags %#x: signal %d (%s), %+v, want %d of the child's end", flags, int(signal.Ret), errName(signal.Errno()), i, want)
				}
			}
			if e := none.Errno(); e != unix.EAGAIN {
				t.Errorf("flags %#x: signal %d came, and nobody sent it", flags, int(none.Ret))
			}
		}
	})
}

// nextSignalUnless is nextSignal if there is to be one.
func (l *list) nextSignalUnless(none bool) (*rawclone.Op, func() siginfo) {
	if none {
		return nil, nil
	}
	return l.nextSignal()
}

// TestFDAutoreapStops protects that stops and continues are told as of any child.
func TestFDAutoreapStops(t *testing.T) {
	s := newScript(t)
	g := s.gate()
	child := s.newList()
	child.sys(unix.SYS_KILL, child.sys(unix.SYS_GETPID), int(unix.SIGSTOP))
	child.pass(g)
	child.exit(9)
	call, _ := s.clone4FD(&abis[0], autoreap|sigchld, linux.Clone4FDArgs{}, child)
	stop, stopStatus := s.wait(call, unix.WUNTRACED)
	s.sys(unix.SYS_KILL, call, int(unix.SIGCONT))
	cont, contStatus := s.wait(call, unix.WCONTINUED)
	s.open(g)
	waits, kill := s.gone(call)
	s.run()
	s.ok(call)
	if ws := unix.WaitStatus(*stopStatus); stop.Ret != call.Ret || !ws.Stopped() {
		t.Errorf("waiting for a stop: %d (%s), status %#x", int(stop.Ret), errName(stop.Errno()), *stopStatus)
	}
	if ws := unix.WaitStatus(*contStatus); cont.Ret != call.Ret || !ws.Continued() {
		t.Errorf("waiting for a continue: %d (%s), status %#x", int(cont.Ret), errName(cont.Errno()), *contStatus)
	}
	checkGone(t, "after the stop", waits, kill)
}

// TestFDAutoreapInherited protects that the children of such a child are no such
// children.
func TestFDAutoreapInherited(t *testing.T) {
	s := newScript(t)
	child := s.newList()
	fork := child.sys(unix.SYS_CLONE, int(unix.SIGCHLD))
	fork.Child = s.exiting(5).first
	forkWait, forkStatus := child.wait(fork, 0)
	plain := child.clone4(&abis[0], sigchld, linux.Clone4Args{}, s.exiting(6))
	plainWait, plainStatus := child.wait(plain, 0)
	child.exit(0)
	call, _ := s.clone4FD(&abis[0], autoreap|sigchld, linux.Clone4FDArgs{}, child)
	waits, kill := s.gone(call)
	s.run()
	s.ok(call, fork, forkWait, plain, plainWait)
	if a, b := unix.WaitStatus(*forkStatus).ExitStatus(), unix.WaitStatus(*plainStatus).ExitStatus(); a != 5 || b != 6 {
		t.Errorf("the grandchildren exited with %d and %d, want 5 and 6", a, b)
	}
	checkGone(t, "their parent", waits, kill)
}

// TestFDAutoreapReparented protects that such a child reaps itself whoever is its
// parent by then, and that this one is told.
func TestFDAutoreapReparented(t *testing.T) {
	onEachABI(t, func(t *testing.T, a *abi) {
		s := newScript(t)
		s.sys(unix.SYS_PRCTL, unix.PR_SET_CHILD_SUBREAPER, 1)
		g := s.gate()
		child := s.newList()
		child.pass(g)
		child.exit(9)
		parent := s.newList()
		call, _ := parent.clone4FD(a, autoreap|uint64(unix.SIGUSR1), linux.Clone4FDArgs{}, child)
		parent.exit(0)
		fork := s.clone4(a, sigchld, linux.Clone4Args{}, parent)
		s.wait(fork, 0)
		first, _ := s.nextSignal()
		early, _ := s.wait(call, unix.WALL|unix.WNOHANG)
		s.open(g)
		signal, info := s.nextSignal()
		waits, kill := s.gone(call)
		s.run()
		s.ok(call, fork, first, early)
		if early.Ret != 0 {
			t.Errorf("wait while the child lives: %d, want 0: it has come to the subreaper", int(early.Ret))
		}
		if i := info(); int(signal.Ret) != int(unix.SIGCHLD) || i.pid != int32(call.Ret) || i.status != 9 {
			t.Errorf("signal %d, %+v, want SIGCHLD of the child's end", int(signal.Ret), i)
		}
		checkGone(t, "the subreaper's child", waits, kill)
	})
}

// TestFDAutoreapTraced protects that a tracer has its wait first, whether it is the
// parent or another process.
func TestFDAutoreapTraced(t *testing.T) {
	const ptraceTraceme, ptraceSeize = 0, 0x4206
	t.Run("parent", func(t *testing.T) {
		s := newScript(t)
		child := s.newList()
		child.sys(unix.SYS_PTRACE, ptraceTraceme)
		child.exit(9)
		call, fdAt := s.clone4FD(&abis[0], linux.CLONE_FD|autoreap|sigchld, linux.Clone4FDArgs{}, child)
		buf := s.buffer(fdInfoSize)
		read := s.sys(unix.SYS_READ, s.fdIn(fdAt), addr(buf), len(buf))
		wait, status := s.wait(call, 0)
		waits, kill := s.gone(call)
		s.run()
		s.ok(call, read)
		if wait.Ret != call.Ret || unix.WaitStatus(*status).ExitStatus() != 9 {
			t.Errorf("the tracer's wait: %d (%s), status %#x, want the child, and exit status 9", int(wait.Ret), errName(wait.Errno()), *status)
		}
		if info := clonefdInfo(t, buf); info.Status != 9 {
			t.Errorf("the descriptor: %+v, want status 9", info)
		}
		checkGone(t, "after the tracer's wait", waits, kill)
	})
	for _, waitsFor := range []bool{true, false} {
		name := "another process"
		if !waitsFor {
			name += ", which ends"
		}
		t.Run(name, func(t *testing.T) {
			s := newScript(t)
			g, seized, ended := s.gate(), s.gate(), s.gate()
			child := s.newList()
			child.pass(g)
			child.exit(9)
			call, fdAt := s.clone4FD(&abis[0], linux.CLONE_FD|autoreap|sigchld, linux.Clone4FDArgs{}, child)
			tracer := s.newList()
			seize := tracer.sys(unix.SYS_PTRACE, ptraceSeize, call, 0, 0)
			tracer.open(seized)
			tracer.pass(ended)
			zombie := tracer.sys(unix.SYS_KILL, call, 0)
			status := s.p.Word()
			var wait *rawclone.Op
			if waitsFor {
				wait = tracer.sys(unix.SYS_WAIT4, call, status, unix.WALL)
			}
			tracer.exit(0)
			fork := s.sys(unix.SYS_CLONE, 0)
			fork.Child = tracer.first
			s.pass(seized)
			s.open(g)
			buf := s.buffer(fdInfoSize)
			read := s.sys(unix.SYS_READ, s.fdIn(fdAt), addr(buf), len(buf))
			early := s.noSignal()
			s.open(ended)
			s.wait(fork, unix.WALL)
			signal, info := s.nextSignal()
			waits, kill := s.gone(call)
			s.run()
			s.ok(call, seize, fork, read, zombie)
			if waitsFor && (wait.Ret != call.Ret || unix.WaitStatus(*status).ExitStatus() != 9) {
				t.Errorf("the tracer's wait: %d (%s), status %#x, want the child, and exit status 9", int(wait.Ret), errName(wait.Errno()), *status)
			}
			if e := early.Errno(); e != unix.EAGAIN {
				t.Errorf("signal %d came before the tracer had its wait", int(early.Ret))
			}
			if i := info(); int(signal.Ret) != int(unix.SIGCHLD) || i.pid != int32(call.Ret) {
				t.Errorf("signal %d, %+v, want SIGCHLD of the child's end", int(signal.Ret), i)
			}
			checkGone(t, "after the tracer", waits, kill)
		})
	}
}

// TestFDAutoreapThreads protects that a child ends with its last thread, and that it
// stays what it is when another thread than its first makes it execute a program.
func TestFDAutoreapThreads(t *testing.T) {
	for _, tc := range []struct {
		name string
		exec bool
		want int32
	}{
		{"the first thread ends first", false, 5},
		{"another thread executes a program", true, executedStatus},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newScript(t)
			g := s.gate()
			thread := s.newList()
			thread.pass(g)
			if tc.exec {
				argv, envp := s.buffer(16), s.buffer(16)
				*word(argv) = s.path("/proc/self/exe")
				*word(envp) = s.path(envExecuted + "=1")
				thread.sys(unix.SYS_EXECVE, *word(argv), addr(argv), addr(envp))
			}
			thread.sys(unix.SYS_EXIT, 5)
			child := s.newList()
			start := child.clone4(&abis[0], threadFlags, linux.Clone4Args{StackStart: stackTop(memory(t, 1))}, thread)
			if tc.exec {
				child.sys(unix.SYS_PPOLL, 0, 0, 0, 0, 0)
			}
			child.sys(unix.SYS_EXIT, 6)
			call, fdAt := s.clone4FD(&abis[0], linux.CLONE_FD|autoreap|sigchld, linux.Clone4FDArgs{ClonefdFlags: linux.CLONEFD_NONBLOCK}, child)
			fd := s.fdIn(fdAt)
			pause := s.buffer(16)
			*word(pause[8:]) = 50e6
			s.sys(unix.SYS_NANOSLEEP, addr(pause), 0)
			buf := s.buffer(fdInfoSize)
			early := s.sys(unix.SYS_READ, fd, addr(buf), len(buf))
			s.open(g)
			if tc.exec {
				// Until the program runs, which lives for a while.
				*word(pause[8:]) = 100e6
				s.sys(unix.SYS_NANOSLEEP, addr(pause), 0)
			}
			alive := s.sys(unix.SYS_KILL, call, 0)
			s.sys(unix.SYS_FCNTL, fd, unix.F_SETFL, 0)
			read := s.sys(unix.SYS_READ, fd, addr(buf), len(buf))
			waits, kill := s.gone(call)
			s.run()
			s.ok(call, start)
			if e := early.Errno(); e != unix.EAGAIN {
				t.Errorf("read while a thread lives: %d (%s), want EAGAIN", int(early.Ret), errName(e))
			}
			if e := alive.Errno(); tc.exec && e != 0 {
				t.Errorf("the program that was executed: %s", errName(e))
			}
			if info := clonefdInfo(t, buf); read.Ret != fdInfoSize || info.Code != cldExited || info.Status != tc.want && tc.exec {
				t.Errorf("read %d bytes (%s), %+v, want an exit with status %d", int(read.Ret), errName(read.Errno()), info, tc.want)
			}
			checkGone(t, "the child", waits, kill)
		})
	}
}

// TestFDAutoreapThread protects that a thread can have the flag, which every thread
// lives by.
func TestFDAutoreapThread(t *testing.T) {
	s := newScript(t)
	thread := s.newList()
	tid := s.p.Word()
	thread.sys(unix.SYS_EXIT, 0)
	call, _ := s.clone4FD(&abis[0], threadFlags|autoreap|linux.CLONE_PARENT_SETTID|linux.CLONE_CHILD_CLEARTID, linux.Clone4FDArgs{Clone4Args: linux.Clone4Args{
		StackStart: stackTop(memory(t, 1)),
		Ptid:       uint64(rawclone.Addr(tid)),
		Ctid:       uint64(rawclone.Addr(tid)),
	}}, thread)
	s.sys(unix.SYS_FUTEX, tid, 0 /* FUTEX_WAIT */, call, 0)
	s.run()
	s.ok(call)
}
