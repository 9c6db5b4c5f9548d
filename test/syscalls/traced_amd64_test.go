// SPDX-License-Identifier: Apache-2.0

package syscalls

// Tests of a task under a tracer: which stops it makes, in which order, and that it
// comes out of each of them. A call that loses a stop, or begins one in another, ends
// a whole sandbox.
//
// What is expected here is what Linux does. clone(2) is a row of every table, for what
// a failure means: where clone fails as well, gVisor differs and not clone4. Known, and
// left out of the tables:
//
//   - At an event stop, RAX is -ENOSYS on Linux and the child's ID in gVisor. So a
//     tracer that changes it there changes the result in gVisor only.
//   - PTRACE_GETEVENTMSG at a syscall stop says on Linux which of the two it is. In
//     gVisor there still is the message of the last event.
//   - orig_rax of a call by INT $0x80; see sandboxI386.

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// Places in struct user, for PTRACE_PEEKUSER.
const (
	userR10     = 7 * 8
	userRAX     = 10 * 8
	userRCX     = 11 * 8
	userRDX     = 12 * 8
	userRSI     = 13 * 8
	userRDI     = 14 * 8
	userOrigRAX = 15 * 8
)

// patience is how long a tracer waits for what comes next. Nothing that is waited for
// here takes time.
const patience = 20 * time.Second

// noReturnYet is in RAX at a syscall-entry stop.
const noReturnYet = ^uintptr(unix.ENOSYS) + 1

// sandboxI386 is what some platforms of gVisor add to the number of an INT $0x80
// where a tracer sees it, also of calls that gVisor itself has.
const sandboxI386 = 0x86000000

// tracedCall is a way to make a child that a tracer looks at.
type tracedCall struct {
	name string
	abi  *kit.ABI // nil for clone(2)
	rax  uintptr  // what the caller puts there

	// Where flags_low and args are in struct user.
	flags, args uintptr
}

func (c *tracedCall) int80() bool { return c.abi != nil && c.abi.Entry == rawclone.Int80 }

// getpid returns the number of getpid(2) for the same instruction.
func (c *tracedCall) getpid() uintptr {
	if c.int80() {
		return 20
	}
	return unix.SYS_GETPID
}

// shows returns whether orig_rax is what a tracer has to see after the instruction
// with rax.
func (c *tracedCall) shows(orig, rax uintptr) bool {
	if !c.int80() {
		return orig == rax
	}
	rax = uintptr(uint32(rax))
	return orig == rax || kit.Platform() != "" && orig == rax+sandboxI386
}

// tracedCalls returns a call for each ABI, and clone(2). In an emulated machine, where
// tracing is slow, it leaves out what is not special to this sentry.
func tracedCalls() []*tracedCall {
	calls := []*tracedCall{{name: "clone", rax: unix.SYS_CLONE, flags: userRDI, args: userRSI}}
	for _, abi := range kit.ABIs() {
		c := &tracedCall{name: abi.Name, abi: abi, rax: abi.Number, flags: userRSI, args: userR10}
		if c.int80() {
			c.flags, c.args = userRCX, userRSI
		}
		calls = append(calls, c)
	}
	if testing.Short() {
		return calls[2:]
	}
	return calls
}

// uncleanCalls returns a call for each ABI, with garbage in the upper half of RAX.
func uncleanCalls() []*tracedCall {
	calls := slices.DeleteFunc(tracedCalls(), func(c *tracedCall) bool { return c.abi == nil })
	for _, c := range calls {
		c.name += " unclean"
		c.rax |= 0xdeadbeef << 32
	}
	return calls
}

// op returns the operation that makes the call, with a struct in args.
func (c *tracedCall) op(args []byte, flags, stack uint64, tid *uintptr, child *rawclone.List) rawclone.Op {
	if c.abi == nil {
		return rawclone.Op{Trap: c.rax, Child: child.First(), Args: [6]uintptr{uintptr(flags), uintptr(stack), rawclone.Addr(tid), rawclone.Addr(tid)}}
	}
	copy(args, c.abi.Encode(linux.Clone4Args{StackStart: stack, Ptid: uint64(rawclone.Addr(tid)), Ctid: uint64(rawclone.Addr(tid))}))
	return rawclone.Op{Trap: c.rax, Entry: c.abi.Entry, Child: child.First(), Args: [6]uintptr{0, uintptr(flags), c.abi.Size(), rawclone.AddrOf(args)}}
}

// Ways in which a tracer gets its tracee.
const (
	traceme = "TRACEME"
	attach  = "ATTACH"
	seize   = "SEIZE"
)

// tracing is a tracee and all there is to know of it. Its tracer is the thread of
// the test.
type tracing struct {
	t    *testing.T
	s    *kit.Script
	call *tracedCall
	way  string

	fork     *rawclone.Op   // makes the tracee
	op       *rawclone.Op   // the traced call
	join     *rawclone.Op   // waits for the child
	body     *rawclone.List // what the child does
	stack    uint64         // one for it
	args     []byte         // the struct of the traced call
	status   *uintptr       // its wait status, by join
	ran      *uintptr       // 1 when it is about to end
	after    *uintptr       // 1 when the tracee has gone on after the call
	tid      *uintptr       // not 0 while there is a thread
	gate     [2]int         // a pipe: what the tracee waits for before the call
	peeked   *uintptr
	isThread bool

	// Of one run:
	tracee, child *task
	attached      bool     // an event says that child is a tracee
	event         uintptr  // message of the last event
	poked         *uintptr // what the tracer put into orig_rax
	pokedLate     bool     // that was after the child had its own
	problems      []string
}

// task is a task that the tracer sees.
type task struct {
	pid             int
	inCall          bool // its next syscall stop is that at the exit
	ended, detached bool
	stops           string // all that happened to it, each with a space behind
}

// The tracee, and its child, end with these.
const (
	traceeStatus = 6
	childStatus  = 5
)

