// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// registers is an attack by tracers that change registers at every stop: the syscall number, the
// arguments and the instruction pointer. The tracers also forge the values that the sentry
// keeps in RAX and ORIG_RAX during a call.
//
// A tracee with changed registers may write to any address, and a child may continue as its
// parent does. So the tracees share only the counters in a block with the guest. No tracer
// attaches before the tracee executes its own code.
func registers(r *run) error {
	code, err := rawclone.Map(-1, len(r.mem.code), unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	m := *r.mem
	m.code = code
	copy(m.code, callerCode)
	copy(m.code[skipAt:], skipCode)
	copy(m.code[restorerAt:], restoreCode)
	binary.LittleEndian.PutUint16(m.code[callerSite:], opSyscall)

	// A child that continues as a caller uses the same block.
	const calls = 400
	block := func(place int) []byte { return m.data[place*8*wordsOfBlock:][:8*wordsOfBlock] }
	var starts [places]*rawclone.List
	var callers [places]*rawclone.Op
	for i := range places {
		p := rawclone.NewProgram()
		defer p.Free()
		handlers := skipInt80(&m)
		const streams = 3
		caller := p.NewList(streams + len(handlers) + 1)
		for fd := range streams {
			caller.Sys(unix.SYS_CLOSE, fd)
		}
		for _, o := range handlers {
			caller.Append(o)
		}
		caller.Sys(rawclone.TrapJump, m.code, block(i))
		starts[i] = p.NewList(2)
		callers[i] = starts[i].Clone(kit.SIGCHLD, caller)
		starts[i].Exit(0)
	}
	tr := &tracers{
		start: func(place int) (int, error) {
			b := block(place)
			*word(b, blockNumber) = pick(r, numbers).rax
			*word(b, blockFlags) = uintptr(pick(r, callFlags))
			*word(b, blockLeft) = calls
			starter, errno := starts[place].Start(kit.SIGCHLD)
			if errno != 0 {
				return 0, errno
			}
			if err := reap(starter); err != nil {
				return 0, err
			}
			if errno := callers[place].Errno(); errno != 0 {
				return 0, errno
			}
			return int(callers[place].Ret), nil
		},
		begun: func(place int) bool { return *word(block(place), blockLeft) != calls },
		ended: func(int) error { return nil },
		resume: []int{
			unix.PTRACE_SYSCALL, unix.PTRACE_SYSCALL, unix.PTRACE_SYSCALL, unix.PTRACE_CONT, unix.PTRACE_SYSEMU,
		},
		atStop: func(rng *rand.Rand, pid int) {
			var regs unix.PtraceRegs
			if unix.PtraceGetRegs(pid, &regs) == nil {
				changeRegisters(rng, &regs)
				unix.PtraceSetRegs(pid, &regs)
			}
		},
	}
	err = tr.run(r)
	for i := range places {
		r.out.Made += int(*word(block(i), blockMade))
		r.out.Failed += int(*word(block(i), blockFailed))
	}
	return err
}

// The values that the sentry keeps in registers during a call; see docs/security.md.
const (
	decisionMark = 0x634c34 << 40
	slotNumber   = 2000
)

func changeRegisters(rng *rand.Rand, regs *unix.PtraceRegs) {
	oneIn := func(n int) bool { return rng.IntN(n) == 0 }
	decision := decisionMark | rng.Uint64N([]uint64{8, 256}[rng.IntN(2)])<<32 | uint64(rng.Uint32())
	if oneIn(4) {
		regs.Orig_rax, regs.Rax = slotNumber, decision
	}
	if oneIn(2) {
		regs.Orig_rax = []uint64{
			linux.SYS_CLONE4_AMD64, linux.SYS_CLONE4_X32, linux.SYS_CLONE4_I386,
			linux.SYS_CLONE4_AMD64 | 0xdeadbeef<<32, linux.SYS_CLONE4_X32 | 1<<63,
			slotNumber, slotNumber | 1<<32, ^uint64(0), unix.SYS_GETPID, unix.SYS_CLONE, rng.Uint64(),
		}[rng.IntN(11)]
	}
	if oneIn(2) {
		const erestartsys, erestartBlock = 512, 516
		regs.Rax = []uint64{
			decision, ^uint64(unix.ENOSYS) + 1, ^uint64(erestartsys) + 1, ^uint64(erestartBlock) + 1, 0, rng.Uint64(),
		}[rng.IntN(6)]
	}
	if oneIn(3) {
		flags := callFlags[rng.IntN(len(callFlags))]
		regs.Rsi, regs.Rcx = flags, flags
	}
	if oneIn(10) {
		regs.Rsi, regs.Rdi = rng.Uint64()&rng.Uint64(), rng.Uint64()&rng.Uint64()
	}
	if oneIn(10) {
		regs.Rdx, regs.R10 = 40, rng.Uint64()>>rng.IntN(64)
	}
	if oneIn(8) {
		regs.Rip += 2 * uint64(rng.IntN(3)-1)
	}
	if oneIn(200) {
		regs.Rip = rng.Uint64() >> rng.IntN(64)
	}
}
