// SPDX-License-Identifier: Apache-2.0

// Package rawclone makes children by raw system calls, and runs lists of system
// calls in them.
//
// A Go program cannot call clone(2) and go on: the child has one thread, on a
// stack that Go knows nothing of, and may share memory with a parent that runs.
// So a child here never returns to Go. It executes a list of operations, each a
// system call or a memory access, in a loop written in assembly that needs no
// stack, no thread pointer and no signal handler. Results are stored in the
// operations themselves; a Program lives in shared memory, so the parent sees
// them also where the child has a copy of the rest.
package rawclone

import (
	"fmt"
	"syscall"
)

// Op is one operation of a child, or the call by which a parent makes one.
type Op struct {
	// Trap is the number of a system call, or one of the Trap constants.
	Trap uintptr

	// Args are the call's arguments.
	Args [6]uintptr

	// Deref has bit i set if Args[i] is the address of a word that holds the
	// argument: usually the Ret of an earlier operation.
	Deref uintptr

	// Entry is how the kernel is entered: Syscall or Int80.
	Entry uintptr

	// Child, if not nil, is where the child goes on if this call returns 0.
	// The caller gets the call's result in Ret, as for any other operation; the
	// child does not touch Ret.
	Child *Op

	// Ret is the result: what a system call left in the result register.
	Ret uintptr
}

// Values of Op.Trap that are no system calls.
const (
	// TrapStore stores Args[1] in the word at Args[0].
	TrapStore = ^uintptr(0) - iota

	// TrapLoad loads the word at Args[0] into Ret.
	TrapLoad

	// TrapSP puts the stack pointer into Ret.
	TrapSP

	// TrapTLS puts the thread pointer into Ret: TPIDR_EL0. On amd64 ask
	// arch_prctl(ARCH_GET_FS).
	TrapTLS

	// TrapJump jumps to the machine code at Args[0] and does not come back.
	// Arguments are in the registers of a system call: the first in RDI. amd64
	// only.
	TrapJump
)

// Values of Op.Entry.
const (
	// Syscall is the instruction SYSCALL on amd64, SVC on arm64.
	Syscall = iota

	// Int80 is INT $0x80, amd64 only. It takes the low 32 bits of the first
	// four arguments, in EBX, ECX, EDX and ESI.
	Int80
)

// Sys returns a system call, or another operation that has a number. An argument is
// a number, a pointer to a word or memory that does not move (the address is passed), or
// the *Op whose result is to be passed.
func Sys(nr uintptr, args ...any) Op {
	o := Op{Trap: nr}
	for i, arg := range args {
		switch v := arg.(type) {
		case int:
			o.Args[i] = uintptr(v)
		case uintptr:
			o.Args[i] = v
		case *uintptr:
			o.Args[i] = Addr(v)
		case []byte:
			o.Args[i] = AddrOf(v)
		case *Op:
			o.Args[i] = Addr(&v.Ret)
			o.Deref |= 1 << i
		default:
			panic(fmt.Sprintf("rawclone: argument of type %T", arg))
		}
	}
	return o
}

// Errno returns the error of an operation, 0 if there was none.
func (o *Op) Errno() syscall.Errno {
	if e := -int(o.Ret); e > 0 && e < 4096 {
		return syscall.Errno(e)
	}
	return 0
}
