// SPDX-License-Identifier: Apache-2.0

package syscalls

// Tests of a task under a tracer: which stops the task makes, in which order, and that the
// task goes on after each stop. A call that loses a stop, or begins one stop in another, can
// end the whole sandbox.
//
// Linux defines the expected stops. clone(2) is a row of every table: if it fails too, the
// fault is gVisor's and not clone4's. The tables leave out these known differences of gVisor:
//
//   - At an event stop, RAX is -ENOSYS on Linux and the child's ID in gVisor. So a
//     tracer that writes RAX there changes the result only in gVisor.
//   - At a syscall stop, PTRACE_GETEVENTMSG on Linux tells entry from exit. gVisor still
//     returns the message of the last event.
//   - orig_rax of a call by INT $0x80; see sandboxI386.
//   - On arm64, the result register at an entry stop has the first argument on Linux, and
//     -ENOSYS in gVisor.

import (
	"fmt"
	"maps"
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

const (
	ptraced  = linux.CLONE_PTRACE
	untraced = linux.CLONE_UNTRACED
	vfork    = linux.CLONE_VFORK | kit.SIGCHLD
	vforkVM  = linux.CLONE_VFORK | linux.CLONE_VM | kit.SIGCHLD
)

// eventOptions are all options for events of calls that create children.
const eventOptions = unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACEVFORKDONE

// TestTracedSteps checks the stops that a tracer sees when it steps from system call to system
// call: an entry stop, the events for which it has asked, and one exit stop for each call. If the
// child becomes its tracee, the tracer sees every stop of the child from the first one on.
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
		always   bool   // the child is a tracee even without an event
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
		for _, tc := range tests {
			for i, events := range strings.Fields(tc.events) {
				if !all && i != 0 && options[i].bits != eventOptions {
					continue
				}
				tracee := strings.Join(strings.Fields("call> "+strings.NewReplacer("-", "", "+", " ").Replace(events)+" call< join> join< exit> =6"), " ")
				child := ""
				event := isEvent(strings.TrimSuffix(events, "+DONE"))
				if event || tc.always {
					child = firstStop(way) + " exit> =5"
					if tc.flags&linux.CLONE_THREAD != 0 {
						child = firstStop(way) + " exit> =6"
					}
				}
				try := func(name string, childFirst bool) {
					asTracer(t, fmt.Sprintf("%s/options=%s%s", strings.ReplaceAll(kit.Flags(tc.flags), "|", ","), options[i].name, name), func(t *testing.T) {
						tr := newTracing(t, way, c)
						tr.prepare(tc.flags, tc.ownStack)
						tr.begin(options[i].bits, step)
						tr.finish(func(p *task, stop string) int {
							if childFirst && isEvent(stop) {
								tr.endChild()
							}
							return step
						})
						tr.check(tracee, child)
						tr.checkChild()
					})
				}
				try("", false)
				if event && options[i].bits == eventOptions {
					try(",child first", true)
				}
			}
		}
	}
	for _, way := range ways(traceme, attach, seize) {
		for _, c := range tracedCalls() {
			t.Run(way+" "+c.name, func(t *testing.T) { run(t, way, c, way == traceme && !testing.Short()) })
		}
	}
	for _, c := range uncleanCalls() {
		t.Run(traceme+" "+c.name, func(t *testing.T) { run(t, traceme, c, false) })
	}
}

// ways returns all ways, or only the first under -short, as in an emulated machine, which is slow.
func ways(all ...string) []string {
	if testing.Short() {
		return all[:1]
	}
	return all
}

// firstStop returns the first stop of a child that is a tracee from its start.
func firstStop(way string) string {
	if way == seize {
		return "STOP"
	}
	return "SIGSTOP"
}

// endChild steps a child until it exits, while the tracee is at an event stop.
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

// isEvent returns whether the child exists at this stop, and is a tracee too.
func isEvent(stop string) bool { return stop == "CLONE" || stop == "FORK" || stop == "VFORK" }

