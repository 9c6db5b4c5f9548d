// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
	gvisorlinux "gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/abi/sentry"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/syscalls/linux"

	extlinux "runsc-ext/abi/linux"
	"runsc-ext/sentry/platform/int80"
)

// A call that gVisor's table lacks takes one of two ways. Both begin in
// kernel.Task.executeSyscall, which first calls abis.before.
//
//   - An untraced task whose call cannot stop it: abis.before returns false, and
//     gVisor calls abis.missing, which makes the call. A Missing function cannot
//     return a kernel.SyscallControl, so the call must not stop its task.
//   - Any other call: abis.before returns true and points ORIG_RAX to the slot, an
//     entry of the table at a number that Linux does not have. gVisor begins an external
//     stop, ends the stop, and makes the call again from ORIG_RAX
//     (runSyscallReinvoke). The slot's function can return a SyscallControl, which
//     leads a stopped task on from its stop. Only these calls take this way, because
//     an external stop costs tens of microseconds.
//
// # One decision
//
// abis.before decides which call a task makes, and nothing decides again. The decision
// depends on the instruction in front of the instruction pointer, which another process
// can change at any time. So abis.resolve reads the instruction once, and abis.before
// keeps the decision in RAX, where abis.missing and the slot find it.
//
// RAX is safe from abis.before to the function that takes the decision. Only the task
// itself and its tracer can write registers, and a tracer needs a ptrace stop
// (kernel.Task.ptraceFreeze). Between abis.before and abis.missing, the task does not
// stop. In the external stop, the task executes no guest code, and begins no ptrace stop
// until runSyscallReinvoke runs. A task that is killed there makes no call. A checkpoint
// saves RAX with the other registers.
//
// RAX is not safe earlier. A tracer may write a forged decision to RAX in a
// syscall-entry stop, and abis.before overwrites it. If the tracer also writes the slot's
// number to ORIG_RAX, gVisor calls the slot directly, and the slot takes the
// forged decision. The tracer gains nothing: it could have chosen the same call
// openly, and permitted asks the filters about the call that is made.
//
// # A tracer may attach at any moment
//
// abis.before chooses the way by the tracer at that moment. If a tracer attaches later,
// the call still cannot begin a stop in abis.missing: Call.WithoutStop has changed the
// arguments so that Task.Clone reports no event (Task.ptraceClone, which CLONE_UNTRACED
// silences) and traces no child. The effect is that of a call just before the tracer
// attached. If a tracer detaches later, the slot still makes the call, without a stop.
type abis struct {
	// calls are indexed by the position in a decision. Their order is fixed, because a
	// checkpoint can save a decision.
	calls []abiCall

	// stock is gVisor's own Missing function.
	stock func(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, error)

	trace *stracer
}

// abiCall is a call that gVisor's table lacks.
type abiCall struct {
	Call

	// rax is the lower half of ORIG_RAX for the call.
	rax uint32

	// int80 is set if the instruction is INT $0x80, and clear for SYSCALL.
	int80 bool

	// mark is what the platform has added to the number of an i386 call in rax.
	mark uint32

	// amd64Number is the number of the amd64 call of the same name, or -1.
	amd64Number int32

	// args returns the arguments.
	args func(regs *arch.Registers) arch.SyscallArguments
}

