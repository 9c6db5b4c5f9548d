// SPDX-License-Identifier: Apache-2.0

package syscalls

// The harness of the tests in traced_test.go: a tracee, its calls, and a tracer that names each
// stop.

import (
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// patience is how long a tracer waits for the next stop, which should come at once.
const patience = 20 * time.Second

// tracedCall is a way to create a child under a tracer.
type tracedCall struct {
	name   string
	abi    *kit.ABI // nil for clone(2)
	number uintptr  // number of the call
	getpid uintptr  // number of getpid(2) for the same instruction

	flags, args register // registers of flags_low and args
}

// tracedCalls returns a call for each ABI, and clone(2). In an emulated machine, where tracing is
// slow, it returns only the calls that this sentry handles itself.
func tracedCalls() []*tracedCall {
	calls := allTracedCalls()
	if testing.Short() {
		return calls[len(calls)-shortCalls:]
	}
	return calls
}

// op returns the operation that makes the call, with a struct in args.
func (c *tracedCall) op(args []byte, flags, stack uint64, tid *uintptr, child *rawclone.List) rawclone.Op {
	in := linux.Clone4Args{StackStart: stack, Ptid: uint64(rawclone.Addr(tid)), Ctid: uint64(rawclone.Addr(tid))}
	if c.abi == nil {
		return rawclone.Op{Trap: c.number, Child: child.First(), Args: kit.CloneArgs(flags, in)}
	}
	copy(args, c.abi.Encode(in))
	o := c.abi.Op(flags, c.abi.Size(), rawclone.AddrOf(args), child)
	o.Trap = c.number
	return o
}

// Ways in which a tracer attaches to its tracee.
const (
	traceme = "TRACEME"
	attach  = "ATTACH"
	seize   = "SEIZE"
)

// tracing is a tracee and what its tracer knows about it. The tracer is the thread of the test.
type tracing struct {
	t    *testing.T
	s    *kit.Script
	call *tracedCall
	way  string

	op       *rawclone.Op   // the traced call
	join     *rawclone.Op   // waits for the child
	body     *rawclone.List // operations of the child
	stack    uint64         // stack of the child
	args     []byte         // the struct of the traced call
	status   *uintptr       // wait status of the child, from join
	ran      *uintptr       // 1 when the child is about to exit
	after    *uintptr       // 1 once the tracee goes on after the call
	tid      *uintptr       // not 0 while a thread child lives
	gate     [2]int         // a pipe from which the tracee reads before the call
	scratch  []byte         // buffer for ptrace(2)
	isThread bool

	// State of one run:
	tracee, child *task
	attached      bool     // an event says that child is a tracee
	event         uintptr  // message of the last event
	poked         *uintptr // a number that the tracer has written
	pokedLate     bool     // the tracer wrote it after the child had copied its own
	problems      []string
}

// task is a task that the tracer sees.
type task struct {
	pid             int
	inCall          bool // the next syscall stop is the exit stop
	ended, detached bool
	stops           string // names of all stops, each followed by a space
}

// Exit statuses of the tracee and of its child.
const (
	traceeStatus = 6
	childStatus  = 5
)

// newTracing prepares a tracing of a call by c.
func newTracing(t *testing.T, way string, c *tracedCall) *tracing {
	t.Helper()
	pin(t)
	s := kit.NewScript(t)
	tr := &tracing{t: t, s: s, call: c, way: way, body: s.NewList(), stack: kit.Stack(t), args: s.Buffer(linux.SizeOfClone4Args), scratch: s.Buffer(512)}
	tr.status, tr.after, tr.ran, tr.tid = s.Word(), s.Word(), s.Word(), s.Word()
	if err := unix.Pipe(tr.gate[:]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(tr.gate[0])
		unix.Close(tr.gate[1])
		for _, p := range []*task{tr.tracee, tr.child} {
			if p != nil && !p.ended && (p == tr.tracee || !p.detached) {
				unix.Kill(p.pid, unix.SIGKILL)
				for err := error(nil); err == nil; {
					_, _, err = tr.wait4(p.pid)
				}
			}
		}
	})
	return tr
}

// pin binds this thread, and all tasks that it creates, to one CPU until the test ends. On Linux,
// a tracer spins until a tracee on another CPU has left that CPU. A slow machine would do little
// else.
func pin(t *testing.T) {
	t.Helper()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	cpu := 0
	for !all.IsSet(cpu) {
		cpu++
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.SchedSetaffinity(0, &all) })
}