// newTracing prepares a tracing of calls by c. It is for any number of runs, as
// every script takes memory for good.
func newTracing(t *testing.T, way string, c *tracedCall) *tracing {
	t.Helper()
	pin(t)
	s := kit.NewScript(t)
	tr := &tracing{t: t, s: s, call: c, way: way, body: s.NewList(), stack: kit.Stack(t), args: s.Buffer(linux.SizeOfClone4Args)}
	tr.status, tr.after, tr.ran, tr.tid, tr.peeked = s.Word(), s.Word(), s.Word(), s.Word(), s.Word()
	tr.fork = s.Program().List(rawclone.Op{Trap: unix.SYS_CLONE, Args: [6]uintptr{uintptr(unix.SIGCHLD)}, Child: s.First()})
	if err := unix.Pipe(tr.gate[:]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(tr.gate[0])
		unix.Close(tr.gate[1])
		for _, p := range []*task{tr.tracee, tr.child} {
			if p != nil && !p.ended && (p == tr.tracee || !p.detached) {
				unix.Kill(p.pid, unix.SIGKILL)
				for err := error(nil); err == nil || err == unix.EINTR; {
					_, err = unix.Wait4(p.pid, nil, unix.WALL, nil)
				}
			}
		}
	})
	return tr
}

// pin binds this thread, and all tasks it makes, to one CPU until the test ends. On
// Linux a tracer spins until its tracee has left its CPU, if that is another one. A
// slow machine would do little else.
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

// prepare makes a new script for the tracee: it waits to be let go, makes a child
// with flags, waits for it and ends.
func (tr *tracing) prepare(flags uint64, ownStack bool) {
	tr.t.Helper()
	s, child := tr.s, tr.body
	s.Reset()
	child.Reset()
	tr.isThread = flags&linux.CLONE_THREAD != 0

	child.Sys(rawclone.TrapStore, tr.ran, 1)
	if tr.isThread {
		// The status of a thread may be told as that of its process.
		child.Sys(unix.SYS_EXIT, traceeStatus)
		flags |= linux.CLONE_PARENT_SETTID | linux.CLONE_CHILD_CLEARTID
	} else {
		child.Exit(childStatus)
	}

	if tr.way == traceme {
		me := s.Sys(unix.SYS_GETPID)
		s.Sys(unix.SYS_PTRACE, unix.PTRACE_TRACEME)
		s.Sys(unix.SYS_KILL, me, int(unix.SIGSTOP))
	}
	s.Sys(unix.SYS_READ, tr.gate[0], tr.peeked, 1)
	var stack uint64
	if ownStack {
		stack = tr.stack
	}
	tr.op = s.Append(tr.call.op(tr.args, flags, stack, tr.tid, child))
	s.Sys(rawclone.TrapStore, tr.after, 1)
	if tr.isThread {
		tr.join = s.Sys(unix.SYS_FUTEX, tr.tid, 0 /* FUTEX_WAIT */, tr.op, 0)
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
		tr.t.Fatalf("ptrace(%#x, %d, %#x, %#x): %v; stops so far: %v", request, pid, addr, data, e, tr.tracee.stops)
	}
}

func (tr *tracing) peek(pid int, addr uintptr) uintptr {
	tr.t.Helper()
	tr.ptrace(unix.PTRACE_PEEKUSR, pid, addr, rawclone.Addr(tr.peeked))
	return *tr.peeked
}

func (tr *tracing) poke(pid int, addr, data uintptr) {
	tr.t.Helper()
	tr.ptrace(unix.PTRACE_POKEUSR, pid, addr, data)
}

func (tr *tracing) problem(format string, args ...any) {
	tr.problems = append(tr.problems, fmt.Sprintf(format, args...))
}

// spawn makes the tracee, for one run.
func (tr *tracing) spawn() {
	tr.t.Helper()
	*tr.after, *tr.ran, *tr.status = 0, 0, 0
	tr.child, tr.attached, tr.event, tr.poked, tr.problems = nil, false, 0, nil, nil
	pid, e := rawclone.Do(tr.fork)
	if e != 0 {
		tr.t.Fatalf("making the tracee: %v", e)
	}
	tr.tracee = &task{pid: int(pid)}
}

// begin makes the tracee, attaches to it with options and lets it run into the
// call. With PTRACE_CONT as request it does not stop before an event there; with
// others, it is request that it was resumed by last before the call.
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
	// It may have been in the read already, and begins it again.
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

// must waits for a stop of the tracee that has to come.
func (tr *tracing) must(want string) {
	tr.t.Helper()
	if _, got := tr.wait(tr.tracee.pid); got != want {
		tr.t.Fatalf("the tracee stopped with %s, want %s", got, want)
	}
}

// wait waits for what happens next to the task pid, or to any if -1, and tells what.
func (tr *tracing) wait(pid int) (*task, string) {
	tr.t.Helper()
	tracee, of := tr.tracee.pid, pid
	late := time.AfterFunc(patience, func() {
		// Nothing happens any more. This ends the wait.
		unix.Kill(tracee, unix.SIGKILL)
		if of > 0 {
			unix.Kill(of, unix.SIGKILL)
		}
	})
	var ws unix.WaitStatus
	var err error
	for {
		pid, err = unix.Wait4(of, &ws, unix.WALL, nil)
		if err != unix.EINTR {
			break
		}
	}
	if !late.Stop() {
		tr.t.Fatalf("nothing happened any more; stops of the tracee: %v", tr.tracee.stops)
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
			tr.t.Fatalf("there is a second child")
		}
	}
	stop := tr.name(p, ws)
	p.stops += stop + " "
	return p, stop
}

// name returns a name for what happened to p, and looks at its registers.
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
	call := tr.callName(p, tr.peek(p.pid, userOrigRAX))
	if p == tr.child && p.stops == "" {
		if rax := tr.peek(p.pid, userRAX); rax != 0 || call != "call" {
			tr.problem("the child begins with RAX %#x, and orig_rax of %s", rax, call)
		}
	}
	const stopped = 0x7f
	switch ws {
	case stopped | (unix.WaitStatus(unix.SIGTRAP)|0x80)<<8:
		return tr.syscallStop(p, call)
	case stopped | unix.WaitStatus(unix.SIGTRAP)<<8:
		return "TRAP"
	case stopped | unix.WaitStatus(unix.SIGSTOP)<<8:
		return "SIGSTOP"
	}
	events := map[unix.WaitStatus]string{
		unix.PTRACE_EVENT_CLONE:      "CLONE",
		unix.PTRACE_EVENT_FORK:       "FORK",
		unix.PTRACE_EVENT_VFORK:      "VFORK",
		unix.PTRACE_EVENT_VFORK_DONE: "DONE",
		unix.PTRACE_EVENT_STOP:       "STOP",
	}
	event := events[ws>>16]
	switch {
	case event == "" || uint16(ws) != stopped|uint16(unix.SIGTRAP)<<8:
		return fmt.Sprintf("%#x", uint32(ws))
	case event == "STOP":
		return event
	}
	return tr.eventStop(p, call, event)
}

