// SPDX-License-Identifier: Apache-2.0

package kit

import (
	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

var abis = []ABI{
	{Name: "arm64", Number: linux.SYS_CLONE4_GENERIC, Entry: rawclone.Syscall, Word: 8},
}

// CloneArgs returns the arguments of clone(2), whose order depends on the architecture.
func CloneArgs(flags uint64, a linux.Clone4Args) [6]uintptr {
	return [6]uintptr{uintptr(flags), uintptr(a.StackStart), uintptr(a.Ptid), uintptr(a.TLS), uintptr(a.Ctid)}
}

// ThreadPointer appends to l an operation that reads the thread pointer. The function that
// it returns has the result afterwards.
func ThreadPointer(l *rawclone.List) func() uintptr {
	o := l.Sys(rawclone.TrapTLS)
	return func() uintptr { return o.Ret }
}

// OddTLS returns values at the limits of valid thread pointers.
func OddTLS() []uint64 { return []uint64{1<<48 - 1, 1 << 48, 1 << 63, 1<<64 - 1} }

// ValidTLS returns whether tls is a valid thread pointer in gVisor, which accepts only
// addresses, in clone(2) too. Linux accepts any value for TPIDR_EL0.
func ValidTLS(tls uint64) bool { return tls < 1<<48 }

// Forks returns the calls that create a child and take no arguments.
func Forks() map[string]uintptr { return nil }
