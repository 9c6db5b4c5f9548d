package syscalls

import (
	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

// abis are the ways to call clone4 that are tested.
var abis = []abi{
	{name: "amd64", nr: linux.SYS_CLONE4_AMD64, entry: rawclone.Syscall, word: 8},
	{name: "x32", nr: linux.SYS_CLONE4_X32, entry: rawclone.Syscall, word: 4},
	{name: "i386", nr: linux.SYS_CLONE4_I386, entry: rawclone.Int80, word: 4},
}

// threadPointer appends what finds out the thread pointer, and returns a function
// that gives it when the script has run.
func (l *list) threadPointer() func() uintptr {
	const archGetFS = 0x1003
	fs := l.s.p.Word()
	l.sys(unix.SYS_ARCH_PRCTL, archGetFS, fs)
	return func() uintptr { return *fs }
}

// oddTLS are values at the edges of what a thread pointer can be: below what
// TASK_SIZE_MAX is with 4 levels of page tables, from what it is with 5 on. What
// is between depends on the machine, and gVisor has 4.
var oddTLS = []uint64{1<<47 - 4097, 1<<56 - 4096, 1 << 56, 1 << 63, 1<<64 - 1}

// validTLS returns whether tls can be a thread pointer.
func validTLS(tls uint64) bool { return tls < 1<<47 }

// forks are calls that make a child and take no arguments.
var forks = []uintptr{unix.SYS_FORK, unix.SYS_VFORK}

// olderArgs returns the arguments of clone(2).
func olderArgs(flags uint64, a linux.Clone4Args) [6]uintptr {
	return [6]uintptr{uintptr(flags), uintptr(a.StackStart), uintptr(a.Ptid), uintptr(a.Ctid), uintptr(a.TLS)}
}