// syscallStop returns a name for a stop at the entry or the exit of a call.
func (tr *tracing) syscallStop(p *task, call string) string {
	tr.t.Helper()
	rax := tr.peek(p.pid, userRAX)
	p.inCall = !p.inCall
	if p.inCall {
		if rax != noReturnYet {
			tr.problem("RAX at the entry to %s is %#x", call, rax)
		}
		return call + ">"
	}
	if call == "call" {
		if int(rax) > 0 && (tr.event != 0 && rax != tr.event || tr.child != nil && int(rax) != tr.child.pid) {
			tr.problem("RAX at the exit is %d, the event message was %d, the child is %v", rax, tr.event, tr.child)
		}
		if *tr.after != 0 {
			tr.problem("the tracee ran on before the exit stop")
		}
	}
	return call + "<"
}

// eventStop returns the name of an event that has a child's ID for a message.
func (tr *tracing) eventStop(p *task, call, event string) string {
	tr.t.Helper()
	p.inCall = true
	tr.attached = tr.attached || isEvent(event)
	tr.ptrace(unix.PTRACE_GETEVENTMSG, p.pid, 0, rawclone.Addr(tr.peeked))
	if msg := *tr.peeked; tr.event != 0 && msg != tr.event || tr.child != nil && int(msg) != tr.child.pid {
		tr.problem("the message of %s is %d, the last was %d, the child is %v", event, msg, tr.event, tr.child)
	}
	tr.event = *tr.peeked
	if call != "call" {
		tr.problem("orig_rax at %s is that of %s", event, call)
	}
	if event == "DONE" && *tr.ran != 1 {
		tr.problem("the child had not run at %s", event)
	}
	return event
}

// callName returns a name for what is in orig_rax of p.
func (tr *tracing) callName(p *task, orig uintptr) string {
	if poked := tr.poked; poked != nil && (p == tr.tracee || !tr.pokedLate) {
		if orig == *poked {
			return "call"
		}
	} else if tr.call.shows(orig, tr.call.rax) {
		return "call"
	}
	if tr.call.shows(orig, tr.call.getpid()) {
		return "getpid"
	}
	switch orig {
	case unix.SYS_READ:
		return "read"
	case unix.SYS_WAIT4, unix.SYS_FUTEX:
		return "join"
	case unix.SYS_EXIT, unix.SYS_EXIT_GROUP:
		return "exit"
	}
	return fmt.Sprintf("%#x", orig)
}

// Requests by which a task is resumed.
const (
	cont   = unix.PTRACE_CONT
	step   = unix.PTRACE_SYSCALL
	emu    = unix.PTRACE_SYSEMU
	single = unix.PTRACE_SINGLESTEP
	detach = unix.PTRACE_DETACH
	kill   = -1 // no request: SIGKILL
)

// resume lets a task go on.
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

// finish lets all go on until the end. At each stop, how says by which request.
func (tr *tracing) finish(how func(p *task, stop string) int) {
	tr.t.Helper()
	for !tr.tracee.ended || tr.attached && tr.child == nil || tr.child != nil && !tr.child.ended && !tr.child.detached {
		if p, stop := tr.wait(-1); !p.ended {
			tr.resume(p, how(p, stop))
		}
	}
}

// check reports an error if the stops or the results are not as expected: the names
// of the stops, with a space between. A child that is not traced has none.
func (tr *tracing) check(what, tracee, child string) {
	tr.t.Helper()
	got, gotChild := strings.TrimSpace(tr.tracee.stops), ""
	if tr.child != nil {
		gotChild = strings.TrimSpace(tr.child.stops)
	}
	if got != tracee || gotChild != child {
		tr.t.Errorf("%s:\n\tthe tracee: %s\n\t      want: %s\n\t its child: %s\n\t      want: %s", what, got, tracee, gotChild, child)
	}
	for _, p := range tr.problems {
		tr.t.Errorf("%s: %s", what, p)
	}
}

// checkChild reports an error if the call has not made a child that ran, or gave
// another ID than the tracer saw.
func (tr *tracing) checkChild(what string) {
	tr.t.Helper()
	if e := tr.op.Errno(); e != 0 || *tr.ran != 1 || *tr.after != 1 {
		tr.t.Errorf("%s: the call: %s, the child ran: %d, the tracee went on: %d", what, kit.ErrnoName(e), *tr.ran, *tr.after)
	}
	if tr.event != 0 && tr.op.Ret != tr.event || tr.child != nil && int(tr.op.Ret) != tr.child.pid {
		tr.t.Errorf("%s: the call gave %d, the event message was %d, the child is %v", what, tr.op.Ret, tr.event, tr.child)
	}
	if !tr.isThread && (tr.join.Ret != tr.op.Ret || *tr.status != childStatus<<8) {
		tr.t.Errorf("%s: the wait for child %d gave %d and status %#x", what, tr.op.Ret, int(tr.join.Ret), *tr.status)
	}
}

// asTracer runs f as a subtest that may be a tracer: on one thread, which ends if the
// test fails, and with it all tracees.
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

const (
	ptraced  = linux.CLONE_PTRACE
	untraced = linux.CLONE_UNTRACED
	vfork    = linux.CLONE_VFORK | kit.SIGCHLD
	vforkVM  = linux.CLONE_VFORK | linux.CLONE_VM | kit.SIGCHLD
)

// eventOptions are all options for events of calls that make children.
const eventOptions = unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACEVFORKDONE

