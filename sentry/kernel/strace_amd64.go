package kernel

import (
	"time"

	"gvisor.dev/gvisor/pkg/abi/sentry"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
)

// traceABI returns the name of the call that t makes by sysno, which gVisor's own
// table does not have, and its arguments in the words of strace. The name is empty
// if the extension has no such call.
func traceABI(t *kernel.Task, sysno uintptr) (name string, args []string) {
	c := lookup(t, sysno)
	if c.abi == nil {
		return "", nil
	}
	return c.call.Name, c.call.Format(t, c.abi.args(&t.Arch().StateData().Regs))
}

// sentToSlot returns whether sendToSlot has sent the call that t is in to a slot,
// and it is not made from there yet.
func sentToSlot(t *kernel.Task) bool {
	regs := &t.Arch().StateData().Regs
	return regs.Rax>>32 == slotMark && regs.Orig_rax-firstSlot < uint64(len(slots))
}

// traceFromSlot returns a call that is made from a slot, for its exit to be printed.
// gVisor would do that if it traced the number of the slot, which is not in any
// list of calls to trace. The call itself was a missing one.
func traceFromSlot(t *kernel.Task, c candidate) *tracedCall {
	flags := AMD64.FeatureEnable.Word(sentry.MaxSyscallNum+1) & kernel.StraceEnableBits
	if flags == 0 {
		return &tracedCall{}
	}
	return &tracedCall{
		name:  c.call.Name,
		args:  c.call.Format(t, c.abi.args(&t.Arch().StateData().Regs)),
		start: time.Now(),
		flags: flags,
	}
}
