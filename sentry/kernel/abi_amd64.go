package kernel

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
	gvisorlinux "gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/platform/systrap"

	"runsc-ext/abi/linux"
)

// ABI is a way to make a system call on amd64 for which Linux has a table and
// gVisor has none.
//
// Only what is in Table exists. What is not stays ENOSYS, with gVisor's event, also
// where Linux has the call: a guest gains nothing but the calls of this extension.
// The other numbers of x32 in particular are those of amd64 under another name, a
// known way around seccomp filters.
type ABI struct {
	// Name is Linux's name for the ABI.
	Name string

	// Table has the calls by their numbers, without what marks the ABI. To add a
	// call is to add an entry, before InstallABIs.
	Table map[uint32]Call

	// args takes the arguments from the registers.
	args func(regs *arch.Registers) arch.SyscallArguments
}

// Call is an entry in the table of an ABI.
type Call struct {
	kernel.Syscall

	// Format is how strace prints the arguments.
	Format Format

	// Stops returns whether the call may stop its task though no tracer wants it
	// to, as with CLONE_VFORK; nil if it never does.
	Stops func(args arch.SyscallArguments) bool
}

func (c *Call) stops(args arch.SyscallArguments) bool {
	return c.Stops != nil && c.Stops(args)
}

var (
	// X32 is the ABI of SYSCALL with a number that has linux.X32_SYSCALL_BIT.
	// Arguments are in the registers of amd64; pointers in memory have 32 bits.
	X32 = &ABI{Name: "x32", Table: make(map[uint32]Call), args: args64}

	// I386 is the ABI of INT $0x80. Arguments are the low halves of registers.
	//
	// A task with a seccomp filter does not have it. gVisor shows a filter such
	// a call as one of amd64 with another number, so a filter that refuses i386
	// by its architecture would let it pass.
	I386 = &ABI{Name: "i386", Table: make(map[uint32]Call), args: args32}

	// AMD64Low32 is for numbers of amd64 with something in the upper half of RAX.
	// Linux does not look there. gVisor does, and finds no such call in AMD64.
	AMD64Low32 = &ABI{Name: "amd64", Table: make(map[uint32]Call), args: args64}
)

func args64(regs *arch.Registers) arch.SyscallArguments {
	return arch.SyscallArguments{
		{Value: uintptr(regs.Rdi)}, {Value: uintptr(regs.Rsi)}, {Value: uintptr(regs.Rdx)},
		{Value: uintptr(regs.R10)}, {Value: uintptr(regs.R8)}, {Value: uintptr(regs.R9)},
	}
}

func args32(regs *arch.Registers) arch.SyscallArguments {
	return arch.SyscallArguments{
		{Value: uintptr(uint32(regs.Rbx))}, {Value: uintptr(uint32(regs.Rcx))}, {Value: uintptr(uint32(regs.Rdx))},
		{Value: uintptr(uint32(regs.Rsi))}, {Value: uintptr(uint32(regs.Rdi))}, {Value: uintptr(uint32(regs.Rbp))},
	}
}

// i386Mark is what the systrap platform adds to RAX to make the number of an
// INT $0x80, and int80Platform as well. The ptrace platform adds nothing.
const i386Mark = 0x86000000

// int80 is the machine code of INT $0x80.
var int80 = [...]byte{0xcd, 0x80}

// candidate is a call that a number may mean.
type candidate struct {
	abi  *ABI
	nr   uint32
	call Call
}

// candidates returns what sysno means if it was given to SYSCALL, and what it
// means if it was given to INT $0x80; abi is nil where it means nothing. Linux
// makes a number from EAX, the low half of RAX.
func candidates(t *kernel.Task, sysno uintptr) (syscall, int80 candidate) {
	nr := uint32(sysno)
	abi := AMD64Low32
	if nr&linux.X32_SYSCALL_BIT != 0 {
		abi = X32
	}
	if call, ok := abi.Table[nr&^linux.X32_SYSCALL_BIT]; ok {
		syscall = candidate{abi, nr &^ linux.X32_SYSCALL_BIT, call}
	}
	switch t.Kernel().Platform.(type) {
	case *systrap.Systrap, *int80Platform:
		nr -= i386Mark
	}
	if call, ok := I386.Table[nr]; ok {
		int80 = candidate{I386, nr, call}
	}
	return syscall, int80
}

