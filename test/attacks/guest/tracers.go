// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// tracers is an attack by several tracers that attach to the same callers, interrupt the callers,
// and detach or exit at random moments.
type tracers struct {
	// start starts a caller in a place.
	start func(place int) (pid int, err error)

	// begun returns whether the caller may be traced.
	begun func(place int) bool

	// ended checks the calls of a caller that has exited.
	ended func(place int) error

	// resume has the ptrace requests by which tracees continue.
	resume []int

	// atStop, if not nil, is called at each stop.
	atStop func(rng *rand.Rand, pid int)

	// pids are the callers that may be traced, by place.
	pids [places]atomic.Int32

	stops atomic.Int64
	over  atomic.Bool
}

// places is the number of callers at a time. Each has its own place.
const places = 3

func (tr *tracers) run(r *run) error {
	var all sync.WaitGroup
	for range 3 {
		seed := r.rng.Uint64()
		all.Go(func() {
			// Each tracer is a locked thread, so the thread exits with the goroutine.
			rng := rand.New(rand.NewPCG(seed, 1))
			for !tr.over.Load() {
				done := make(chan struct{})
				go func() {
					defer close(done)
					runtime.LockOSThread()
					tr.trace(rng)
				}()
				<-done
			}
		})
	}
	err := tr.callers(r)
	tr.over.Store(true)
	all.Wait()
	r.out.Stops = int(tr.stops.Load())
	return err
}