// TestTracedSteps protects what a tracer sees that steps from system call to system
// call: an entry stop, the events that it has asked for, one exit stop, and the same
// of the calls that follow; and of a child that becomes its tracee, all from its
// first moment on.
func TestTracedSteps(t *testing.T) {
	options := []struct {
		name string
		bits int
	}{
		{"none", 0},
		{"CLONE", unix.PTRACE_O_TRACECLONE},
		{"FORK", unix.PTRACE_O_TRACEFORK},
		{"VFORK", unix.PTRACE_O_TRACEVFORK},
		{"DONE", unix.PTRACE_O_TRACEVFORKDONE},
		{"all", eventOptions},
	}
	const own = true
	tests := []struct {
		flags    uint64
		ownStack bool
		events   string // by options
		always   bool   // the child is a tracee without an event too
	}{
		//                                 none CLONE FORK VFORK DONE all
		{flags: kit.SIGCHLD, events: "                 -    -     FORK -     -    FORK"},
		{flags: kit.SIGCHLD | untraced, events: "      -    -     -    -     -    -"},
		{flags: kit.SIGCHLD | ptraced, events: "       -    -     FORK -     -    FORK", always: true},
		{events: "                       -    CLONE -    -     -    CLONE"},
		{flags: untraced, events: "                -    -     -    -     -    -"},
		{flags: ptraced, events: "                 -    CLONE -    -     -    CLONE", always: true},
		{flags: kit.ThreadFlags, ownStack: own, events: "               -    CLONE -    -     -    CLONE"},
		{flags: kit.ThreadFlags | untraced, ownStack: own, events: "    -    -     -    -     -    -"},
		{flags: kit.ThreadFlags | ptraced, ownStack: own, events: "     -    CLONE -    -     -    CLONE", always: true},
		{flags: vfork, events: "                   -    -     -    VFORK DONE VFORK+DONE"},
		{flags: vfork | untraced, events: "        -    -     -    -     DONE DONE"},
		{flags: vfork | ptraced, events: "         -    -     -    VFORK DONE VFORK+DONE", always: true},
		{flags: vforkVM, ownStack: own, events: "                   -    -     -    VFORK DONE VFORK+DONE"},
		{flags: vforkVM | untraced, ownStack: own, events: "        -    -     -    -     DONE DONE"},
		{flags: vforkVM | ptraced, ownStack: own, events: "         -    -     -    VFORK DONE VFORK+DONE", always: true},
	}
	run := func(t *testing.T, way string, c *tracedCall, all bool) {
		tr := newTracing(t, way, c)
		for _, tc := range tests {
			tr.prepare(tc.flags, tc.ownStack)
			for i, events := range strings.Fields(tc.events) {
				if !all && i != 0 && options[i].bits != eventOptions {
					continue
				}
				tracee, child := "call> "+strings.NewReplacer("-", "", "+", " ").Replace(events)+" call< join> join< exit> =6", ""
				tracee = strings.Join(strings.Fields(tracee), " ")
				event := isEvent(strings.TrimSuffix(events, "+DONE"))
				if event || tc.always {
					child = firstStop(way) + " exit> =5"
					if tr.isThread {
						child = firstStop(way) + " exit> =6"
					}
				}
				for _, childFirst := range []bool{false, true} {
					if childFirst && (!event || options[i].bits != eventOptions) {
						continue
					}
					tr.begin(options[i].bits, step)
					tr.finish(func(p *task, stop string) int {
						if childFirst && isEvent(stop) {
							tr.endChild()
						}
						return step
					})
					what := fmt.Sprintf("flags %#x, options %s, child first: %v", tc.flags, options[i].name, childFirst)
					tr.check(what, tracee, child)
					tr.checkChild(what)
				}
			}
		}
	}
	for _, way := range ways(traceme, attach, seize) {
		for _, c := range tracedCalls() {
			asTracer(t, way+" "+c.name, func(t *testing.T) { run(t, way, c, way == traceme && !testing.Short()) })
		}
	}
	for _, c := range uncleanCalls() {
		asTracer(t, traceme+" "+c.name, func(t *testing.T) { run(t, traceme, c, false) })
	}
}

// ways returns the ways to try: in an emulated machine, where this is slow, the first.
func ways(all ...string) []string {
	if testing.Short() {
		return all[:1]
	}
	return all
}

// firstStop returns the first stop of a child that is a tracee from the beginning.
func firstStop(way string) string {
	if way == seize {
		return "STOP"
	}
	return "SIGSTOP"
}

// endChild lets a child run to its end, step by step, while the tracee is at an event.
func (tr *tracing) endChild() {
	tr.t.Helper()
	for tr.child == nil || !tr.child.ended {
		if p, _ := tr.wait(int(tr.event)); !p.ended {
			tr.resume(p, step)
		}
	}
	if *tr.after != 0 {
		tr.problem("the tracee ran on from an event stop")
	}
}

// isEvent returns whether at this stop there is a child that is a tracee too.
func isEvent(stop string) bool { return stop == "CLONE" || stop == "FORK" || stop == "VFORK" }

