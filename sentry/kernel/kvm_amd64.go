package kernel

import (
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	"gvisor.dev/gvisor/pkg/usermem"
)

// The KVM platform has no gate for INT $0x80: the instruction faults, and the task
// gets SIGSEGV before the sentry sees a call. Around the platform there is this
// one, which sees the fault, and makes it a system call if I386 has the number.
// Any other number remains the fault that it is.

// withInt80 puts that around the KVM platform, if this sentry has one.
func withInt80() {
	const name = "kvm"
	if c, err := platform.Lookup(name); err == nil {
		platform.Register(name, int80Constructor{c})
	}
}

type int80Constructor struct{ platform.Constructor }

// New implements platform.Constructor.New.
func (c int80Constructor) New(opts platform.Options) (platform.Platform, error) {
	p, err := c.Constructor.New(opts)
	if err != nil {
		return nil, err
	}
	return &int80Platform{p}, nil
}

type int80Platform struct{ platform.Platform }

// NewContext implements platform.Platform.NewContext.
func (p *int80Platform) NewContext(ctx context.Context) platform.Context {
	return &int80Context{p.Platform.NewContext(ctx)}
}

type int80Context struct{ platform.Context }

// Switch implements platform.Context.Switch.
func (c *int80Context) Switch(ctx context.Context, mm platform.MemoryManager, ac *arch.Context64, cpu int32) (*linux.SignalInfo, hostarch.AccessType, error) {
	info, at, err := c.Context.Switch(ctx, mm, ac, cpu)
	if err == platform.ErrContextSignal && info.Signo == int32(linux.SIGSEGV) && info.Code == linux.SI_KERNEL && isInt80(ctx, mm, ac) {
		regs := &ac.StateData().Regs
		regs.Orig_rax = uint64(uint32(regs.Rax)) + i386Mark
		regs.Rip += uint64(len(int80))
		return nil, hostarch.NoAccess, nil
	}
	return info, at, err
}

// isInt80 returns whether the next instruction is INT $0x80 for a call of I386.
func isInt80(ctx context.Context, mm platform.MemoryManager, ac *arch.Context64) bool {
	regs := &ac.StateData().Regs
	if _, ok := I386.Table[uint32(regs.Rax)]; !ok {
		return false
	}
	var code [len(int80)]byte
	_, err := mm.CopyIn(ctx, hostarch.Addr(regs.Rip), code[:], usermem.IOOpts{})
	return err == nil && code == int80
}