// newABIs returns the calls that gVisor's table lacks.
func newABIs(entries []Entry) *abis {
	numbers := make(map[string]int32)
	for _, e := range entries {
		if e.ABI == AMD64 {
			numbers[e.Call.Name] = int32(e.Number)
		}
	}
	x := &abis{stock: linux.AMD64.Missing}
	for _, e := range entries {
		c := abiCall{Call: e.Call, rax: e.Number, amd64Number: -1, args: args64}
		if nr, ok := numbers[e.Call.Name]; ok {
			c.amd64Number = nr
		}
		switch e.ABI {
		case AMD64:
			// gVisor's table has this call only without upper bits of RAX.
		case X32:
			c.rax |= extlinux.X32_SYSCALL_BIT
		case I386:
			c.int80, c.args = true, args32
			marked := c
			marked.rax, marked.mark = c.rax+int80.SystrapMark, int80.SystrapMark
			x.calls = append(x.calls, marked)
		default:
			continue
		}
		x.calls = append(x.calls, c)
	}
	slices.SortFunc(x.calls, func(a, b abiCall) int {
		if a.rax == b.rax && a.int80 != b.int80 {
			if a.int80 {
				return 1
			}
			return -1
		}
		return cmp.Or(cmp.Compare(a.rax, b.rax), cmp.Compare(a.mark, b.mark))
	})
	return x
}

// args64 returns the arguments of SYSCALL.
func args64(regs *arch.Registers) arch.SyscallArguments {
	return arch.SyscallArguments{
		{Value: uintptr(regs.Rdi)}, {Value: uintptr(regs.Rsi)}, {Value: uintptr(regs.Rdx)},
		{Value: uintptr(regs.R10)}, {Value: uintptr(regs.R8)}, {Value: uintptr(regs.R9)},
	}
}

// args32 returns the arguments of INT $0x80.
func args32(regs *arch.Registers) arch.SyscallArguments {
	return arch.SyscallArguments{
		{Value: uintptr(uint32(regs.Rbx))}, {Value: uintptr(uint32(regs.Rcx))}, {Value: uintptr(uint32(regs.Rdx))},
		{Value: uintptr(uint32(regs.Rsi))}, {Value: uintptr(uint32(regs.Rdi))}, {Value: uintptr(uint32(regs.Rbp))},
	}
}

// find returns the position of a call. The mark of a SYSCALL is 0.
func (x *abis) find(rax uint32, int80 bool, mark uint32) (int, bool) {
	for i := range x.calls {
		if c := &x.calls[i]; c.rax == rax && c.int80 == int80 && c.mark == mark {
			return i, true
		}
	}
	return 0, false
}

// resolve returns the position of the call that t makes with sysno, which is all of
// ORIG_RAX. It returns false if there is no such call.
//
// Numbers of the two instructions overlap, and platforms differ in how they tell the
// instructions apart. So resolve reads the instruction from the guest's code. A guest
// that changes its code meanwhile gains nothing: it could have made either call.
func (x *abis) resolve(t *kernel.Task, sysno uintptr) (int, bool) {
	// Linux takes the number from EAX, the lower half of RAX.
	ofSyscall, syscallFound := x.find(uint32(sysno), false, 0)
	var mark uint32
	if p, ok := t.Kernel().Platform.(*int80.Platform); ok {
		mark = p.Mark()
	}
	ofInt80, int80Found := x.find(uint32(sysno), true, mark)
	if !syscallFound && !int80Found {
		return 0, false
	}
	// Anything but INT $0x80 counts as SYSCALL, because the systrap platform replaces
	// SYSCALL by other instructions (pkg/sentry/platform/systrap/usertrap).
	const size = 2
	code := t.CopyScratchBuffer(size)
	if _, err := t.CopyInBytes(hostarch.Addr(t.Arch().IP()-size), code); err == nil && code[0] == 0xcd && code[1] == 0x80 {
		return ofInt80, int80Found
	}
	return ofSyscall, syscallFound
}

// mayStop returns whether a call can stop t, which may have a tracer.
func (c *abiCall) mayStop(t *kernel.Task, args arch.SyscallArguments) bool {
	_, ok := c.withoutStop(args)
	return !ok || t.Tracer() != nil
}

// withoutStop calls WithoutStop. If WithoutStop is nil, it returns args and true.
func (c *abiCall) withoutStop(args arch.SyscallArguments) (arch.SyscallArguments, bool) {
	if c.WithoutStop == nil {
		return args, true
	}
	return c.WithoutStop(args)
}