// TestTracedResumed protects that a tracee comes out of each stop in each way in
// which a tracer can let it go on, or end it.
func TestTracedResumed(t *testing.T) {
	type outcome int
	const (
		whole  outcome = iota // a child that the tracee waited for
		half                  // a child, and a tracee that did not get that far
		none                  // no call that returned
		enosys                // what a call gives that is not made
	)
	tests := []struct {
		flags uint64

		// What resumes the tracee on its way into the call, and what does from a
		// stop on.
		first int
		then  map[string]int

		child  int // what resumes the child
		stops  string
		childs string // first is its first stop
		want   outcome
	}{
		// Events only.
		{flags: kit.SIGCHLD, first: cont, child: cont, stops: "FORK =6", childs: "first =5", want: whole},
		{first: cont, child: cont, stops: "CLONE =6", childs: "first =5", want: whole},
		{flags: vfork, first: cont, child: cont, stops: "VFORK DONE =6", childs: "first =5", want: whole},
		{flags: vfork | untraced, first: cont, child: cont, stops: "DONE =6", want: whole},

		// An event in the middle of a call is followed by the exit.
		{flags: kit.SIGCHLD, first: cont, then: map[string]int{"FORK": step}, child: cont, stops: "FORK call< join> join< exit> =6", childs: "first =5", want: whole},
		{flags: vfork, first: cont, then: map[string]int{"VFORK": step}, child: cont, stops: "VFORK DONE call< join> join< exit> =6", childs: "first =5", want: whole},
		{flags: vfork, first: cont, then: map[string]int{"DONE": step}, child: cont, stops: "VFORK DONE call< join> join< exit> =6", childs: "first =5", want: whole},
		{flags: kit.SIGCHLD, first: cont, then: map[string]int{"FORK": step, "call<": cont}, child: step, stops: "FORK call< =6", childs: "first exit> =5", want: whole},
		{flags: kit.SIGCHLD, first: step, then: map[string]int{"call>": cont}, child: cont, stops: "call> FORK =6", childs: "first =5", want: whole},
		{flags: kit.SIGCHLD, first: step, then: map[string]int{"FORK": cont}, child: cont, stops: "call> FORK =6", childs: "first =5", want: whole},
		{flags: vfork, first: step, then: map[string]int{"VFORK": cont}, child: cont, stops: "call> VFORK DONE =6", childs: "first =5", want: whole},
		{flags: vfork, first: step, then: map[string]int{"VFORK": cont, "DONE": step}, child: cont, stops: "call> VFORK DONE call< join> join< exit> =6", childs: "first =5", want: whole},

		// A single step is one over the whole rest of the call.
		{flags: kit.SIGCHLD, first: step, then: map[string]int{"call>": single, "TRAP": cont}, child: cont, stops: "call> FORK TRAP =6", childs: "first =5", want: whole},
		{flags: vfork, first: step, then: map[string]int{"call>": single, "TRAP": cont}, child: cont, stops: "call> VFORK DONE TRAP =6", childs: "first =5", want: whole},
		{flags: kit.SIGCHLD | untraced, first: step, then: map[string]int{"call>": single, "TRAP": cont}, child: cont, stops: "call> TRAP =6", want: whole},
		{flags: kit.SIGCHLD, first: cont, then: map[string]int{"FORK": single, "TRAP": cont}, child: cont, stops: "FORK TRAP =6", childs: "first =5", want: whole},
		{flags: vfork, first: cont, then: map[string]int{"DONE": single, "TRAP": cont}, child: cont, stops: "VFORK DONE TRAP =6", childs: "first =5", want: whole},
		{flags: kit.SIGCHLD, first: step, then: map[string]int{"call<": single, "TRAP": cont}, child: cont, stops: "call> FORK call< TRAP =6", childs: "first =5", want: whole},

		// The tracer lets go of it, and of the child.
		{flags: kit.SIGCHLD, first: step, then: map[string]int{"call>": detach}, child: detach, stops: "call> =6", want: whole},
		{flags: vfork, first: step, then: map[string]int{"call>": detach}, child: detach, stops: "call> =6", want: whole},
		{flags: kit.SIGCHLD, first: step, then: map[string]int{"FORK": detach}, child: detach, stops: "call> FORK =6", childs: "first", want: whole},
		{flags: vfork, first: step, then: map[string]int{"VFORK": detach}, child: detach, stops: "call> VFORK =6", childs: "first", want: whole},
		{flags: vforkVM, first: step, then: map[string]int{"VFORK": detach}, child: detach, stops: "call> VFORK =6", childs: "first", want: whole},
		{flags: vfork, first: step, then: map[string]int{"DONE": detach}, child: cont, stops: "call> VFORK DONE =6", childs: "first =5", want: whole},
		{flags: vfork | untraced, first: step, then: map[string]int{"DONE": detach}, child: cont, stops: "call> DONE =6", want: whole},
		{flags: kit.SIGCHLD, first: step, then: map[string]int{"call<": detach}, child: cont, stops: "call> FORK call< =6", childs: "first =5", want: whole},
		{flags: kit.SIGCHLD, first: cont, then: map[string]int{"FORK": detach}, child: detach, stops: "FORK =6", childs: "first", want: whole},
		{flags: vfork, first: cont, then: map[string]int{"VFORK": detach}, child: detach, stops: "VFORK =6", childs: "first", want: whole},
		{flags: vfork, first: cont, then: map[string]int{"VFORK": detach}, child: cont, stops: "VFORK =6", childs: "first =5", want: whole},

		// Somebody kills it.
		{flags: kit.SIGCHLD, first: step, then: map[string]int{"call>": kill}, child: cont, stops: "call> SIGKILL", want: none},
		{flags: vfork, first: step, then: map[string]int{"call>": kill}, child: cont, stops: "call> SIGKILL", want: none},
		{flags: kit.SIGCHLD, first: step, then: map[string]int{"FORK": kill}, child: cont, stops: "call> FORK SIGKILL", childs: "first =5", want: half},
		{flags: vfork, first: step, then: map[string]int{"VFORK": kill}, child: cont, stops: "call> VFORK SIGKILL", childs: "first =5", want: half},
		{flags: vfork, first: cont, then: map[string]int{"VFORK": kill}, child: cont, stops: "VFORK SIGKILL", childs: "first =5", want: half},
		{flags: vfork, first: step, then: map[string]int{"DONE": kill}, child: cont, stops: "call> VFORK DONE SIGKILL", childs: "first =5", want: half},
		{flags: vfork | untraced, first: step, then: map[string]int{"DONE": kill}, child: cont, stops: "call> DONE SIGKILL", want: half},
		{flags: kit.SIGCHLD, first: step, then: map[string]int{"call<": kill}, child: cont, stops: "call> FORK call< SIGKILL", childs: "first =5", want: half},

		// The tracer makes the calls itself.
		{flags: kit.SIGCHLD, first: emu, then: map[string]int{"call>": step}, child: cont, stops: "call> call< join> join< exit> =6", want: enosys},
		{flags: vfork, first: emu, then: map[string]int{"call>": step}, child: cont, stops: "call> call< join> join< exit> =6", want: enosys},
		{flags: kit.SIGCHLD, first: emu, then: map[string]int{"call>": cont}, child: cont, stops: "call> =6", want: enosys},
		{flags: kit.SIGCHLD, first: emu, then: map[string]int{"join>": step}, child: cont, stops: "call> join> join< exit> =6", want: enosys},
		{flags: vfork, first: emu, then: map[string]int{"join>": cont}, child: cont, stops: "call> join> =6", want: enosys},
		{flags: kit.SIGCHLD, first: step, then: map[string]int{"call>": emu, "join>": cont}, child: cont, stops: "call> FORK join> =6", childs: "first =5", want: half},
		{flags: vfork, first: step, then: map[string]int{"VFORK": emu, "join>": cont}, child: cont, stops: "call> VFORK DONE join> =6", childs: "first =5", want: half},
		{flags: vfork, first: cont, then: map[string]int{"DONE": emu, "join>": step}, child: cont, stops: "VFORK DONE join> join< exit> =6", childs: "first =5", want: half},
	}
	for _, way := range ways(traceme, seize) {
		for _, c := range tracedCalls() {
			asTracer(t, way+" "+c.name, func(t *testing.T) {
				tr := newTracing(t, way, c)
				for _, tc := range tests {
					tr.prepare(tc.flags, tc.flags&linux.CLONE_VM != 0)
					tr.begin(eventOptions, tc.first)
					request := tc.first
					tr.finish(func(p *task, stop string) int {
						if p == tr.child {
							return tc.child
						}
						if r, ok := tc.then[stop]; ok {
							request = r
						}
						return request
					})
					what := fmt.Sprintf("flags %#x, by request %d, then %v", tc.flags, tc.first, tc.then)
					tr.check(what, tc.stops, strings.Replace(tc.childs, "first", firstStop(way), 1))
					switch ran, e := *tr.ran == 1, tr.op.Errno(); tc.want {
					case whole:
						tr.checkChild(what)
					case half:
						if !ran {
							t.Errorf("%s: the child did not run", what)
						}
					case enosys:
						if e != unix.ENOSYS {
							t.Errorf("%s: the call: %s, want ENOSYS", what, kit.ErrnoName(e))
						}
						fallthrough
					case none:
						if ran {
							t.Errorf("%s: there was a child", what)
						}
					}
				}
			})
		}
	}
}