// prepare writes a new script for the tracee. The tracee waits at its gate, creates a child with
// flags, waits for the child, and exits.
func (tr *tracing) prepare(flags uint64, ownStack bool) {
	tr.t.Helper()
	s, child := tr.s, tr.body
	s.Reset()
	child.Reset()
	tr.isThread = flags&linux.CLONE_THREAD != 0

	child.Sys(rawclone.TrapStore, tr.ran, 1)
	if tr.isThread {
		// The status of the thread may be reported for its process, so both are equal.
		child.ExitTask(traceeStatus)
		flags |= linux.CLONE_PARENT_SETTID | linux.CLONE_CHILD_CLEARTID
	} else {
		child.Exit(childStatus)
	}

	if tr.way == traceme {
		me := s.Sys(unix.SYS_GETPID)
		s.Sys(unix.SYS_PTRACE, unix.PTRACE_TRACEME)
		s.Sys(unix.SYS_KILL, me, int(unix.SIGSTOP))
	}
	s.Sys(unix.SYS_READ, tr.gate[0], tr.scratch, 1)
	var stack uint64
	if ownStack {
		stack = tr.stack
	}
	tr.op = s.Append(tr.call.op(tr.args, flags, stack, tr.tid, child))
	s.Sys(rawclone.TrapStore, tr.after, 1)
	if tr.isThread {
		tr.join = s.FutexWait(tr.tid, tr.op, 0)
	} else {
		tr.join = s.Sys(unix.SYS_WAIT4, tr.op, tr.status, unix.WALL)
	}
	s.Exit(traceeStatus)
}

// ptrace is ptrace(2).
func ptrace(request, pid int, addr, data uintptr) syscall.Errno {
	_, _, e := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(pid), addr, data, 0, 0)
	return e
}

func (tr *tracing) ptrace(request, pid int, addr, data uintptr) {
	tr.t.Helper()
	if e := ptrace(request, pid, addr, data); e != 0 {
		tr.t.Fatalf("%s of %d with %#x, %#x: %s; stops so far: %s", kit.RequestName(request), pid, addr, data, kit.ErrnoName(e), tr.tracee.stops)
	}
}

// pokeNumber replaces the number of the tracee's current call; -1 prevents the call.
func (tr *tracing) pokeNumber(number uintptr) {
	tr.t.Helper()
	tr.poked, tr.pokedLate = &number, tr.attached
	tr.poke(tr.tracee.pid, regNumber, number)
}

func (tr *tracing) problem(format string, args ...any) {
	tr.problems = append(tr.problems, fmt.Sprintf(format, args...))
}

// spawn creates the tracee for one run.
func (tr *tracing) spawn() {
	tr.t.Helper()
	*tr.after, *tr.ran, *tr.status = 0, 0, 0
	tr.child, tr.attached, tr.event, tr.poked, tr.problems = nil, false, 0, nil, nil
	pid, e := tr.s.Start(kit.SIGCHLD)
	if e != 0 {
		tr.t.Fatalf("creating the tracee: %s", kit.ErrnoName(e))
	}
	tr.tracee = &task{pid: pid}
}

// begin creates the tracee, attaches to it with options, and resumes it with request until it
// makes the call. With PTRACE_CONT, the tracee does not stop at the entry of the call.
func (tr *tracing) begin(options, request int) {
	tr.t.Helper()
	tr.spawn()
	options |= unix.PTRACE_O_EXITKILL | unix.PTRACE_O_TRACESYSGOOD
	stopped := "SIGSTOP"
	switch tr.way {
	case attach:
		tr.ptrace(unix.PTRACE_ATTACH, tr.tracee.pid, 0, 0)
	case seize:
		tr.ptrace(unix.PTRACE_SEIZE, tr.tracee.pid, 0, uintptr(options))
		if request == cont {
			tr.open()
			return
		}
		tr.ptrace(unix.PTRACE_INTERRUPT, tr.tracee.pid, 0, 0)
		stopped = "STOP"
	}
	tr.must(stopped)
	if tr.way != seize {
		tr.ptrace(unix.PTRACE_SETOPTIONS, tr.tracee.pid, 0, uintptr(options))
	}
	tr.open()
	tr.tracee.stops = ""
	if request == cont {
		tr.resume(tr.tracee, request)
		return
	}
	// The tracee may have been in the read already, and begins the read again.
	tr.resume(tr.tracee, step)
	tr.must("read>")
	tr.resume(tr.tracee, step)
	tr.must("read<")
	tr.tracee.stops = ""
	tr.resume(tr.tracee, request)
}

// open lets the tracee make the call.
func (tr *tracing) open() {
	if _, err := unix.Write(tr.gate[1], []byte{0}); err != nil {
		tr.t.Fatal(err)
	}
}

