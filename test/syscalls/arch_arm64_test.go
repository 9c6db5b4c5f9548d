package syscalls

import (
	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

// abis are the ways to call clone4 that are tested.
var abis = []abi{
	{name: "arm64", nr: linux.SYS_CLONE4_GENERIC, entry: rawclone.Syscall, word: 8},
}

// threadPointer appends what finds out the thread pointer, and returns a function
// that gives it when the script has run.
func (l *list) threadPointer() func() uintptr {
	o := l.sys(rawclone.TrapTLS)
	return func() uintptr { return o.Ret }
}

// oddTLS are values at the edges of what a thread pointer can be.
var oddTLS = []uint64{1<<48 - 1, 1 << 48, 1 << 63, 1<<64 - 1}

// validTLS returns whether tls can be a thread pointer. Linux takes any value for
// TPIDR_EL0; gVisor takes addresses, by clone as well.
func validTLS(tls uint64) bool { return tls < 1<<48 }

// forks are calls that make a child and take no arguments.
var forks []uintptr

// olderArgs returns the arguments of clone(2).
func olderArgs(flags uint64, a linux.Clone4Args) [6]uintptr {
	return [6]uintptr{uintptr(flags), uintptr(a.StackStart), uintptr(a.Ptid), uintptr(a.TLS), uintptr(a.Ctid)}
}
