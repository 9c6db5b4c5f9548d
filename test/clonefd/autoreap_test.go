// SPDX-License-Identifier: Apache-2.0

package clonefd

import (
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

const autoreap = uint64(linux.CLONE_AUTOREAP)

// gate is a pipe in a script. A process that reads from the pipe waits until another process
// writes to it.
type gate struct{ ends *uintptr }

func newGate(s *kit.Script) gate {
	g := gate{s.Word()}
	s.Sys(unix.SYS_PIPE2, g.ends, 0)
	return g
}

// pass appends a wait at the gate. open appends an operation that lets one process pass.
func (g gate) pass(l *rawclone.List) {
	l.Sys(unix.SYS_READ, kit.LoadFD(l, g.ends), l.Program().Word(), 1)
}

func (g gate) open(l *rawclone.List) {
	l.Sys(unix.SYS_WRITE, l.Sys(rawclone.TrapLoad, rawclone.Addr(g.ends)+4), l.Program().Word(), 1)
}

// nextSignal appends a wait for a signal. The function that it returns checks that the signal is
// signo, and that it reports the exit of a child with a status.
func nextSignal(s *kit.Script) func(t *testing.T, signo int, child *rawclone.Op, status int32) {
	info := s.Buffer(kit.SizeOfSiginfo)
	o := s.Sys(unix.SYS_RT_SIGTIMEDWAIT, s.AllSignals(), info, s.Timespec(10*time.Second), 8)
	return func(t *testing.T, signo int, child *rawclone.Op, status int32) {
		t.Helper()
		i := kit.SiginfoOf(info)
		if int(o.Ret) != signo || i.Code != kit.CLD_EXITED || i.PID != int32(child.Ret) || i.Status != status {
			t.Errorf("signal %d (%s): %v; want %s, si_code %d, si_pid %d, si_status %d", int(o.Ret), kit.ErrnoName(o.Errno()), i, kit.SignalName(syscall.Signal(signo)), kit.CLD_EXITED, child.Ret, status)
		}
	}
}

// noSignal appends a wait for a signal with timeout 0. The wait must fail with EAGAIN.
func noSignal(s *kit.Script) *rawclone.Op {
	return s.Sys(unix.SYS_RT_SIGTIMEDWAIT, s.AllSignals(), 0, s.Timespec(0), 8)
}

// gone appends wait calls for a child that reaps itself, and a kill. The first wait call waits
// until the child is reaped. The function that gone returns checks that all wait calls fail with
// ECHILD, and the kill with ESRCH.
func gone(s *kit.Script, pid any) func(t *testing.T) {
	const pPID = 1
	ops := map[string]*rawclone.Op{"wait4": s.Sys(unix.SYS_WAIT4, pid, 0, unix.WALL)}
	ops["wait4 with WNOHANG"] = s.Sys(unix.SYS_WAIT4, pid, 0, unix.WALL|unix.WNOHANG)
	ops["wait4 with WUNTRACED|WCONTINUED"] = s.Sys(unix.SYS_WAIT4, pid, 0, unix.WALL|unix.WUNTRACED|unix.WCONTINUED)
	ops["waitid"] = s.Sys(unix.SYS_WAITID, pPID, pid, 0, unix.WEXITED|unix.WALL, 0)
	kill := s.Sys(unix.SYS_KILL, pid, 0)
	return func(t *testing.T) {
		t.Helper()
		for name, o := range ops {
			kit.CheckErrno(t, name+" for a child that is gone", o, unix.ECHILD)
		}
		kit.CheckErrno(t, "kill of a child that is gone", kill, unix.ESRCH)
	}
}

// TestFDAutoreap checks that no wait call returns a child with CLONE_AUTOREAP, that a wait call
// waits until the child exits, and that the child's exit signal is sent.
func TestFDAutoreap(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		kit.OnEach(t, []uint64{0, kit.SIGCHLD, uint64(unix.SIGUSR1), 64, 200, linux.CLONE_FD | kit.SIGCHLD, linux.CLONE_VFORK | kit.SIGCHLD}, func(t *testing.T, flags uint64) {
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
			var checkSignal func(t *testing.T, signo int, child *rawclone.Op, status int32)
			signo := int(flags & linux.CSIGNAL)
			if 0 < signo && signo <= 64 {
				checkSignal = nextSignal(s)
			}
			none := noSignal(s)
			checkGone := gone(s, call)
			s.Run()
			s.OK(call)
			if flags&linux.CLONE_VFORK == 0 {
				kit.CheckRet(t, "wait4 while the child runs", early.Ret, 0)
			}
			kit.CheckErrno(t, "wait4 until the child has exited", late, unix.ECHILD)
			checkGone(t)
			if checkSignal != nil {
				checkSignal(t, signo, call, 9)
			}
			kit.CheckErrno(t, "waiting for a second signal", none, unix.EAGAIN)
		})
	})
}

