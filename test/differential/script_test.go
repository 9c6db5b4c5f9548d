package differential

import (
	"golang.org/x/sys/unix"

	"runsc-ext/internal/rawclone"
)

// abi is a way to call clone4.
type abi struct {
	name  string
	nr    uintptr
	entry uintptr // a value of rawclone.Op.Entry
	word  int     // size of a word of the args struct, in bytes
}

// list is a list of operations that one task executes, see package rawclone. Lists
// are used again for each call.
type list struct {
	a      *arena
	first  *rawclone.Op
	n, max int
}

func newList(p *rawclone.Program, a *arena, max int) *list {
	return &list{a: a, first: p.List(make([]rawclone.Op, max)...), max: max}
}

// op appends an operation.
func (l *list) op(o rawclone.Op) *rawclone.Op {
	if l.n == l.max {
		panic("list is full")
	}
	next := rawclone.At(l.first, l.n)
	*next = o
	l.n++
	return next
}

// sys appends what rawclone.Sys returns.
func (l *list) sys(nr uintptr, args ...any) *rawclone.Op {
	return l.op(rawclone.Sys(nr, args...))
}

// clone appends a call of clone(2). The child goes on in child, if that is not nil.
func (l *list) clone(flags uintptr, child *list) *rawclone.Op {
	return l.op(rawclone.Op{Trap: unix.SYS_CLONE, Args: [6]uintptr{flags}, Child: child.first})
}

// await appends a wait for a word to be no longer value.
func (l *list) await(word *uintptr, value int, timeout *uintptr) *rawclone.Op {
	return l.sys(unix.SYS_FUTEX, word, 0 /* FUTEX_WAIT */, value, timeout)
}

// tell appends what sets a word to 1, and ends the waits for it.
func (l *list) tell(word *uintptr) {
	l.sys(rawclone.TrapStore, word, 1)
	l.sys(unix.SYS_FUTEX, word, 1 /* FUTEX_WAKE */, 100)
}

// waited is a call of wait4.
type waited struct {
	*rawclone.Op
	status *uintptr
}

// wait appends a wait4.
func (l *list) wait(pid any, options int) waited {
	status := l.a.word()
	return waited{l.sys(unix.SYS_WAIT4, pid, status, options), status}
}
