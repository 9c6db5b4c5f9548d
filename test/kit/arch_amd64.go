// SPDX-License-Identifier: Apache-2.0

package kit

import (
	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

var abis = []ABI{
	{Name: "amd64", Number: linux.SYS_CLONE4_AMD64, Entry: rawclone.Syscall, Word: 8},
	{Name: "x32", Number: linux.SYS_CLONE4_X32, Entry: rawclone.Syscall, Word: 4},
	{Name: "i386", Number: linux.SYS_CLONE4_I386, Entry: rawclone.Int80, Word: 4},
}

// CloneArgs returns the arguments of clone(2), whose order depends on the architecture.
func CloneArgs(flags uint64, a linux.Clone4Args) [6]uintptr {
	return [6]uintptr{uintptr(flags), uintptr(a.StackStart), uintptr(a.Ptid), uintptr(a.Ctid), uintptr(a.TLS)}
}

// ThreadPointer appends to l an operation that reads the thread pointer. The function that
// it returns has the result afterwards.
func ThreadPointer(l *rawclone.List) func() uintptr {
	const archGetFS = 0x1003
	fs := l.Program().Word()
	l.Sys(unix.SYS_ARCH_PRCTL, archGetFS, fs)
	return func() uintptr { return *fs }
}

// OddTLS returns values at the limits of valid thread pointers. Values below TASK_SIZE_MAX of
// 4-level page tables are valid on every machine, and values from that of 5-level page tables
// on are invalid. gVisor has 4 levels.
func OddTLS() []uint64 { return []uint64{1<<47 - 4097, 1<<56 - 4096, 1 << 56, 1 << 63, 1<<64 - 1} }

// ValidTLS returns whether tls is a valid thread pointer.
func ValidTLS(tls uint64) bool { return tls < 1<<47 }

// Forks returns the calls that create a child and take no arguments.
func Forks() map[string]uintptr {
	return map[string]uintptr{"fork": unix.SYS_FORK, "vfork": unix.SYS_VFORK}
}
