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

// ThreadPointer appends to l what finds out the thread pointer. The function returns it
// afterwards.
func ThreadPointer(l *rawclone.List) func() uintptr {
	const archGetFS = 0x1003
	fs := l.Program().Word()
	l.Sys(unix.SYS_ARCH_PRCTL, archGetFS, fs)
	return func() uintptr { return *fs }
}

// OddTLS returns values at the edges of what a thread pointer can be: below TASK_SIZE_MAX
// with 4 levels of page tables, and from TASK_SIZE_MAX with 5 levels on. What is between
// depends on the machine. gVisor has 4 levels.
func OddTLS() []uint64 { return []uint64{1<<47 - 4097, 1<<56 - 4096, 1 << 56, 1 << 63, 1<<64 - 1} }

// ValidTLS returns whether tls can be a thread pointer.
func ValidTLS(tls uint64) bool { return tls < 1<<47 }

// Forks returns the calls that create a child and take no arguments.
func Forks() map[string]uintptr {
	return map[string]uintptr{"fork": unix.SYS_FORK, "vfork": unix.SYS_VFORK}
}