// TestTracedResumed checks that a tracee leaves every stop in every way in which a tracer can
// resume or kill it.
func TestTracedResumed(t *testing.T) {
	type outcome int
	const (
		whole   outcome = iota // a child, and a tracee that waited for the child
		half                   // a child, and a tracee that did not wait
		none                   // the call did not return
		notMade                // the tracer prevented the call
	)
	tests := []struct {
		flags uint64

		// Requests that resume the tracee before the call, and from a stop on.
		first int
		then  map[string]int

		child  int // what resumes the child
		stops  string
		childs string // stops of the child; first is its first stop
		want   outcome
	}{
		// The tracer asks only for events.
		{flags: kit.SIGCHLD, first: cont, child: cont, stops: "FORK =6", childs: "first =5", want: whole},
		{first: cont, child: cont, stops: "CLONE =6", childs: "first =5", want: whole},
		{flags: vfork, first: cont, child: cont, stops: "VFORK DONE =6", childs: "first =5", want: whole},
		{flags: vfork | untraced, first: cont, child: cont, stops: "DONE =6", want: whole},

		// The exit stop follows an event stop in the same call.
		{flags: kit.SIGCHLD, first: cont, then: map[string]int{"FORK": step}, child: cont, stops: "FORK call< join> join< exit> =6", childs: "first =5", want: whole},
		{flags: vfork, first: cont, then: map[string]int{"VFORK": step}, child: cont, stops: "VFORK DONE call< join> join< exit> =6", childs: "first =5", want: whole},
		{flags: vfork, first: cont, then: map[string]int{"DONE": step}, child: cont, stops: "VFORK DONE call< join> join< exit> =6", childs: "first =5", want: whole},
		{flags: kit.SIGCHLD, first: cont, then: map[string]int{"FORK": step, "call<": cont}, child: step, stops: "FORK call< =6", childs: "first exit> =5", want: whole},
		{flags: kit.SIGCHLD, first: step, then: map[string]int{"call>": cont}, child: cont, stops: "call> FORK =6", childs: "first =5", want: whole},
		{flags: kit.SIGCHLD, first: step, then: map[string]int{"FORK": cont}, child: cont, stops: "call> FORK =6", childs: "first =5", want: whole},
		{flags: vfork, first: step, then: map[string]int{"VFORK": cont}, child: cont, stops: "call> VFORK DONE =6", childs: "first =5", want: whole},
		{flags: vfork, first: step, then: map[string]int{"VFORK": cont, "DONE": step}, child: cont, stops: "call> VFORK DONE call< join> join< exit> =6", childs: "first =5", want: whole},

		// A single step goes over the rest of the call.
		{flags: kit.SIGCHLD, first: step, then: map[string]int{"call>": single, "TRAP": cont}, child: cont, stops: "call> FORK TRAP =6", childs: "first =5", want: whole},
		{flags: vfork, first: step, then: map[string]int{"call>": single, "TRAP": cont}, child: cont, stops: "call> VFORK DONE TRAP =6", childs: "first =5", want: whole},
		{flags: kit.SIGCHLD | untraced, first: step, then: map[string]int{"call>": single, "TRAP": cont}, child: cont, stops: "call> TRAP =6", want: whole},
		{flags: kit.SIGCHLD, first: cont, then: map[string]int{"FORK": single, "TRAP": cont}, child: cont, stops: "FORK TRAP =6", childs: "first =5", want: whole},
		{flags: vfork, first: cont, then: map[string]int{"DONE": single, "TRAP": cont}, child: cont, stops: "VFORK DONE TRAP =6", childs: "first =5", want: whole},
		{flags: kit.SIGCHLD, first: step, then: map[string]int{"call<": single, "TRAP": cont}, child: cont, stops: "call> FORK call< TRAP =6", childs: "first =5", want: whole},

		// The tracer detaches from the tracee and from the child.
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

		// SIGKILL kills the tracee.
		{flags: kit.SIGCHLD, first: step, then: map[string]int{"call>": kill}, child: cont, stops: "call> SIGKILL", want: none},
		{flags: vfork, first: step, then: map[string]int{"call>": kill}, child: cont, stops: "call> SIGKILL", want: none},
		{flags: kit.SIGCHLD, first: step, then: map[string]int{"FORK": kill}, child: cont, stops: "call> FORK SIGKILL", childs: "first =5", want: half},
		{flags: vfork, first: step, then: map[string]int{"VFORK": kill}, child: cont, stops: "call> VFORK SIGKILL", childs: "first =5", want: half},
		{flags: vfork, first: cont, then: map[string]int{"VFORK": kill}, child: cont, stops: "VFORK SIGKILL", childs: "first =5", want: half},
		{flags: vfork, first: step, then: map[string]int{"DONE": kill}, child: cont, stops: "call> VFORK DONE SIGKILL", childs: "first =5", want: half},
		{flags: vfork | untraced, first: step, then: map[string]int{"DONE": kill}, child: cont, stops: "call> DONE SIGKILL", want: half},
		{flags: kit.SIGCHLD, first: step, then: map[string]int{"call<": kill}, child: cont, stops: "call> FORK call< SIGKILL", childs: "first =5", want: half},

		// The tracer emulates the calls (PTRACE_SYSEMU).
		{flags: kit.SIGCHLD, first: emu, then: map[string]int{"call>": step}, child: cont, stops: "call> call< join> join< exit> =6", want: notMade},
		{flags: vfork, first: emu, then: map[string]int{"call>": step}, child: cont, stops: "call> call< join> join< exit> =6", want: notMade},
		{flags: kit.SIGCHLD, first: emu, then: map[string]int{"call>": cont}, child: cont, stops: "call> =6", want: notMade},
		{flags: kit.SIGCHLD, first: emu, then: map[string]int{"join>": step}, child: cont, stops: "call> join> join< exit> =6", want: notMade},
		{flags: vfork, first: emu, then: map[string]int{"join>": cont}, child: cont, stops: "call> join> =6", want: notMade},
		{flags: kit.SIGCHLD, first: step, then: map[string]int{"call>": emu, "join>": cont}, child: cont, stops: "call> FORK join> =6", childs: "first =5", want: half},
		{flags: vfork, first: step, then: map[string]int{"VFORK": emu, "join>": cont}, child: cont, stops: "call> VFORK DONE join> =6", childs: "first =5", want: half},
		{flags: vfork, first: cont, then: map[string]int{"DONE": emu, "join>": step}, child: cont, stops: "VFORK DONE join> join< exit> =6", childs: "first =5", want: half},
	}
	for _, way := range ways(traceme, seize) {
		for _, c := range tracedCalls() {
			t.Run(way+" "+c.name, func(t *testing.T) {
				for _, tc := range tests {
					if !singleSteps && slices.Contains(slices.Collect(maps.Values(tc.then)), single) {
						continue
					}
					name := fmt.Sprintf("%s by %s", strings.ReplaceAll(kit.Flags(tc.flags), "|", ","), requestName(tc.first))
					for _, stop := range slices.Sorted(maps.Keys(tc.then)) {
						name += fmt.Sprintf(", from %s by %s", stop, requestName(tc.then[stop]))
					}
					asTracer(t, name+", child by "+requestName(tc.child), func(t *testing.T) {
						tr := newTracing(t, way, c)
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
						tr.check(tc.stops, strings.Replace(tc.childs, "first", firstStop(way), 1))
						ran := *tr.ran == 1
						switch tc.want {
						case whole:
							tr.checkChild()
						case half:
							if !ran {
								t.Error("the child did not run")
							}
						case notMade:
							kit.CheckErrno(t, "the call", tr.op, unix.ENOSYS)
							fallthrough
						case none:
							if ran {
								t.Error("there was a child")
							}
						}
					})
				}
			})
		}
	}
}