// TestTracedChanged protects that what a tracer changes at the entry of a call is
// what is called, with all stops that belong to that; and that changes at a later
// stop come too late.
func TestTracedChanged(t *testing.T) {
	// number makes the call another one, of the same instruction.
	number := func(tr *tracing, nr uintptr) {
		now := tr.peek(tr.tracee.pid, userOrigRAX)
		if tr.call.int80() && now >= sandboxI386 {
			nr += sandboxI386
		}
		tr.poked, tr.pokedLate = &nr, tr.attached
		tr.poke(tr.tracee.pid, userOrigRAX, nr)
	}
	// none makes it none.
	none := func(tr *tracing) {
		nr := ^uintptr(0)
		tr.poked, tr.pokedLate = &nr, tr.attached
		tr.poke(tr.tracee.pid, userOrigRAX, nr)
	}
	flags := func(flags uint64) func(tr *tracing) {
		return func(tr *tracing) { tr.poke(tr.tracee.pid, tr.call.flags, uintptr(flags)) }
	}
	toCall := func(tr *tracing) { number(tr, tr.call.rax) }
	const (
		forks  = " FORK call< join> join< exit> =6"
		vforks = " VFORK DONE call< join> join< exit> =6"
		fails  = " call< join> join< exit> =6"
	)
	type test struct {
		name   string
		flags  uint64
		op     func(tr *tracing) // changes the operation
		at     string            // the stop at which
		change func(tr *tracing) // is made
		stops  string
		want   syscall.Errno // 0: there is a child
	}
	getpid := func(tr *tracing) { tr.op.Trap = tr.call.getpid() }
	all := []test{
		{name: "getpid to the call", flags: kit.SIGCHLD, op: getpid, at: "getpid>", change: toCall, stops: "getpid>" + forks},
		{name: "getpid to the call, vfork", flags: vfork, op: getpid, at: "getpid>", change: toCall, stops: "getpid>" + vforks},
		{name: "the call to -1", flags: kit.SIGCHLD, at: "call>", change: none, stops: "call>" + fails, want: unix.ENOSYS},
		{name: "the call to -1, vfork", flags: vfork, at: "call>", change: none, stops: "call>" + fails, want: unix.ENOSYS},
		{name: "fork to vfork", flags: kit.SIGCHLD, at: "call>", change: flags(vfork), stops: "call>" + vforks},
		{name: "vfork to fork", flags: vfork, at: "call>", change: flags(kit.SIGCHLD), stops: "call>" + forks},
		{name: "fork to clone", flags: kit.SIGCHLD, at: "call>", change: flags(0), stops: "call> CLONE call< join> join< exit> =6"},
		{name: "fork to UNTRACED", flags: kit.SIGCHLD, at: "call>", change: flags(kit.SIGCHLD | untraced), stops: "call>" + fails},
		{name: "fork to vfork at the event", flags: kit.SIGCHLD, at: "FORK", change: flags(vfork), stops: "call>" + forks},
		{name: "vfork to fork at the event", flags: vfork, at: "VFORK", change: flags(kit.SIGCHLD), stops: "call>" + vforks},
		{name: "the call to getpid at the event", flags: kit.SIGCHLD, at: "FORK", change: func(tr *tracing) { number(tr, tr.call.getpid()) }, stops: "call>" + forks},
		{name: "the call to getpid at the event, vfork", flags: vfork, at: "VFORK", change: func(tr *tracing) { number(tr, tr.call.getpid()) }, stops: "call>" + vforks},
		{name: "the call to -1 at the end of vfork", flags: vfork, at: "DONE", change: none, stops: "call>" + vforks},
		{name: "the result", flags: kit.SIGCHLD, at: "call<", change: func(tr *tracing) {
			tr.poke(tr.tracee.pid, userRAX, ^uintptr(unix.EPERM)+1)
		}, stops: "call>" + forks, want: unix.EPERM},
	}
	// Numbers that mean nothing. Some are special in the sandbox.
	unknown := []uintptr{1000, 1990, 1999, slot, slot + 1, 0xffffffff, 1 << 31}
	bySyscall := append(slices.Clone(unknown), linux.SYS_CLONE4_I386, sandboxI386+linux.SYS_CLONE4_I386, linux.SYS_CLONE4_X32&^linux.X32_SYSCALL_BIT, linux.SYS_CLONE4_AMD64|linux.X32_SYSCALL_BIT)
	byInt80 := append(slices.Clone(unknown), linux.SYS_CLONE4_X32, sandboxI386+linux.SYS_CLONE4_I386)

	var good uintptr
	clone4s := []test{
		{name: "fork to a bad flag", flags: kit.SIGCHLD, at: "call>", change: flags(0x1000), stops: "call>" + fails, want: unix.EINVAL},
		{name: "a bad flag to fork", flags: 0x1000, at: "call>", change: flags(kit.SIGCHLD), stops: "call>" + forks},
		{name: "upper half of flags", flags: kit.SIGCHLD, at: "call>", change: flags(1<<32 | kit.SIGCHLD), stops: "call>" + forks},
		{name: "bad pointer", flags: kit.SIGCHLD, at: "call>", change: func(tr *tracing) { tr.poke(tr.tracee.pid, tr.call.args, 8) }, stops: "call>" + fails, want: unix.EFAULT},
		{name: "bad size", flags: kit.SIGCHLD, at: "call>", change: func(tr *tracing) { tr.poke(tr.tracee.pid, userRDX, 48) }, stops: "call>" + fails, want: unix.EINVAL},
		{name: "good pointer", flags: vfork, op: func(tr *tracing) { good, tr.op.Args[3] = tr.op.Args[3], 8 }, at: "call>", change: func(tr *tracing) { tr.poke(tr.tracee.pid, tr.call.args, good) }, stops: "call>" + vforks},
	}
	// What is in the struct counts when the call is made as well. TLS is checked.
	const tls, badTLS = 32, 1 << 63
	tlsTo := func(v uintptr) func(tr *tracing) {
		return func(tr *tracing) { tr.ptrace(unix.PTRACE_POKEDATA, tr.tracee.pid, tr.op.Args[3]+tls, v) }
	}
	structs := []test{
		{name: "struct to bad TLS", flags: kit.SIGCHLD | linux.CLONE_SETTLS, at: "call>", change: tlsTo(badTLS), stops: "call>" + fails, want: unix.EPERM},
		{name: "struct to good TLS", flags: vfork | linux.CLONE_SETTLS, op: func(tr *tracing) { *rawclone.WordOf(tr.args[tls:]) = badTLS }, at: "call>", change: tlsTo(0), stops: "call>" + vforks},
		{name: "struct to bad TLS at the event", flags: kit.SIGCHLD | linux.CLONE_SETTLS, at: "FORK", change: tlsTo(badTLS), stops: "call>" + forks},
	}
	for _, c := range append(tracedCalls(), uncleanCalls()...) {
		asTracer(t, c.name, func(t *testing.T) {
			tests := slices.Clone(all)
			if c.abi != nil {
				tests = append(tests, clone4s...)
			}
			if c.abi != nil && c.abi.Word == 8 {
				tests = append(tests, structs...)
			}
			numbers := bySyscall
			if c.int80() {
				numbers = byInt80
			}
			for _, nr := range numbers {
				change := func(tr *tracing) { number(tr, nr) }
				tests = append(tests,
					test{name: fmt.Sprintf("the call to %#x", nr), flags: kit.SIGCHLD, at: "call>", change: change, stops: "call>" + fails, want: unix.ENOSYS},
					test{name: fmt.Sprintf("getpid to %#x", nr), flags: vfork, op: getpid, at: "getpid>", change: change, stops: "getpid>" + fails, want: unix.ENOSYS})
			}
			tr := newTracing(t, traceme, c)
			for _, tc := range tests {
				if c.int80() && tc.at == "getpid>" && !kit.HasInt80() {
					continue // where gVisor gives SIGSEGV for it
				}
				tr.prepare(tc.flags, false)
				if tc.op != nil {
					tc.op(tr)
				}
				tr.begin(eventOptions, step)
				tr.finish(func(p *task, stop string) int {
					if p == tr.tracee && stop == tc.at {
						tc.change(tr)
					}
					return step
				})
				child := ""
				if tr.attached {
					child = "SIGSTOP exit> =5"
				}
				tr.check(tc.name, tc.stops, child)
				if tc.want == 0 {
					tr.checkChild(tc.name)
				} else if e := tr.op.Errno(); e != tc.want {
					t.Errorf("%s: %s, want %s", tc.name, kit.ErrnoName(e), kit.ErrnoName(tc.want))
				}
			}
		})
	}
}

