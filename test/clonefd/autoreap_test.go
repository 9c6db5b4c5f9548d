// SPDX-License-Identifier: Apache-2.0

package clonefd

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

const autoreap = uint64(linux.CLONE_AUTOREAP)

// gate is a pipe in a script: who reads from it goes on when another process has
// written to it.
type gate struct{ ends *uintptr }

func newGate(s *kit.Script) gate {
	g := gate{s.Word()}
	s.Sys(unix.SYS_PIPE2, g.ends, 0)
	return g
}

// pass appends a wait at the gate; open appends the end of that wait for one process.
func (g gate) pass(l *rawclone.List) {
	l.Sys(unix.SYS_READ, kit.LoadFD(l, g.ends), l.Program().Word(), 1)
}

func (g gate) open(l *rawclone.List) {
	l.Sys(unix.SYS_WRITE, l.Sys(rawclone.TrapLoad, rawclone.Addr(g.ends)+4), l.Program().Word(), 1)
}

// nextSignal appends the taking of a signal that is pending, or comes soon.
func nextSignal(s *kit.Script) (*rawclone.Op, func() kit.Siginfo) {
	info := s.Buffer(kit.SizeOfSiginfo)
	return s.Sys(unix.SYS_RT_SIGTIMEDWAIT, s.AllSignals(), info, s.Timespec(10*time.Second), 8), func() kit.Siginfo { return kit.SiginfoOf(info) }
}

// noSignal appends the taking of a signal, of which there must be none: EAGAIN.
func noSignal(s *kit.Script) *rawclone.Op {
	return s.Sys(unix.SYS_RT_SIGTIMEDWAIT, s.AllSignals(), 0, s.Timespec(0), 8)
}

// gone appends what must fail with ECHILD, and with ESRCH, once pid is reaped.
func gone(l *rawclone.List, pid any) (waits []*rawclone.Op, kill *rawclone.Op) {
	for _, options := range []int{unix.WALL, unix.WALL | unix.WNOHANG, unix.WALL | unix.WUNTRACED | unix.WCONTINUED} {
		waits = append(waits, l.Sys(unix.SYS_WAIT4, pid, 0, options))
	}
	const pPID = 1
	waits = append(waits, l.Sys(unix.SYS_WAITID, pPID, pid, 0, unix.WEXITED|unix.WALL, 0))
	return waits, l.Sys(unix.SYS_KILL, pid, 0)
}

func checkGone(t *testing.T, name string, waits []*rawclone.Op, kill *rawclone.Op) {
	t.Helper()
	for i, w := range waits {
		if e := w.Errno(); e != unix.ECHILD {
			t.Errorf("%s: wait %d: %d (%s), want ECHILD", name, i, int(w.Ret), kit.ErrnoName(e))
		}
	}
	if e := kill.Errno(); e != unix.ESRCH {
		t.Errorf("%s: kill of a child that is gone: %s, want ESRCH", name, kit.ErrnoName(e))
	}
}

// TestFDAutoreap protects that no wait returns such a child, that one that waits does
// so until the end, and that the signal comes all the same.
func TestFDAutoreap(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		for _, flags := range []uint64{0, uint64(unix.SIGCHLD), uint64(unix.SIGUSR1), 64, 200, linux.CLONE_FD | kit.SIGCHLD, linux.CLONE_VFORK | kit.SIGCHLD} {
			s := kit.NewScript(t)
			g := newGate(s)
			child := s.NewList()
			g.pass(child)
			child.Exit(9)
			if flags&linux.CLONE_VFORK != 0 {
				g.open(s.List)
			}
			call, _ := a.Clone4FD(s.List, flags|autoreap, linux.Clone4FDArgs{}, child)
			early, _ := s.Wait(call, unix.WALL|unix.WNOHANG)
			g.open(s.List)
			late, _ := s.Wait(call, unix.WALL)
			signal, info := nextSignalUnless(s, flags&linux.CSIGNAL == 0 || flags&linux.CSIGNAL > 64)
			none := noSignal(s)
			waits, kill := gone(s.List, call)
			s.Run()
			s.OK(call)
			if flags&linux.CLONE_VFORK == 0 && early.Ret != 0 {
				t.Errorf("flags %#x: wait while the child lives: %d (%s), want 0", flags, int(early.Ret), kit.ErrnoName(early.Errno()))
			}
			checkGone(t, "", append(waits, late), kill)
			if signal != nil {
				i := info()
				if want := int(flags & linux.CSIGNAL); int(signal.Ret) != want || i.Code != kit.CLD_EXITED || i.PID != int32(call.Ret) || i.Status != 9 {
					t.Errorf("flags %#x: signal %d (%s), %+v, want %d of the child's end", flags, int(signal.Ret), kit.ErrnoName(signal.Errno()), i, want)
				}
			}
			if e := none.Errno(); e != unix.EAGAIN {
				t.Errorf("flags %#x: signal %d came, and nobody sent it", flags, int(none.Ret))
			}
		}
	})
}

// nextSignalUnless is nextSignal if there is to be one.
func nextSignalUnless(s *kit.Script, none bool) (*rawclone.Op, func() kit.Siginfo) {
	if none {
		return nil, nil
	}
	return nextSignal(s)
}