// permitted returns whether the seccomp filters of t allow a call.
//
// gVisor runs the filters before the syscall-entry stop. A tracer may have rewritten
// the number since then, and detached. Linux runs the filters again on the final
// number (syscall_trace_enter), and so does this function. SECCOMP_RET_TRACE does not
// allow a call here: the sentry does not know whether a tracer was asked about this
// number.
//
// An x32 call needs the permission of its amd64 number as well. A filter that an engine
// made from names, such as an OCI profile, has only amd64 numbers.
func (c *abiCall) permitted(t *kernel.Task) bool {
	if t.SeccompMode() == gvisorlinux.SECCOMP_MODE_NONE {
		return true
	}
	if c.int80 {
		return false // see I386
	}
	return c.amd64Number >= 0 && allowed(t, int32(c.rax)) && allowed(t, c.amd64Number)
}

// allowed returns whether the filters of t allow a number with t's current registers.
func allowed(t *kernel.Task, sysno int32) bool {
	result := evaluateSyscallFilters(t, sysno, t.Arch().SyscallArgs(), hostarch.Addr(t.Arch().IP()))
	return gvisorlinux.BPFAction(result)&gvisorlinux.SECCOMP_RET_ACTION == gvisorlinux.SECCOMP_RET_ALLOW
}

// slotNumber is the number of the slot. Linux assigns new numbers from below.
const slotNumber = sentry.MaxSyscallNum

// noReturnYet is -ENOSYS, which RAX holds during a call. A tracer can see the value.
const noReturnYet = ^uintptr(unix.ENOSYS) + 1

// A decision in RAX has a mark, the position of a call, and the upper half of ORIG_RAX.
// The mark differs from the upper bits of noReturnYet.
const (
	decisionMark  = 0x634c34 << 40
	decisionMask  = 0xffffff << 40
	positionShift = 32
	maxCalls      = 1 << (40 - positionShift)
)

// decide stores a decision in RAX.
func decide(regs *arch.Registers, position int) {
	regs.Rax = decisionMark | uint64(position)<<positionShift | regs.Orig_rax>>32
}

// decided takes the decision out of RAX, and restores ORIG_RAX. It returns false if RAX
// has no decision.
func (x *abis) decided(regs *arch.Registers) (*abiCall, bool) {
	rax := regs.Rax
	position := int(rax >> positionShift % maxCalls)
	if rax&decisionMask != decisionMark || position >= len(x.calls) {
		return nil, false
	}
	c := &x.calls[position]
	regs.Orig_rax = rax<<32 | uint64(c.rax)
	regs.Rax = uint64(noReturnYet)
	return c, true
}

// before implements kernel.SyscallTable.ExternalFilterBefore for missing numbers.
func (x *abis) before(t *kernel.Task, sysno uintptr, _ arch.SyscallArguments) bool {
	regs := &t.Arch().StateData().Regs
	regs.Rax = uint64(noReturnYet) // a tracer may have written a forged decision
	position, ok := x.resolve(t, sysno)
	if !ok {
		return false
	}
	decide(regs, position)
	c := &x.calls[position]
	if !c.mayStop(t, c.args(regs)) {
		return false
	}
	regs.Orig_rax = slotNumber
	return true
}

// missing implements kernel.SyscallTable.Missing.
func (x *abis) missing(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, error) {
	regs := &t.Arch().StateData().Regs
	c, ok := x.decided(regs)
	if !ok || !c.permitted(t) {
		return x.refuse(t, sysno, args)
	}
	args = c.args(regs)
	quiet, ok := c.withoutStop(args)
	if !ok {
		return x.refuse(t, sysno, args) // before chooses the slot for such a call
	}
	traced := x.trace.enterMissing(t, c.Call, args)
	rval, _, err := c.Fn(t, uintptr(c.rax), quiet) // without a stop there is no control
	traced.exit(t, rval, err)
	return rval, err
}