// TestFDAutoreapStops checks that wait calls report stops and continues of the child.
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
	checkGone := gone(s, call)
	s.Run()
	s.OK(call)
	kit.CheckWait(t, "waiting for a stop", call, stop, stopStatus, "stopped by SIGSTOP")
	kit.CheckWait(t, "waiting for a continue", call, cont, contStatus, "continued")
	checkGone(t)
}

// TestFDAutoreapInherited checks that the children of a child with CLONE_AUTOREAP do not reap
// themselves.
func TestFDAutoreapInherited(t *testing.T) {
	s := kit.NewScript(t)
	child := s.NewList()
	fork := child.Clone(kit.SIGCHLD, s.Exiting(5))
	forkWait, forkStatus := child.Wait(fork, 0)
	plain := kit.Default().Clone4(child, kit.SIGCHLD, linux.Clone4Args{}, s.Exiting(6))
	plainWait, plainStatus := child.Wait(plain, 0)
	child.Exit(0)
	call, _ := kit.Default().Clone4FD(s.List, autoreap|kit.SIGCHLD, linux.Clone4FDArgs{}, child)
	checkGone := gone(s, call)
	s.Run()
	s.OK(call, fork, plain)
	kit.CheckWait(t, "the grandchild by clone", fork, forkWait, forkStatus, "exit status 5")
	kit.CheckWait(t, "the grandchild by clone4", plain, plainWait, plainStatus, "exit status 6")
	checkGone(t)
}

// TestFDAutoreapReparented checks that the child still reaps itself under a new parent, and that
// the new parent gets the signal.
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
		parent.Exit(9)
		fork := a.Clone4(s.List, kit.SIGCHLD, linux.Clone4Args{}, parent)
		s.Wait(fork, 0)
		checkFirst := nextSignal(s)
		early, _ := s.Wait(call, unix.WALL|unix.WNOHANG)
		g.open(s.List)
		checkSecond := nextSignal(s)
		checkGone := gone(s, call)
		s.Run()
		s.OK(call, fork)
		checkFirst(t, int(unix.SIGCHLD), fork, 9)
		kit.CheckRet(t, "wait4 by the subreaper while the child runs", early.Ret, 0)
		checkSecond(t, int(unix.SIGCHLD), call, 9)
		checkGone(t)
	})
}

// TestFDAutoreapTraced checks that a tracer's wait call still returns the child, whether the
// tracer is the parent or another process.
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
		checkGone := gone(s, call)
		s.Run()
		s.OK(call, read)
		kit.CheckWait(t, "the tracer's wait", call, wait, status, "exit status 9")
		if info := clonefdInfo(t, buf); info.Status != 9 {
			t.Errorf("the descriptor: %+v, want status 9", info)
		}
		checkGone(t)
	})
	for name, waits := range map[string]bool{"another process": true, "another process, which exits": false} {
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
			var wait *rawclone.Op
			var status *uintptr
			if waits {
				wait, status = tracer.Wait(call, unix.WALL)
			}
			tracer.Exit(0)
			fork := s.Clone(0, tracer)
			seized.pass(s.List)
			g.open(s.List)
			buf := s.Buffer(fdInfoSize)
			read := s.Sys(unix.SYS_READ, kit.LoadFD(s.List, fdAt), buf, len(buf))
			early := noSignal(s)
			ended.open(s.List)
			s.Wait(fork, unix.WALL)
			checkSignal := nextSignal(s)
			checkGone := gone(s, call)
			s.Run()
			s.OK(call, seize, fork, read, zombie)
			if waits {
				kit.CheckWait(t, "the tracer's wait", call, wait, status, "exit status 9")
			}
			kit.CheckErrno(t, "waiting for a signal before the tracer had its wait", early, unix.EAGAIN)
			checkSignal(t, int(unix.SIGCHLD), call, 9)
			checkGone(t)
		})
	}
}