// must waits for a stop of the tracee, and fails the test if another one comes.
func (tr *tracing) must(want string) {
	tr.t.Helper()
	if _, got := tr.wait(tr.tracee.pid); got != want {
		tr.t.Fatalf("the tracee stopped with %s, want %s", got, want)
	}
}

// wait waits for the next stop or exit of the task pid, or of any task if pid is -1, and returns
// its name.
func (tr *tracing) wait(pid int) (*task, string) {
	tr.t.Helper()
	tracee, of := tr.tracee.pid, pid
	late := time.AfterFunc(patience, func() {
		// No stop has come. This ends the wait.
		unix.Kill(tracee, unix.SIGKILL)
		if of > 0 {
			unix.Kill(of, unix.SIGKILL)
		}
	})
	pid, ws, err := tr.wait4(of)
	if !late.Stop() {
		tr.t.Fatalf("no further stop; stops of the tracee: %v", tr.tracee.stops)
	}
	if err != nil {
		tr.t.Fatalf("wait4: %v; stops of the tracee: %v", err, tr.tracee.stops)
	}
	p := tr.tracee
	if pid != p.pid {
		if tr.child == nil {
			tr.child = &task{pid: pid}
		}
		if p = tr.child; pid != p.pid {
			tr.t.Fatalf("a second child appeared")
		}
	}
	stop := tr.name(p, ws)
	p.stops += stop + " "
	return p, stop
}

// wait4 is wait4(2) with __WALL.
//
// For a tracee with a second thread, wait4 polls. gVisor wakes a parent that traces a leader when
// the leader exits, and not again when the last thread has exited: see docs/upstream.md.
func (tr *tracing) wait4(pid int) (int, unix.WaitStatus, error) {
	options := unix.WALL
	if tr.isThread {
		options |= unix.WNOHANG
	}
	for start := time.Now(); ; time.Sleep(100 * time.Microsecond) {
		var ws unix.WaitStatus
		got, err := unix.Wait4(pid, &ws, options, nil)
		switch {
		case err == unix.EINTR:
		case got != 0 || err != nil:
			return got, ws, err
		case time.Since(start) > 2*patience:
			return 0, 0, unix.ETIMEDOUT
		}
	}
}

// name returns a name for the stop or exit of p, and records its registers.
func (tr *tracing) name(p *task, ws unix.WaitStatus) string {
	tr.t.Helper()
	switch {
	case ws.Exited():
		p.ended = true
		return fmt.Sprintf("=%d", ws.ExitStatus())
	case ws.Signaled():
		p.ended = true
		return unix.SignalName(ws.Signal())
	}
	call := tr.callName(p, tr.peek(p.pid, regNumber))
	if p == tr.child && p.stops == "" {
		if result := tr.peek(p.pid, regResult); result != 0 || call != "call" {
			tr.problem("the child begins with result %#x, and the number of %s", result, call)
		}
	}
	switch status := kit.Status(ws); status {
	case kit.SyscallStop:
		return tr.syscallStop(p, call)
	case "stopped by SIGTRAP":
		return "TRAP"
	case "stopped by SIGSTOP":
		return "SIGSTOP"
	case "PTRACE_EVENT_STOP":
		return "STOP"
	case "PTRACE_EVENT_CLONE", "PTRACE_EVENT_FORK", "PTRACE_EVENT_VFORK":
		return tr.eventStop(p, call, strings.TrimPrefix(status, "PTRACE_EVENT_"))
	case "PTRACE_EVENT_VFORK_DONE":
		return tr.eventStop(p, call, "DONE")
	default:
		return status
	}
}

// syscallStop returns a name for an entry stop or an exit stop.
func (tr *tracing) syscallStop(p *task, call string) string {
	tr.t.Helper()
	result := tr.peek(p.pid, regResult)
	p.inCall = !p.inCall
	if p.inCall {
		if int(result) != -int(unix.ENOSYS) {
			tr.problem("the result at the entry to %s is %#x", call, result)
		}
		return call + ">"
	}
	if call == "call" {
		if int(result) > 0 && (tr.event != 0 && result != tr.event || tr.child != nil && int(result) != tr.child.pid) {
			tr.problem("the result at the exit is %d, the event message was %d, the child is %v", result, tr.event, tr.child)
		}
		if *tr.after != 0 {
			tr.problem("the tracee ran on before the exit stop")
		}
	}
	return call + "<"
}