// TestTracedChanged checks that a tracer's changes at the entry stop apply to the call and its
// stops, and that changes at a later stop have no effect.
func TestTracedChanged(t *testing.T) {
	none := func(tr *tracing) { tr.pokeNumber(^uintptr(0)) }
	flags := func(flags uint64) func(tr *tracing) {
		return func(tr *tracing) {
			if tr.call.flags == noRegister {
				tr.t.Skip("no tracer can change the flags of this call")
			}
			tr.poke(tr.tracee.pid, tr.call.flags, uintptr(flags))
		}
	}
	toCall := func(tr *tracing) { tr.setNumber(tr.call.number) }
	const (
		forks  = " FORK call< join> join< exit> =6"
		vforks = " VFORK DONE call< join> join< exit> =6"
		fails  = " call< join> join< exit> =6"
	)
	type test struct {
		name   string
		flags  uint64
		op     func(tr *tracing) // changes the operation before the call
		at     string            // the stop at which the tracer makes the change
		change func(tr *tracing) // the change
		stops  string
		want   syscall.Errno // 0 if a child is created
	}
	getpid := func(tr *tracing) { tr.op.Trap = tr.call.getpid }
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
		{name: "the call to getpid at the event", flags: kit.SIGCHLD, at: "FORK", change: func(tr *tracing) { tr.setNumber(tr.call.getpid) }, stops: "call>" + forks},
		{name: "the call to getpid at the event, vfork", flags: vfork, at: "VFORK", change: func(tr *tracing) { tr.setNumber(tr.call.getpid) }, stops: "call>" + vforks},
		{name: "the call to -1 at the end of vfork", flags: vfork, at: "DONE", change: none, stops: "call>" + vforks},
		{name: "the result", flags: kit.SIGCHLD, at: "call<", change: func(tr *tracing) {
			tr.poke(tr.tracee.pid, regResult, ^uintptr(unix.EPERM)+1)
		}, stops: "call>" + forks, want: unix.EPERM},
	}
	var good uintptr
	clone4s := []test{
		{name: "fork to a bad flag", flags: kit.SIGCHLD, at: "call>", change: flags(0x1000), stops: "call>" + fails, want: unix.EINVAL},
		{name: "a bad flag to fork", flags: 0x1000, at: "call>", change: flags(kit.SIGCHLD), stops: "call>" + forks},
		{name: "upper half of flags", flags: kit.SIGCHLD, at: "call>", change: flags(1<<32 | kit.SIGCHLD), stops: "call>" + forks},
		{name: "bad pointer", flags: kit.SIGCHLD, at: "call>", change: func(tr *tracing) { tr.poke(tr.tracee.pid, tr.call.args, 8) }, stops: "call>" + fails, want: unix.EFAULT},
		{name: "bad size", flags: kit.SIGCHLD, at: "call>", change: func(tr *tracing) { tr.poke(tr.tracee.pid, regSize, 48) }, stops: "call>" + fails, want: unix.EINVAL},
		{name: "good pointer", flags: vfork, op: func(tr *tracing) { good, tr.op.Args[3] = tr.op.Args[3], 8 }, at: "call>", change: func(tr *tracing) { tr.poke(tr.tracee.pid, tr.call.args, good) }, stops: "call>" + vforks},
	}
	// The struct is read when the call is made. TLS is a field that is checked.
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
		t.Run(c.name, func(t *testing.T) {
			tests := slices.Clone(all)
			if c.abi != nil {
				tests = append(tests, clone4s...)
			}
			if c.abi != nil && c.abi.Word == 8 {
				tests = append(tests, structs...)
			}
			for _, nr := range c.unknownNumbers() {
				change := func(tr *tracing) { tr.setNumber(nr) }
				tests = append(tests,
					test{name: fmt.Sprintf("the call to %#x", nr), flags: kit.SIGCHLD, at: "call>", change: change, stops: "call>" + fails, want: unix.ENOSYS},
					test{name: fmt.Sprintf("getpid to %#x", nr), flags: vfork, op: getpid, at: "getpid>", change: change, stops: "getpid>" + fails, want: unix.ENOSYS})
			}
			for _, tc := range tests {
				if tc.at == "getpid>" && !c.hasGetpid() {
					continue // gVisor sends SIGSEGV for this value
				}
				asTracer(t, tc.name, func(t *testing.T) {
					tr := newTracing(t, traceme, c)
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
					tr.check(tc.stops, child)
					if tc.want == 0 {
						tr.checkChild()
					} else {
						kit.CheckErrno(t, "the call", tr.op, tc.want)
					}
				})
			}
		})
	}
}

