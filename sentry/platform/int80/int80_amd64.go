// SPDX-License-Identifier: Apache-2.0

// Package int80 is a gate for INT $0x80, for platforms on which the instruction faults.
//
// INT $0x80 faults on the KVM platform, and on systrap and ptrace if the host kernel has no
// IA-32 emulation. The task then gets SIGSEGV, and the sentry sees no system call. Wrap puts
// a layer around a platform, which turns the fault into the system call that the platform
// reports on other hosts.
package int80

import (
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	"gvisor.dev/gvisor/pkg/usermem"
)

// SystrapMark is what the systrap platform adds to the syscall number of an INT $0x80,
// modulo 1<<32, in the signal handler of its stubs (sysmsg/sighandler_amd64.c). The ptrace
// platform adds nothing.
const SystrapMark = 0x86000000

// Wrap replaces the platform that is registered under name by one with a gate for
// INT $0x80. The gate adds mark to the syscall number. A number for which has returns
// false still faults. Wrap does nothing if no platform has that name.
//
// Wrap must be called before the sentry boots.
func Wrap(name string, mark uint32, has func(nr uint32) bool) {
	if c, err := platform.Lookup(name); err == nil {
		platform.Register(name, constructor{c, mark, has})
	}
}

type constructor struct {
	platform.Constructor
	mark uint32
	has  func(nr uint32) bool
}

// New implements platform.Constructor.New.
func (c constructor) New(opts platform.Options) (platform.Platform, error) {
	p, err := c.Constructor.New(opts)
	if err != nil {
		return nil, err
	}
	return &Platform{p, c.mark, c.has}, nil
}

// Platform is a platform with a gate for INT $0x80.
type Platform struct {
	platform.Platform
	mark uint32
	has  func(nr uint32) bool
}

// Mark returns the number that the gate adds to the syscall number of an INT $0x80, modulo
// 1<<32.
func (p *Platform) Mark() uint32 { return p.mark }

// NewContext implements platform.Platform.NewContext.
func (p *Platform) NewContext(ctx context.Context) platform.Context {
	return &gate{p.Platform.NewContext(ctx), p}
}

type gate struct {
	platform.Context
	platform *Platform
}

// Switch implements platform.Context.Switch.
func (g *gate) Switch(ctx context.Context, mm platform.MemoryManager, ac *arch.Context64, cpu int32) (*linux.SignalInfo, hostarch.AccessType, error) {
	info, at, err := g.Context.Switch(ctx, mm, ac, cpu)
	if err != platform.ErrContextSignal || info.Signo != int32(linux.SIGSEGV) || info.Code != linux.SI_KERNEL {
		return info, at, err
	}
	regs := &ac.StateData().Regs
	nr := uint32(regs.Rax)
	if !g.platform.has(nr) {
		return info, at, err
	}
	// The guest may change its code at any time. A wrong answer here is harmless: the
	// task gets a fault that it did not cause, or a syscall number that package syscalls
	// resolves from the code again.
	var code [maxLength]byte
	n, _ := mm.CopyIn(ctx, hostarch.Addr(regs.Rip), code[:], usermem.IOOpts{})
	size := length(code[:n])
	if size == 0 {
		return info, at, err
	}
	regs.Orig_rax = uint64(nr + g.platform.mark)
	regs.Rip += uint64(size)
	return nil, hostarch.NoAccess, nil
}

// maxLength is the maximum length of an x86 instruction in bytes.
const maxLength = 15

// length returns the length of the INT $0x80 at the start of code, or 0 if another
// instruction is there. The length includes prefixes: Linux accepts every prefix that the
// processor accepts.
func length(code []byte) int {
	for i, b := range code {
		switch b {
		case 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, // segments
			0x66, 0x67, // operand and address size
			0xf2, 0xf3, // REPNE, REP
			0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, // REX
			0x48, 0x49, 0x4a, 0x4b, 0x4c, 0x4d, 0x4e, 0x4f:
			continue
		}
		if b == 0xcd && i+1 < len(code) && code[i+1] == 0x80 {
			return i + 2
		}
		break
	}
	return 0
}
