// SPDX-License-Identifier: Apache-2.0

// Package rawclone creates children by raw system calls, and runs lists of system
// calls in them.
//
// A child of clone(2) cannot go on in Go code: it has one thread, on a stack that
// the Go runtime does not know, and may share memory with its running parent. So a
// child here never returns to Go. It executes a list of operations, each a system
// call or a memory access. The loop is written in assembly, and needs no stack, no
// thread pointer and no signal handler. Operations store their own results. They are
// in a Program, which is shared memory, so the parent sees the results even if the
// child has a copy of all other memory.
package rawclone

import (
	"fmt"
	"syscall"
)

// Op is one operation: of a child, or the call by which a parent creates a child.
type Op struct {
	// Trap is the number of a system call, or one of the Trap constants.
	Trap uintptr

	// Args are the call's arguments.
	Args [6]uintptr

	// Deref has bit i set if Args[i] is the address of a word that holds the
	// argument: usually the Ret of an earlier operation.
	Deref uintptr

	// Entry is the instruction that enters the kernel: Syscall or Int80.
	Entry uintptr

	// Child, if not nil, is the next operation of the child, in which this call
	// returns 0. The caller gets the result in Ret, as for any other operation. The
	// child does not write Ret.
	Child *Op

	// Ret is the result: the value of the result register after a system call.
	Ret uintptr
}

// Values of Op.Trap for operations that are not system calls.
const (
	// TrapStore stores Args[1] in the word at Args[0].
	TrapStore = ^uintptr(0) - iota

	// TrapLoad loads the word at Args[0] into Ret.
	TrapLoad

	// TrapSP puts the stack pointer into Ret.
	TrapSP

	// TrapTLS puts the thread pointer, TPIDR_EL0, into Ret. arm64 only: on amd64,
	// use arch_prctl(ARCH_GET_FS).
	TrapTLS

	// TrapJump jumps to the machine code at Args[0] and does not return. The
	// arguments are in the registers of a system call, the first in RDI. amd64
	// only.
	TrapJump
)

// Values of Op.Entry.
const (
	// Syscall is the instruction SYSCALL on amd64, SVC on arm64.
	Syscall = iota

	// Int80 is INT $0x80. It takes the low 32 bits of the first four arguments, in
	// EBX, ECX, EDX and ESI. amd64 only.
	Int80
)

// Sys returns a system call, or an operation of a Trap constant. An argument is a number,
// a pointer to a word, a buffer, or an *Op. Sys passes the address of a word or a buffer,
// which must not move, and the result of an *Op.
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