// TestTracedTracerKilled checks that a stopped tracee goes on if its tracer is killed, or is
// killed too with PTRACE_O_EXITKILL.
func TestTracedTracerKilled(t *testing.T) {
	// This process becomes the parent of the tracee.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	const syscall, fork, forkedVM = kit.SyscallStop, "PTRACE_EVENT_FORK", "PTRACE_EVENT_VFORK"
	for _, c := range tracedCalls() {
		t.Run(c.name, func(t *testing.T) {
			for _, tc := range []struct {
				name  string
				flags uint64
				stops []string // the tracer is killed at the last one
			}{
				{"entry", kit.SIGCHLD, []string{syscall}},
				{"event", kit.SIGCHLD, []string{syscall, fork}},
				{"exit", kit.SIGCHLD, []string{syscall, fork, syscall}},
				{"entry of vfork", vfork, []string{syscall}},
				{"event of vfork", vfork, []string{syscall, forkedVM}},
				{"event of vfork, own stack", vforkVM, []string{syscall, forkedVM}},
			} {
				t.Run(tc.name, func(t *testing.T) { killTracer(t, c, tc.flags, 0, tc.stops) })
				t.Run(tc.name+", PTRACE_O_EXITKILL", func(t *testing.T) { killTracer(t, c, tc.flags, unix.PTRACE_O_EXITKILL, tc.stops) })
			}
		})
	}
}

