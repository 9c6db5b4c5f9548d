// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// register is the number of a general purpose register.
type register uintptr

const (
	regResult register = 0
	regSize   register = 2
	regNumber register = 8

	// noRegister stands for the first argument, in which clone(2) has its flags. In gVisor,
	// a tracer cannot change it (Context64.OrigR0).
	noRegister = ^register(0)
)

// registers reads or writes all registers of a task, in scratch.
func (tr *tracing) registers(request, pid int) (regs []byte) {
	tr.t.Helper()
	const ntPRStatus, sizeOfRegs = 1, 34 * 8
	iov, regs := tr.scratch[:16], tr.scratch[16:16+sizeOfRegs]
	*rawclone.WordOf(iov), *rawclone.WordOf(iov[8:]) = rawclone.AddrOf(regs), sizeOfRegs
	tr.ptrace(request, pid, ntPRStatus, rawclone.AddrOf(iov))
	return regs
}

func (tr *tracing) peek(pid int, r register) uintptr {
	tr.t.Helper()
	return *rawclone.WordOf(tr.registers(unix.PTRACE_GETREGSET, pid)[8*r:])
}

func (tr *tracing) poke(pid int, r register, v uintptr) {
	tr.t.Helper()
	*rawclone.WordOf(tr.registers(unix.PTRACE_GETREGSET, pid)[8*r:]) = v
	tr.registers(unix.PTRACE_SETREGSET, pid)
}

// singleSteps says that a tracee stops after PTRACE_SINGLESTEP. In gVisor on arm64 the
// tracee continues, under stock runsc and in clone(2) too.
const singleSteps = false

// shortCalls is the number of calls, from the end, that are not clone(2).
const shortCalls = 1

func allTracedCalls() []*tracedCall {
	a := kit.Default()
	return []*tracedCall{
		{name: "clone", number: unix.SYS_CLONE, getpid: unix.SYS_GETPID, flags: noRegister},
		{name: a.Name, abi: a, number: a.Number, getpid: unix.SYS_GETPID, flags: 1, args: 3},
	}
}

// uncleanCalls returns no calls, because gVisor takes the whole register for the number.
func uncleanCalls() []*tracedCall { return nil }

func (c *tracedCall) hasGetpid() bool { return true }

// shows returns whether a tracer must read number in a call by number.
func (c *tracedCall) shows(read, number uintptr) bool { return read == number }

// setNumber replaces the number of the tracee's call. (Linux requires NT_ARM_SYSTEM_CALL for
// that, which gVisor does not have.)
func (tr *tracing) setNumber(number uintptr) { tr.pokeNumber(number) }

// unknownNumbers returns numbers that are not calls. Some of them are special in a sandbox.
func (c *tracedCall) unknownNumbers() []uintptr {
	return []uintptr{1000, 1990, 2000, 2001, 0xffffffff, 1 << 31, linux.SYS_CLONE4_GENERIC | 1<<32, linux.SYS_CLONE4_AMD64}
}