// lookup returns the call that t makes by sysno, which gVisor's own table does not
// have; abi is nil if nobody has it.
func lookup(t *kernel.Task, sysno uintptr) candidate {
	bySyscall, byInt80 := candidates(t, sysno)
	if bySyscall.abi == nil && byInt80.abi == nil {
		return candidate{}
	}
	filtered := t.SeccompMode() != gvisorlinux.SECCOMP_MODE_NONE
	if filtered && !allowed(t, sysno) {
		return candidate{}
	}
	if filtered && OCISeccomp && bySyscall.abi == X32 {
		namesake, ok := namesakes[bySyscall.nr]
		if !ok || !allowed(t, namesake) {
			return candidate{}
		}
	}
	// Numbers of the two overlap, on some platforms. What tells them apart on all
	// is the instruction. It need not be one of the two: systrap replaces SYSCALL.
	code := t.CopyScratchBuffer(len(int80))
	ip := hostarch.Addr(t.Arch().IP())
	if _, err := t.CopyInBytes(ip-hostarch.Addr(len(code)), code); err != nil || [2]byte(code) != int80 {
		return bySyscall
	}
	if filtered {
		return candidate{} // see I386
	}
	return byInt80
}

// allowed returns whether the seccomp filters of t allow the call that it is about
// to make. gVisor has asked them before. But a tracer can have changed the number
// since, and be gone: Linux asks them about what is called in the end. A filter that
// wants a tracer asked has not allowed it: whether one was asked about this number
// cannot be seen here.
func allowed(t *kernel.Task, sysno uintptr) bool {
	action := evaluateSyscallFilters(t, int32(sysno), t.Arch().SyscallArgs(), hostarch.Addr(t.Arch().IP())) & uint32(gvisorlinux.SECCOMP_RET_ACTION)
	return action == uint32(gvisorlinux.SECCOMP_RET_ALLOW)
}

// Calls that gVisor's table does not have go to its Missing function, which cannot
// return a SyscallControl. The control is what leads a task that has stopped in a
// call, for its tracer or for a vfork child, on from there; to drop it is to lose
// the stop or to begin two at once, which ends the sandbox.
//
// So a call that may stop is made from an entry of the table after all: a slot, at
// a number that Linux has no call for. ExternalFilterBefore is the one hook before
// a missing call that can have it made again, from another number. That costs an
// external stop, tens of microseconds, which other calls do not pay.
const (
	// firstSlot is the number of the first slot.
	firstSlot = 1990

	// slotMark is in the upper half of RAX if a call was sent to a slot. If a
	// guest calls the slot's number itself, -ENOSYS is there at this point.
	// (Its tracer can put the mark there. It then has called what it might have
	// called directly.)
	slotMark = 0x634c4f34
)

// slots has, for each slot, the low half of the RAX of the calls that it is for.
// Their upper half is kept in the lower half of RAX, beside the mark: registers
// go where the task goes, also through a checkpoint.
var slots []uint32

// namesakes has, for calls of x32, the number of amd64's of the same name, if there
// is one; see OCISeccomp.
var namesakes = make(map[uint32]uintptr)