// eventStop returns the name of an event whose message is a child's ID.
func (tr *tracing) eventStop(p *task, call, event string) string {
	tr.t.Helper()
	p.inCall = true
	tr.attached = tr.attached || isEvent(event)
	tr.ptrace(unix.PTRACE_GETEVENTMSG, p.pid, 0, rawclone.AddrOf(tr.scratch))
	msg := *rawclone.WordOf(tr.scratch)
	if tr.event != 0 && msg != tr.event || tr.child != nil && int(msg) != tr.child.pid {
		tr.problem("the message of %s is %d, the last was %d, the child is %v", event, msg, tr.event, tr.child)
	}
	tr.event = msg
	if call != "call" {
		tr.problem("the number at %s is that of %s", event, call)
	}
	if event == "DONE" && *tr.ran != 1 {
		tr.problem("the child had not run at %s", event)
	}
	return event
}

// callName returns a name for the number of a call that a tracer reads.
func (tr *tracing) callName(p *task, number uintptr) string {
	if poked := tr.poked; poked != nil && (p == tr.tracee || !tr.pokedLate) {
		if number == *poked {
			return "call"
		}
	} else if tr.call.shows(number, tr.call.number) {
		return "call"
	}
	if tr.call.shows(number, tr.call.getpid) {
		return "getpid"
	}
	switch number {
	case unix.SYS_READ:
		return "read"
	case unix.SYS_WAIT4, unix.SYS_FUTEX:
		return "join"
	case unix.SYS_EXIT, unix.SYS_EXIT_GROUP:
		return "exit"
	}
	return fmt.Sprintf("%#x", number)
}

// Requests that resume a task.
const (
	cont   = unix.PTRACE_CONT
	step   = unix.PTRACE_SYSCALL
	emu    = unix.PTRACE_SYSEMU
	single = unix.PTRACE_SINGLESTEP
	detach = unix.PTRACE_DETACH
	kill   = -1 // no request: SIGKILL
)

// requestName returns the name of a request, or of kill.
func requestName(request int) string {
	if request == kill {
		return "SIGKILL"
	}
	return strings.TrimPrefix(kit.RequestName(request), "PTRACE_")
}

// resume resumes a task.
func (tr *tracing) resume(p *task, request int) {
	tr.t.Helper()
	switch request {
	case kill:
		if err := unix.Kill(p.pid, unix.SIGKILL); err != nil {
			tr.t.Fatal(err)
		}
		return
	case detach:
		p.detached = true
	case cont, emu, single:
		p.inCall = false
	}
	tr.ptrace(request, p.pid, 0, 0)
}

// finish resumes all tasks until they exit. The function how chooses the request for each stop.
func (tr *tracing) finish(how func(p *task, stop string) int) {
	tr.t.Helper()
	for !tr.tracee.ended || tr.attached && tr.child == nil || tr.child != nil && !tr.child.ended && !tr.child.detached {
		if p, stop := tr.wait(-1); !p.ended {
			tr.resume(p, how(p, stop))
		}
	}
}

// check reports an error unless the stops and results are as expected. Names of stops are
// separated by spaces. A child that is not traced has none.
func (tr *tracing) check(tracee, child string) {
	tr.t.Helper()
	got, gotChild := strings.TrimSpace(tr.tracee.stops), ""
	if tr.child != nil {
		gotChild = strings.TrimSpace(tr.child.stops)
	}
	if got != tracee || gotChild != child {
		tr.t.Errorf("\n\tthe tracee: %s\n\t      want: %s\n\t its child: %s\n\t      want: %s", got, tracee, gotChild, child)
	}
	for _, p := range tr.problems {
		tr.t.Error(p)
	}
}

// checkChild reports an error unless the call created a child that ran, and returned the ID that
// the tracer saw.
func (tr *tracing) checkChild() {
	tr.t.Helper()
	if e := tr.op.Errno(); e != 0 || *tr.ran != 1 || *tr.after != 1 {
		tr.t.Errorf("the call: %s, the child ran: %d, the tracee went on: %d", kit.ErrnoName(e), *tr.ran, *tr.after)
	}
	if tr.event != 0 && tr.op.Ret != tr.event || tr.child != nil && int(tr.op.Ret) != tr.child.pid {
		tr.t.Errorf("the call returned %d, the event message was %d, the child is %v", tr.op.Ret, tr.event, tr.child)
	}
	if !tr.isThread && (tr.join.Ret != tr.op.Ret || *tr.status != childStatus<<8) {
		tr.t.Errorf("the wait for child %d returned %d and %s", tr.op.Ret, int(tr.join.Ret), kit.Status(*tr.status))
	}
}

// asTracer runs f as a subtest on a thread of its own, which can be a tracer. If the test fails,
// the thread exits, which ends all tracees.
func asTracer(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) {
		runtime.LockOSThread()
		t.Cleanup(func() {
			if !t.Failed() {
				runtime.UnlockOSThread()
			}
		})
		f(t)
	})
}