// TestFDAutoreapStops protects that stops and continues are told as of any child.
func TestFDAutoreapStops(t *testing.T) {
	s := kit.NewScript(t)
	g := newGate(s)
	child := s.NewList()
	child.Sys(unix.SYS_KILL, child.Sys(unix.SYS_GETPID), int(unix.SIGSTOP))
	g.pass(child)
	child.Exit(9)
	call, _ := kit.Default().Clone4FD(s.List, autoreap|kit.SIGCHLD, linux.Clone4FDArgs{}, child)
	stop, stopStatus := s.Wait(call, unix.WUNTRACED)
	s.Sys(unix.SYS_KILL, call, int(unix.SIGCONT))
	cont, contStatus := s.Wait(call, unix.WCONTINUED)
	g.open(s.List)
	waits, kill := gone(s.List, call)
	s.Run()
	s.OK(call)
	if ws := unix.WaitStatus(*stopStatus); stop.Ret != call.Ret || !ws.Stopped() {
		t.Errorf("waiting for a stop: %d (%s), status %#x", int(stop.Ret), kit.ErrnoName(stop.Errno()), *stopStatus)
	}
	if ws := unix.WaitStatus(*contStatus); cont.Ret != call.Ret || !ws.Continued() {
		t.Errorf("waiting for a continue: %d (%s), status %#x", int(cont.Ret), kit.ErrnoName(cont.Errno()), *contStatus)
	}
	checkGone(t, "after the stop", waits, kill)
}

// TestFDAutoreapInherited protects that the children of such a child are no such
// children.
func TestFDAutoreapInherited(t *testing.T) {
	s := kit.NewScript(t)
	child := s.NewList()
	fork := child.Sys(unix.SYS_CLONE, int(unix.SIGCHLD))
	fork.Child = s.Exiting(5).First()
	forkWait, forkStatus := child.Wait(fork, 0)
	plain := kit.Default().Clone4(child, kit.SIGCHLD, linux.Clone4Args{}, s.Exiting(6))
	plainWait, plainStatus := child.Wait(plain, 0)
	child.Exit(0)
	call, _ := kit.Default().Clone4FD(s.List, autoreap|kit.SIGCHLD, linux.Clone4FDArgs{}, child)
	waits, kill := gone(s.List, call)
	s.Run()
	s.OK(call, fork, forkWait, plain, plainWait)
	if a, b := unix.WaitStatus(*forkStatus).ExitStatus(), unix.WaitStatus(*plainStatus).ExitStatus(); a != 5 || b != 6 {
		t.Errorf("the grandchildren exited with %d and %d, want 5 and 6", a, b)
	}
	checkGone(t, "their parent", waits, kill)
}

