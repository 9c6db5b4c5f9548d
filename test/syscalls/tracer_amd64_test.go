// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"slices"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// register is the offset of a register in struct user, as PTRACE_PEEKUSER takes it.
type register uintptr

const (
	userR10 register = 7 * 8
	userRCX register = 11 * 8
	userRSI register = 13 * 8
	userRDI register = 14 * 8

	regResult register = 10 * 8 // RAX
	regNumber register = 15 * 8 // orig_rax
	regSize   register = 12 * 8 // RDX

	noRegister = ^register(0) // no call has its flags in this register
)

func (tr *tracing) peek(pid int, r register) uintptr {
	tr.t.Helper()
	tr.ptrace(unix.PTRACE_PEEKUSR, pid, uintptr(r), rawclone.AddrOf(tr.scratch))
	return *rawclone.WordOf(tr.scratch)
}

func (tr *tracing) poke(pid int, r register, v uintptr) {
	tr.t.Helper()
	tr.ptrace(unix.PTRACE_POKEUSR, pid, uintptr(r), v)
}

// singleSteps says that a tracee stops after PTRACE_SINGLESTEP.
const singleSteps = true

// shortCalls is the number of calls, from the end, that this sentry handles itself. clone(2) and
// amd64's clone4 are not among them, because they are in gVisor's own table.
const shortCalls = 2

func allTracedCalls() []*tracedCall {
	calls := []*tracedCall{{name: "clone", number: unix.SYS_CLONE, getpid: unix.SYS_GETPID, flags: userRDI, args: userRSI}}
	for _, abi := range kit.ABIs() {
		c := &tracedCall{name: abi.Name, abi: abi, number: abi.Number, getpid: unix.SYS_GETPID, flags: userRSI, args: userR10}
		if c.int80() {
			c.getpid, c.flags, c.args = 20, userRCX, userRSI
		}
		calls = append(calls, c)
	}
	return calls
}

// uncleanCalls returns a call for each ABI, with garbage in the upper half of RAX.
func uncleanCalls() []*tracedCall {
	calls := slices.DeleteFunc(tracedCalls(), func(c *tracedCall) bool { return c.abi == nil })
	for _, c := range calls {
		c.name += " unclean"
		c.number |= 0xdeadbeef << 32
	}
	return calls
}

func (c *tracedCall) int80() bool { return c.abi != nil && c.abi.Entry == rawclone.Int80 }

// hasGetpid returns whether the instruction makes other calls than clone4 on this machine.
func (c *tracedCall) hasGetpid() bool { return !c.int80() || kit.HasInt80() }

// sandboxI386 is what some platforms of gVisor add to the number of an INT $0x80. A tracer sees
// the sum, also in stock runsc.
const sandboxI386 = 0x86000000

// shows returns whether orig_rax is right for the instruction with number.
func (c *tracedCall) shows(orig, number uintptr) bool {
	if !c.int80() {
		return orig == number
	}
	number = uintptr(uint32(number))
	return orig == number || kit.Platform() != "" && orig == number+sandboxI386
}

// setNumber replaces the number of the tracee's call. The instruction stays the same.
func (tr *tracing) setNumber(number uintptr) {
	if tr.call.int80() && tr.peek(tr.tracee.pid, regNumber) >= sandboxI386 {
		number += sandboxI386
	}
	tr.pokeNumber(number)
}

// unknownNumbers returns numbers that are not calls with the instruction of the call. Some of
// them are special in a sandbox.
func (c *tracedCall) unknownNumbers() []uintptr {
	unknown := []uintptr{1000, 1990, 1991, 1992, 1993, 1994, 2000, 2001, 0xffffffff, 1 << 31}
	if c.int80() {
		return append(unknown, linux.SYS_CLONE4_X32, sandboxI386+linux.SYS_CLONE4_I386)
	}
	return append(unknown, linux.SYS_CLONE4_I386, sandboxI386+linux.SYS_CLONE4_I386, linux.SYS_CLONE4_X32&^linux.X32_SYSCALL_BIT, linux.SYS_CLONE4_AMD64|linux.X32_SYSCALL_BIT)
}