// TestTracedTracerKilled protects what becomes of a tracee whose tracer is killed
// while it is stopped: it goes on, or dies as well if the tracer has asked for that.
func TestTracedTracerKilled(t *testing.T) {
	// The tracee is left to this process.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	const (
		syscallStop = 0x7f | uintptr(unix.SIGTRAP|0x80)<<8
		forkEvent   = 0x7f | uintptr(unix.SIGTRAP)<<8 | unix.PTRACE_EVENT_FORK<<16
		vforkEvent  = 0x7f | uintptr(unix.SIGTRAP)<<8 | unix.PTRACE_EVENT_VFORK<<16
	)
	for _, c := range tracedCalls() {
		t.Run(c.name, func(t *testing.T) {
			for _, tc := range []struct {
				name  string
				flags uint64
				stops []uintptr // up to that at which the tracer is killed
			}{
				{name: "entry", flags: kit.SIGCHLD, stops: []uintptr{syscallStop}},
				{name: "event", flags: kit.SIGCHLD, stops: []uintptr{syscallStop, forkEvent}},
				{name: "exit", flags: kit.SIGCHLD, stops: []uintptr{syscallStop, forkEvent, syscallStop}},
				{name: "entry of vfork", flags: vfork, stops: []uintptr{syscallStop}},
				{name: "event of vfork", flags: vfork, stops: []uintptr{syscallStop, vforkEvent}},
				{name: "event of vfork, own stack", flags: vforkVM, stops: []uintptr{syscallStop, vforkEvent}},
			} {
				for _, exitKill := range []int{0, unix.PTRACE_O_EXITKILL} {
					killTracer(t, c, fmt.Sprintf("%s, option %#x", tc.name, exitKill), tc.flags, exitKill, tc.stops)
				}
			}
		})
	}
}

