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

// ThreadPointer appends to l what finds out the thread pointer. The function returns it
// afterwards.
func ThreadPointer(l *rawclone.List) func() uintptr {
	o := l.Sys(rawclone.TrapTLS)
	return func() uintptr { return o.Ret }
}

// OddTLS returns values at the edges of what a thread pointer can be.
func OddTLS() []uint64 { return []uint64{1<<48 - 1, 1 << 48, 1 << 63, 1<<64 - 1} }

// ValidTLS returns whether tls can be a thread pointer. Linux takes any value for
// TPIDR_EL0. gVisor takes addresses, by clone(2) as well.
func ValidTLS(tls uint64) bool { return tls < 1<<48 }

// Forks returns the calls that create a child and take no arguments.
func Forks() map[string]uintptr { return nil }