// InstallABIs makes the sentry find the calls in the tables of X32, I386 and
// AMD64Low32. An error means that this gVisor cannot take them.
//
// InstallABIs must be called at most once, before the sentry boots.
func InstallABIs() error {
	if AMD64.External != nil || AMD64.ExternalFilterBefore != nil {
		return errors.New("the amd64 system call table has an external hook in this gVisor, and the x32 and i386 tables need it: build with a gVisor version that has none")
	}
	for nr, call := range X32.Table {
		slots = append(slots, nr|linux.X32_SYSCALL_BIT)
		if namesake, err := AMD64.LookupNo(call.Name); err == nil {
			namesakes[nr] = namesake
		}
	}
	for nr := range I386.Table {
		slots = append(slots, nr, nr+i386Mark)
	}
	for nr := range AMD64Low32.Table {
		slots = append(slots, nr)
	}
	// A task that is restored in a slot's call must find the same slot.
	slices.Sort(slots)

	missing := AMD64.Missing
	AMD64.Missing = func(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, error) {
		c := lookup(t, sysno)
		if c.abi == nil {
			return missing(t, sysno, args)
		}
		// There is no control to lose: sendToSlot has seen to that. But a tracer
		// can have attached since. If it wants an event, the task is in that stop
		// now, and goes on from it to the program: what is lost is the stop at the
		// end of this call.
		rval, _, err := c.call.Fn(t, uintptr(c.nr), c.abi.args(&t.Arch().StateData().Regs))
		return rval, err
	}

	fromSlot := func(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
		regs := &t.Arch().StateData().Regs
		if regs.Rax>>32 != slotMark {
			rval, err := missing(t, sysno, args)
			return rval, nil, err
		}
		// From here on it is the guest's call again, for its tracer and for a
		// restart.
		regs.Orig_rax = regs.Rax<<32 | uint64(slots[sysno-firstSlot])
		t.Arch().SetReturn(noReturnYet)
		c := lookup(t, uintptr(regs.Orig_rax))
		if c.abi == nil {
			rval, err := missing(t, uintptr(regs.Orig_rax), args)
			return rval, nil, err
		}
		traced := traceFromSlot(t, c)
		rval, ctrl, err := c.call.Fn(t, uintptr(c.nr), c.abi.args(regs))
		traced.exit(t, rval, err)
		return rval, ctrl, err
	}
	for i := range slots {
		nr := uintptr(firstSlot + i)
		if old, ok := AMD64.Table[nr]; ok {
			return fmt.Errorf("system call %d of amd64 is %q in this gVisor, and the x32 and i386 tables need that number: build with a gVisor version that does not have it", nr, old.Name)
		}
		AMD64.Table[nr] = kernel.Syscall{Name: fmt.Sprintf("slot_%d", i), Fn: fromSlot}
	}
	AMD64.Init()
	// Init has copied the entries to where they are called. They are not to be
	// listed.
	for i := range slots {
		delete(AMD64.Table, uintptr(firstSlot+i))
	}

	withInt80()
	AMD64.External = func(*kernel.Kernel) {}
	AMD64.ExternalFilterBefore = sendToSlot
	AMD64.FeatureEnable.Enable(kernel.ExternalBeforeEnable, nil, true)
	return nil
}

// noReturnYet is what the result register holds during a call, which a tracer can
// see: -ENOSYS.
const noReturnYet = ^uintptr(unix.ENOSYS) + 1

// sendToSlot sends a missing call to its slot if it may stop, and returns whether.
func sendToSlot(t *kernel.Task, sysno uintptr, _ arch.SyscallArguments) bool {
	regs := &t.Arch().StateData().Regs
	if t.Tracer() == nil {
		bySyscall, byInt80 := candidates(t, sysno)
		if !(bySyscall.abi != nil && bySyscall.call.stops(bySyscall.abi.args(regs))) &&
			!(byInt80.abi != nil && byInt80.call.stops(byInt80.abi.args(regs))) {
			return false
		}
	}
	if lookup(t, sysno).abi == nil {
		return false
	}
	for i, low := range slots {
		if low == uint32(regs.Orig_rax) {
			regs.Rax = slotMark<<32 | regs.Orig_rax>>32
			regs.Orig_rax = uint64(firstSlot + i)
			return true
		}
	}
	return false
}