// killTracer runs a tracer of a call by c that is killed at the last of stops.
func killTracer(t *testing.T, c *tracedCall, what string, flags uint64, exitKill int, stops []uintptr) {
	t.Helper()
	s := kit.NewScript(t)
	tracee := s.NewList()
	me := tracee.Sys(unix.SYS_GETPID)
	tracee.Sys(unix.SYS_PTRACE, unix.PTRACE_TRACEME)
	tracee.Sys(unix.SYS_KILL, me, int(unix.SIGSTOP))
	var stack uint64
	if flags&linux.CLONE_VM != 0 {
		stack = kit.Stack(t)
	}
	call := tracee.Append(c.op(s.Buffer(linux.SizeOfClone4Args), flags, stack, s.Word(), s.Exiting(childStatus)))
	join, joined := tracee.Wait(call, unix.WALL)
	tracee.Exit(traceeStatus)

	start := s.Clone(kit.SIGCHLD, tracee)
	s.Wait(start, 0)
	s.Sys(unix.SYS_PTRACE, unix.PTRACE_SETOPTIONS, start, 0, eventOptions|unix.PTRACE_O_TRACESYSGOOD|exitKill)
	child := s.Word()
	var got []*uintptr
	for i := range stops {
		s.Sys(unix.SYS_PTRACE, unix.PTRACE_SYSCALL, start)
		_, status := s.Wait(start, unix.WALL)
		got = append(got, status)
		if i == 1 { // the event
			s.Sys(unix.SYS_PTRACE, unix.PTRACE_GETEVENTMSG, start, 0, child)
		}
	}
	self := s.Sys(unix.SYS_GETPID)
	s.Sys(unix.SYS_KILL, self, int(unix.SIGKILL))
	tracer, e := s.Start(kit.SIGCHLD)
	if e != 0 {
		t.Fatalf("making the tracer: %v", e)
	}
	if ws := reapSoon(t, uintptr(tracer)); ws != unix.WaitStatus(unix.SIGKILL) {
		t.Fatalf("%s: the tracer ended with wait status %#x", what, ws)
	}
	for i, want := range stops {
		if *got[i] != want {
			t.Errorf("%s: stop %d of the tracee: %#x, want %#x", what, i, *got[i], want)
		}
	}
	hasChild := *child != 0

	if exitKill != 0 {
		if ws := reapSoon(t, start.Ret); ws != unix.WaitStatus(unix.SIGKILL) {
			t.Errorf("%s: the tracee ended with wait status %#x", what, ws)
		}
		if !hasChild {
			return
		}
		if ws := reapSoon(t, *child); ws != unix.WaitStatus(unix.SIGKILL) {
			t.Errorf("%s: the child ended with wait status %#x", what, ws)
		}
		return
	}
	if hasChild {
		// The SIGSTOP that it was born with is an ordinary one now.
		if err := unix.Kill(int(*child), unix.SIGCONT); err != nil {
			t.Errorf("%s: continuing child %d: %v", what, *child, err)
		}
	}
	if ws := reapSoon(t, start.Ret); ws.ExitStatus() != traceeStatus || call.Ret != join.Ret || *joined != childStatus<<8 {
		t.Errorf("%s: the tracee ended with wait status %#x; the call gave %d, the wait for the child %d and status %#x", what, ws, int(call.Ret), int(join.Ret), *joined)
	}
}

// reapSoon is reap for a process that is killed if it does not end.
func reapSoon(t *testing.T, pid uintptr) unix.WaitStatus {
	t.Helper()
	late := time.AfterFunc(patience, func() { unix.Kill(int(pid), unix.SIGKILL) })
	defer late.Stop()
	return kit.Reap(t, int(pid))
}

// TestTracedOnAndOff protects that a tracer can begin and end to trace at any
// moment of a call. What it sees depends on the moment; nothing may be lost by it.
func TestTracedOnAndOff(t *testing.T) {
	for _, c := range tracedCalls() {
		asTracer(t, c.name, func(t *testing.T) {
			s := kit.NewScript(t)
			var calls, joins []*rawclone.Op
			for i := range 15 {
				call := s.Append(c.op(s.Buffer(linux.SizeOfClone4Args), []uint64{kit.SIGCHLD, vfork, 0}[i%3], 0, s.Word(), s.Exiting(childStatus)))
				join, _ := s.Wait(call, unix.WALL)
				calls, joins = append(calls, call), append(joins, join)
			}
			s.Exit(traceeStatus)
			pid, e := s.Start(kit.SIGCHLD)
			if e != 0 {
				t.Fatal(e)
			}
			tracee := int(pid)
			late := time.AfterFunc(3*patience, func() { unix.Kill(tracee, unix.SIGKILL) })
			defer late.Stop()

			var end unix.WaitStatus
			ended, visits := false, 0
			for ; !ended && ptrace(unix.PTRACE_SEIZE, tracee, 0, eventOptions|unix.PTRACE_O_TRACESYSGOOD) == 0; visits++ {
				// Steps, with an end that comes at each kind of stop.
				request := []int{step, cont}[visits%2]
				left := visits % 11
				ptrace(unix.PTRACE_INTERRUPT, tracee, 0, 0)
				for traced := true; traced; {
					var ws unix.WaitStatus
					pid, err := unix.Wait4(-1, &ws, unix.WALL, nil)
					switch {
					case err == unix.EINTR:
					case err != nil:
						t.Fatalf("wait4: %v", err)
					case pid != tracee:
						if ws.Stopped() {
							ptrace(detach, pid, 0, 0)
						}
					case !ws.Stopped():
						traced, ended, end = false, true, ws
					case left == 0:
						ptrace(detach, pid, 0, 0)
						traced = false
					default:
						left--
						ptrace(request, pid, 0, 0)
					}
				}
			}
			if !ended {
				end = kit.Reap(t, tracee)
			}
			t.Logf("%d visits", visits)
			if end.ExitStatus() != traceeStatus {
				t.Errorf("the tracee ended with wait status %#x", end)
			}
			for i, call := range calls {
				if call.Errno() != 0 || joins[i].Ret != call.Ret {
					t.Errorf("call %d gave %d, the wait for its child %d", i, int(call.Ret), int(joins[i].Ret))
				}
			}
		})
	}
}