// slot is the function of the slot.
func (x *abis) slot(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
	regs := &t.Arch().StateData().Regs
	c, ok := x.decided(regs)
	if ok {
		sysno = uintptr(regs.Orig_rax)
	}
	if !ok || !c.permitted(t) {
		rval, err := x.refuse(t, sysno, args)
		return rval, nil, err
	}
	args = c.args(regs)
	traced := x.trace.enterMissing(t, c.Call, args)
	rval, ctrl, err := c.Fn(t, uintptr(c.rax), args)
	traced.exit(t, rval, err)
	return rval, ctrl, err
}

// refuse calls gVisor's own Missing function, which returns ENOSYS.
func (x *abis) refuse(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, error) {
	traced := x.trace.enterRefused(t, sysno, args)
	rval, err := x.stock(t, sysno, args)
	traced.exit(t, rval, err)
	return rval, err
}

// mayBeABICall returns whether missing or slot prints sysno for strace, once it has the
// decision.
func mayBeABICall(sysno uintptr) bool {
	return sysno == slotNumber || linux.AMD64.Lookup(sysno) == nil
}

// platforms maps each platform that gets a gate for INT $0x80 to the mark of the gate. The
// mark is what the platform itself adds to the number of an INT $0x80 that does not fault.
// The slimvm platform has no gate, because nobody has tried one there.
var platforms = map[string]uint32{
	"kvm":     int80.SystrapMark, // every INT $0x80 faults, so only the gate adds the mark
	"ptrace":  0,
	"systrap": int80.SystrapMark,
}

// installABIs puts the calls that gVisor's table lacks into the sentry.
func installABIs(entries []Entry, trace *stracer) error {
	table := linux.AMD64
	if table.External != nil || table.ExternalFilterBefore != nil {
		return errors.New("the amd64 system call table has an external hook in this gVisor, and x32 and i386 calls need the hook: build with a gVisor version that leaves the hook free")
	}
	if old, ok := table.Table[slotNumber]; ok {
		return fmt.Errorf("system call %d of amd64 is %q in this gVisor, and x32 and i386 calls need that number: build with a gVisor version that leaves the number free", slotNumber, old.Name)
	}
	x := newABIs(entries)
	if len(x.calls) > maxCalls {
		return fmt.Errorf("%d entries for amd64, x32 and i386 make %d calls, and the limit is %d", len(entries), len(x.calls), maxCalls)
	}
	x.trace = trace

	table.Missing = x.missing
	table.Table[slotNumber] = kernel.Syscall{Name: "slot", Fn: x.slot}
	table.Init()
	// Init has copied the slot to the array from which the sentry calls it. Deleting the
	// slot from the map hides it from "help syscalls".
	delete(table.Table, slotNumber)

	for name, mark := range platforms {
		int80.Wrap(name, mark, func(nr uint32) bool {
			_, ok := x.find(nr, true, 0)
			return ok
		})
	}
	table.External = func(*kernel.Kernel) {}
	table.ExternalFilterBefore = x.before
	table.FeatureEnable.Enable(kernel.ExternalBeforeEnable, nil, true)
	return nil
}

// observeABIs is Observe for numbers that gVisor's table lacks.
func observeABIs(entries []Entry, called func(ABI)) {
	calls, stock := newABIs(entries).calls, linux.AMD64.Missing
	linux.AMD64.Missing = func(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, error) {
		for i := range calls {
			if c := &calls[i]; c.rax == uint32(sysno) {
				called(c.abi())
				break
			}
		}
		return stock(t, sysno, args)
	}
}

// abi returns the ABI of the call.
func (c *abiCall) abi() ABI {
	switch {
	case c.int80:
		return I386
	case c.rax&extlinux.X32_SYSCALL_BIT != 0:
		return X32
	default:
		return AMD64
	}
}