// TestFDAutoreapReparented protects that such a child reaps itself whoever is its
// parent by then, and that this one is told.
func TestFDAutoreapReparented(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		s := kit.NewScript(t)
		s.Sys(unix.SYS_PRCTL, unix.PR_SET_CHILD_SUBREAPER, 1)
		g := newGate(s)
		child := s.NewList()
		g.pass(child)
		child.Exit(9)
		parent := s.NewList()
		call, _ := a.Clone4FD(parent, autoreap|uint64(unix.SIGUSR1), linux.Clone4FDArgs{}, child)
		parent.Exit(0)
		fork := a.Clone4(s.List, kit.SIGCHLD, linux.Clone4Args{}, parent)
		s.Wait(fork, 0)
		first, _ := nextSignal(s)
		early, _ := s.Wait(call, unix.WALL|unix.WNOHANG)
		g.open(s.List)
		signal, info := nextSignal(s)
		waits, kill := gone(s.List, call)
		s.Run()
		s.OK(call, fork, first, early)
		if early.Ret != 0 {
			t.Errorf("wait while the child lives: %d, want 0: it has come to the subreaper", int(early.Ret))
		}
		if i := info(); int(signal.Ret) != int(unix.SIGCHLD) || i.PID != int32(call.Ret) || i.Status != 9 {
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
		s := kit.NewScript(t)
		child := s.NewList()
		child.Sys(unix.SYS_PTRACE, ptraceTraceme)
		child.Exit(9)
		call, fdAt := kit.Default().Clone4FD(s.List, linux.CLONE_FD|autoreap|kit.SIGCHLD, linux.Clone4FDArgs{}, child)
		buf := s.Buffer(fdInfoSize)
		read := s.Sys(unix.SYS_READ, kit.LoadFD(s.List, fdAt), buf, len(buf))
		wait, status := s.Wait(call, 0)
		waits, kill := gone(s.List, call)
		s.Run()
		s.OK(call, read)
		if wait.Ret != call.Ret || unix.WaitStatus(*status).ExitStatus() != 9 {
			t.Errorf("the tracer's wait: %d (%s), status %#x, want the child, and exit status 9", int(wait.Ret), kit.ErrnoName(wait.Errno()), *status)
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
			s := kit.NewScript(t)
			g, seized, ended := newGate(s), newGate(s), newGate(s)
			child := s.NewList()
			g.pass(child)
			child.Exit(9)
			call, fdAt := kit.Default().Clone4FD(s.List, linux.CLONE_FD|autoreap|kit.SIGCHLD, linux.Clone4FDArgs{}, child)
			tracer := s.NewList()
			seize := tracer.Sys(unix.SYS_PTRACE, ptraceSeize, call, 0, 0)
			seized.open(tracer)
			ended.pass(tracer)
			zombie := tracer.Sys(unix.SYS_KILL, call, 0)
			status := s.Word()
			var wait *rawclone.Op
			if waitsFor {
				wait = tracer.Sys(unix.SYS_WAIT4, call, status, unix.WALL)
			}
			tracer.Exit(0)
			fork := s.Sys(unix.SYS_CLONE, 0)
			fork.Child = tracer.First()
			seized.pass(s.List)
			g.open(s.List)
			buf := s.Buffer(fdInfoSize)
			read := s.Sys(unix.SYS_READ, kit.LoadFD(s.List, fdAt), buf, len(buf))
			early := noSignal(s)
			ended.open(s.List)
			s.Wait(fork, unix.WALL)
			signal, info := nextSignal(s)
			waits, kill := gone(s.List, call)
			s.Run()
			s.OK(call, seize, fork, read, zombie)
			if waitsFor && (wait.Ret != call.Ret || unix.WaitStatus(*status).ExitStatus() != 9) {
				t.Errorf("the tracer's wait: %d (%s), status %#x, want the child, and exit status 9", int(wait.Ret), kit.ErrnoName(wait.Errno()), *status)
			}
			if e := early.Errno(); e != unix.EAGAIN {
				t.Errorf("signal %d came before the tracer had its wait", int(early.Ret))
			}
			if i := info(); int(signal.Ret) != int(unix.SIGCHLD) || i.PID != int32(call.Ret) {
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
		{"another thread executes a program", true, kit.ExecStatus},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := kit.NewScript(t)
			g := newGate(s)
			thread := s.NewList()
			g.pass(thread)
			if tc.exec {
				kit.Exec(thread)
			}
			thread.Sys(unix.SYS_EXIT, 5)
			child := s.NewList()
			start := kit.Default().Clone4(child, kit.ThreadFlags, linux.Clone4Args{StackStart: kit.Stack(t)}, thread)
			if tc.exec {
				kit.Forever(child)
			}
			child.Sys(unix.SYS_EXIT, 6)
			call, fdAt := kit.Default().Clone4FD(s.List, linux.CLONE_FD|autoreap|kit.SIGCHLD, linux.Clone4FDArgs{ClonefdFlags: linux.CLONEFD_NONBLOCK}, child)
			fd := kit.LoadFD(s.List, fdAt)
			pause := s.Buffer(16)
			*rawclone.WordOf(pause[8:]) = 50e6
			s.Sys(unix.SYS_NANOSLEEP, pause, 0)
			buf := s.Buffer(fdInfoSize)
			early := s.Sys(unix.SYS_READ, fd, buf, len(buf))
			g.open(s.List)
			if tc.exec {
				// Until the program runs, which lives for a while.
				*rawclone.WordOf(pause[8:]) = 100e6
				s.Sys(unix.SYS_NANOSLEEP, pause, 0)
			}
			alive := s.Sys(unix.SYS_KILL, call, 0)
			s.Sys(unix.SYS_FCNTL, fd, unix.F_SETFL, 0)
			read := s.Sys(unix.SYS_READ, fd, buf, len(buf))
			waits, kill := gone(s.List, call)
			s.Run()
			s.OK(call, start)
			if e := early.Errno(); e != unix.EAGAIN {
				t.Errorf("read while a thread lives: %d (%s), want EAGAIN", int(early.Ret), kit.ErrnoName(e))
			}
			if e := alive.Errno(); tc.exec && e != 0 {
				t.Errorf("the program that was executed: %s", kit.ErrnoName(e))
			}
			if info := clonefdInfo(t, buf); read.Ret != fdInfoSize || info.Code != kit.CLD_EXITED || info.Status != tc.want && tc.exec {
				t.Errorf("read %d bytes (%s), %+v, want an exit with status %d", int(read.Ret), kit.ErrnoName(read.Errno()), info, tc.want)
			}
			checkGone(t, "the child", waits, kill)
		})
	}
}

// TestFDAutoreapThread protects that a thread can have the flag, which every thread
// lives by.
func TestFDAutoreapThread(t *testing.T) {
	s := kit.NewScript(t)
	thread := s.NewList()
	tid := s.Word()
	thread.Sys(unix.SYS_EXIT, 0)
	call, _ := kit.Default().Clone4FD(s.List, kit.ThreadFlags|autoreap|linux.CLONE_PARENT_SETTID|linux.CLONE_CHILD_CLEARTID, linux.Clone4FDArgs{Clone4Args: linux.Clone4Args{
		StackStart: kit.Stack(t),
		Ptid:       uint64(rawclone.Addr(tid)),
		Ctid:       uint64(rawclone.Addr(tid)),
	}}, thread)
	s.FutexWait(tid, call, 0)
	s.Run()
	s.OK(call)
}