// TestFDAutoreapThreads checks that a child exits when its last thread exits, and that the child
// keeps the flag if a thread other than its first executes a program.
func TestFDAutoreapThreads(t *testing.T) {
	for _, tc := range []struct {
		name string
		exec bool
		want int32
	}{
		{name: "the first thread exits first", want: 5},
		{name: "another thread executes a program", exec: true, want: kit.ExecStatus},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := kit.NewScript(t)
			g := newGate(s)
			// The execution of a program closes the write end of executed.
			executed := gate{s.Word()}
			s.Sys(unix.SYS_PIPE2, executed.ends, unix.O_CLOEXEC)
			thread := s.NewList()
			g.pass(thread)
			if tc.exec {
				kit.Exec(thread)
			}
			thread.ExitTask(5)
			child := s.NewList()
			start := kit.Default().Clone4(child, kit.ThreadFlags, linux.Clone4Args{StackStart: kit.Stack(t)}, thread)
			if tc.exec {
				kit.Forever(child)
			}
			child.ExitTask(6)
			tid := s.Word()
			call, fdAt := kit.Default().Clone4FD(s.List, linux.CLONE_FD|autoreap|linux.CLONE_PARENT_SETTID|linux.CLONE_CHILD_CLEARTID|kit.SIGCHLD, linux.Clone4FDArgs{
				Clone4Args:   linux.Clone4Args{Ptid: uint64(rawclone.Addr(tid)), Ctid: uint64(rawclone.Addr(tid))},
				ClonefdFlags: linux.CLONEFD_NONBLOCK,
			}, child)
			fd := kit.LoadFD(s.List, fdAt)
			if !tc.exec {
				s.FutexWait(tid, call, 0) // until the first thread exits
			}
			buf := s.Buffer(fdInfoSize)
			early := s.Sys(unix.SYS_READ, fd, buf, len(buf))
			g.open(s.List)
			s.Sys(unix.SYS_CLOSE, s.Sys(rawclone.TrapLoad, rawclone.Addr(executed.ends)+4))
			executed.pass(s.List)
			alive := s.Sys(unix.SYS_KILL, call, 0)
			s.Sys(unix.SYS_FCNTL, fd, unix.F_SETFL, 0)
			read := s.Sys(unix.SYS_READ, fd, buf, len(buf))
			checkGone := gone(s, call)
			s.Run()
			s.OK(call, start)
			kit.CheckErrno(t, "read while a thread runs", early, unix.EAGAIN)
			if tc.exec {
				kit.CheckErrno(t, "kill of the program that was executed", alive, 0)
			}
			if info := clonefdInfo(t, buf); read.Ret != fdInfoSize || info.Code != kit.CLD_EXITED || info.Status != tc.want {
				t.Errorf("read %d bytes (%s), %+v, want an exit with status %d", int(read.Ret), kit.ErrnoName(read.Errno()), info, tc.want)
			}
			checkGone(t)
		})
	}
}

// TestFDAutoreapThread checks that CLONE_AUTOREAP is accepted with CLONE_THREAD, where it has no
// effect.
func TestFDAutoreapThread(t *testing.T) {
	s := kit.NewScript(t)
	thread := s.NewList()
	tid := s.Word()
	thread.ExitTask(0)
	call, _ := kit.Default().Clone4FD(s.List, kit.ThreadFlags|autoreap|linux.CLONE_PARENT_SETTID|linux.CLONE_CHILD_CLEARTID, linux.Clone4FDArgs{Clone4Args: linux.Clone4Args{
		StackStart: kit.Stack(t),
		Ptid:       uint64(rawclone.Addr(tid)),
		Ctid:       uint64(rawclone.Addr(tid)),
	}}, thread)
	s.FutexWait(tid, call, 0)
	s.Run()
	s.OK(call)
}