// killTracer runs a tracer of a call by c, and kills it at the last of stops.
func killTracer(t *testing.T, c *tracedCall, flags uint64, exitKill int, stops []string) {
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
	s.Sys(unix.SYS_KILL, s.Sys(unix.SYS_GETPID), int(unix.SIGKILL))
	tracer, e := s.Start(kit.SIGCHLD)
	if e != 0 {
		t.Fatalf("creating the tracer: %s", kit.ErrnoName(e))
	}
	kit.CheckStatus(t, "the tracer", reapSoon(t, uintptr(tracer)), "SIGKILL")
	for i, want := range stops {
		kit.CheckStatus(t, fmt.Sprintf("stop %d of the tracee", i), *got[i], want)
	}
	hasChild := *child != 0

	if exitKill != 0 {
		kit.CheckStatus(t, "the tracee", reapSoon(t, start.Ret), "SIGKILL")
		if hasChild {
			kit.CheckStatus(t, "the child", reapSoon(t, *child), "SIGKILL")
		}
		return
	}
	if hasChild {
		// Without a tracer, the child's first SIGSTOP is an ordinary stop.
		if err := unix.Kill(int(*child), unix.SIGCONT); err != nil {
			t.Errorf("continuing child %d: %v", *child, err)
		}
	}
	kit.CheckStatus(t, "the tracee", reapSoon(t, start.Ret), fmt.Sprintf("exit status %d", traceeStatus))
	kit.CheckWait(t, "the child", call, join, joined, fmt.Sprintf("exit status %d", childStatus))
}

// reapSoon is reap for a process that is killed if it does not exit.
func reapSoon(t *testing.T, pid uintptr) unix.WaitStatus {
	t.Helper()
	late := time.AfterFunc(patience, func() { unix.Kill(int(pid), unix.SIGKILL) })
	defer late.Stop()
	return kit.Reap(t, int(pid))
}

// TestTracedOnAndOff checks that a tracer can attach and detach at any moment of a call. Its
// stops depend on the moment, but no call and no child may be lost.
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
			tracee := pid
			late := time.AfterFunc(3*patience, func() { unix.Kill(tracee, unix.SIGKILL) })
			defer late.Stop()

			var end unix.WaitStatus
			ended, visits := false, 0
			for ; !ended && ptrace(unix.PTRACE_SEIZE, tracee, 0, eventOptions|unix.PTRACE_O_TRACESYSGOOD) == 0; visits++ {
				// The tracer steps, and detaches at each kind of stop in turn.
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
				t.Errorf("the tracee: %s, want exit status %d", kit.Status(end), traceeStatus)
			}
			for i, call := range calls {
				if call.Errno() != 0 || joins[i].Ret != call.Ret {
					t.Errorf("call %d returned %d, the wait for its child %d", i, int(call.Ret), int(joins[i].Ret))
				}
			}
		})
	}
}