// callers starts a caller in each free place, until the tracers have seen enough stops.
func (tr *tracers) callers(r *run) error {
	p := rawclone.NewProgram()
	defer p.Free()
	info := p.Buffer(kit.SizeOfSiginfo)
	var pids [places]int
	var started [places]time.Time
	over := time.Now().Add(patience)
	for n := tr.stops.Load(); n < int64(r.tries) && (n == 0 || time.Now().Before(r.until)); n = tr.stops.Load() {
		if time.Now().After(over) {
			return fmt.Errorf("%d stops within %v, want %d", n, patience, r.tries)
		}
		// This call must wait only for exits, because the tracers wait for stops.
		for {
			clear(info)
			_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_ALL, 0, rawclone.AddrOf(info), unix.WEXITED|unix.WALL|unix.WNOHANG, 0, 0)
			child := kit.SiginfoOf(info)
			if errno != 0 || child.PID == 0 {
				break
			}
			if child.Code == kit.CLD_KILLED {
				r.signaled(unix.WaitStatus(child.Status))
			}
		}
		for i := range places {
			pid := pids[i]
			switch {
			case pid == 0 || unix.Kill(pid, 0) == unix.ESRCH:
				tr.pids[i].Store(0)
				if pid != 0 {
					if err := tr.ended(i); err != nil {
						return err
					}
				}
				var err error
				if pids[i], err = tr.start(i); err != nil {
					return fmt.Errorf("starting a caller: %w", err)
				}
				started[i] = time.Now()
			case tr.pids[i].Load() == 0:
				if tr.begun(i) {
					tr.pids[i].Store(int32(pid))
				}
			case time.Since(started[i]) > patience:
				return fmt.Errorf("a caller has not exited within %v", patience)
			case r.oneIn(100):
				unix.Kill(pid, unix.SIGKILL)
			case r.oneIn(3):
				// A tracer may have exited and left the caller stopped.
				unix.Kill(pid, unix.SIGCONT)
			}
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// trace attaches to one caller, and traces the caller for some stops. Then trace detaches, or
// leaves that to the exit of the thread.
func (tr *tracers) trace(rng *rand.Rand) {
	pid := tr.attach(rng)
	for left, idle := 5+rng.IntN(100), 0; left > 0 && idle < 100 && !tr.over.Load(); {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD|unix.WNOHANG, nil)
		if err != nil && err != unix.EINTR {
			return
		}
		if got <= 0 || err != nil {
			if idle++; idle%10 == 0 {
				ptrace(unix.PTRACE_INTERRUPT, pid, 0, 0)
			}
			// A tracer that spins takes the processor from its tracee.
			unix.Nanosleep(&unix.Timespec{Nsec: 20_000}, nil)
			continue
		}
		if !ws.Stopped() {
			continue
		}
		left--
		tr.stops.Add(1)
		if tr.atStop != nil {
			tr.atStop(rng, got)
		}
		request := tr.resume[rng.IntN(len(tr.resume))]
		if rng.IntN(30) == 0 {
			request = unix.PTRACE_DETACH
		}
		ptrace(request, got, 0, uintptr(delivered(ws)))
	}
	if rng.IntN(2) == 0 {
		ptrace(unix.PTRACE_DETACH, pid, 0, 0)
	}
}

// attach attaches to a caller, and returns the caller, or 0 if the attack is over.
func (tr *tracers) attach(rng *rand.Rand) int {
	for pause := 100 * time.Microsecond; !tr.over.Load(); pause = min(2*pause, 5*time.Millisecond) {
		pid := int(tr.pids[rng.IntN(places)].Load())
		if pid != 0 && rng.IntN(3) == 0 {
			if ptrace(unix.PTRACE_ATTACH, pid, 0, 0) == 0 {
				return pid
			}
		} else if pid != 0 {
			options := traceOptions[rng.IntN(len(traceOptions))] | unix.PTRACE_O_TRACESYSGOOD
			if rng.IntN(8) == 0 {
				options |= unix.PTRACE_O_EXITKILL
			}
			if ptrace(unix.PTRACE_SEIZE, pid, 0, uintptr(options)) == 0 {
				ptrace(unix.PTRACE_INTERRUPT, pid, 0, 0)
				return pid
			}
		}
		// Tracers that look for callers all the time leave an emulated processor no time to
		// start a caller.
		time.Sleep(pause)
	}
	return 0
}

// tracedCallers are callers whose calls must all succeed, even under several tracers.
type tracedCallers struct {
	r     *run
	fd    bool
	lists [places]*rawclone.List
	calls [places][]tracedCall
}

type tracedCall struct {
	op    *rawclone.Op
	abi   *kit.ABI
	flags uint64
}

// traceCallers is an attack by tracers that do not change registers.
func traceCallers(r *run, fd bool) error {
	c := &tracedCallers{r: r, fd: fd}
	for i := range places {
		c.prepare(i)
	}
	tr := &tracers{
		start: c.start, begun: func(int) bool { return true }, ended: c.ended,
		resume: []int{unix.PTRACE_SYSCALL, unix.PTRACE_SYSCALL, unix.PTRACE_CONT},
	}
	return tr.run(r)
}

// flagsOfTraced are the flags of traced calls. prepare adds a few flags at random.
var flagsOfTraced = []uint64{
	linux.CLONE_VFORK | linux.CLONE_VM | kit.SIGCHLD,
	linux.CLONE_VFORK | linux.CLONE_VM | kit.SIGCHLD,
	linux.CLONE_VFORK | linux.CLONE_VM,
	linux.CLONE_VFORK | kit.SIGCHLD,
	linux.CLONE_VM | kit.SIGCHLD,
	linux.CLONE_VM,
	kit.ThreadFlags,
}

// prepare writes the list of the caller in a place. All callers there execute the list, one
// after the other.
func (c *tracedCallers) prepare(place int) {
	const calls = 48
	p := rawclone.NewProgram()
	l, child := p.NewList(5*calls+1), p.NewList(2)
	child.Sys(unix.SYS_SCHED_YIELD)
	child.ExitTask(0)
	c.lists[place] = l
	for n := range calls {
		abi := kit.ABIs()[n%len(kit.ABIs())]
		flags := pick(c.r, flagsOfTraced)
		for _, f := range []uint64{linux.CLONE_PTRACE, linux.CLONE_UNTRACED} {
			if c.r.oneIn(4) {
				flags |= f
			}
		}
		var call *rawclone.Op
		if c.fd && flags&linux.CLONE_THREAD == 0 {
			flags |= linux.CLONE_FD | pick(c.r, []uint64{0, linux.CLONE_AUTOREAP})
			var fd *uintptr
			call, fd = abi.Clone4FD(l, flags, linux.Clone4FDArgs{}, child)
			read := kit.LoadFD(l, fd)
			// The read waits for the exit of the child, which a tracer may have stopped.
			l.Sys(unix.SYS_READ, read, p.Buffer(linux.SizeOfClonefdInfo), linux.SizeOfClonefdInfo)
			l.Sys(unix.SYS_CLOSE, read)
		} else {
			call = abi.Clone4(l, flags, linux.Clone4Args{}, child)
		}
		if flags&(linux.CLONE_THREAD|linux.CLONE_AUTOREAP) == 0 {
			l.Wait(call, unix.WALL)
		}
		c.calls[place] = append(c.calls[place], tracedCall{call, abi, flags})
	}
	l.Exit(0)
}

func (c *tracedCallers) start(place int) (int, error) {
	for _, call := range c.calls[place] {
		call.op.Ret = notWritten
	}
	pid, errno := c.lists[place].Start(kit.SIGCHLD)
	if errno != 0 {
		return 0, errno
	}
	return pid, nil
}

// ended checks that each call of the caller in a place has created a child. A caller that was
// killed has not made all calls.
func (c *tracedCallers) ended(place int) error {
	for n, call := range c.calls[place] {
		ret := int(call.op.Ret)
		if ret == notWritten {
			return nil
		}
		if ret <= 0 {
			return fmt.Errorf("call %d of a caller, %s with %s, returned %#x: %s, want a child", n, call.abi.Name, kit.Flags(call.flags), ret, kit.ErrnoName(call.op.Errno()))
		}
		c.r.out.Made++
	}
	return nil
}
