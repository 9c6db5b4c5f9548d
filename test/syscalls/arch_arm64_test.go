package syscalls

import "runsc-ext/internal/rawclone"

// threadPointer appends what finds out the thread pointer, and returns a function
// that gives it when the script has run.
func (l *list) threadPointer() func() uintptr {
	o := l.sys(rawclone.TrapTLS)
	return func() uintptr { return o.Ret }
}

// oddTLS are values at the edges of what a thread pointer can be: TPIDR_EL0 can
// be anything.
var oddTLS = []uint64{1 << 48, 1 << 63, 1<<64 - 1}

// validTLS returns whether tls can be a thread pointer.
func validTLS(tls uint64) bool { return true }
