// SPDX-License-Identifier: Apache-2.0

package rawclone

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// List is a list of operations that one task executes from the first to the last. A
// caller writes the list before it creates the task, and reads the results afterwards:
// methods that append return the operation, whose Ret becomes the result.
//
// The last operation must not return: usually it is an exit.
type List struct {
	p     *Program
	ops   []Op
	n     int
	start *Op
}

// NewList returns an empty list with room for max operations.
func (p *Program) NewList(max int) *List {
	return &List{p: p, ops: p.ops(max)}
}

// Program returns the program that the list is in.
func (l *List) Program() *Program { return l.p }

// First returns the first operation of the list, where a child begins. A nil list has
// none.
func (l *List) First() *Op {
	if l == nil {
		return nil
	}
	return &l.ops[0]
}

// Reset makes the list empty again.
func (l *List) Reset() { l.n = 0 }

// Append appends an operation.
func (l *List) Append(o Op) *Op {
	if l.n == len(l.ops) {
		panic(fmt.Sprintf("rawclone: the list has room for %d operations", l.n))
	}
	next := &l.ops[l.n]
	*next = o
	l.n++
	return next
}

// Sys appends a system call; see the function Sys.
func (l *List) Sys(nr uintptr, args ...any) *Op {
	return l.Append(Sys(nr, args...))
}

// Clone appends a call of clone(2) with flags and no other argument. The child continues
// in child, or in this list if child is nil.
func (l *List) Clone(flags uint64, child *List) *Op {
	return l.Append(Op{Trap: unix.SYS_CLONE, Args: [6]uintptr{uintptr(flags)}, Child: child.First()})
}

// Wait appends a wait4(2), and returns the wait status too.
func (l *List) Wait(pid any, options int) (*Op, *uintptr) {
	status := l.p.Word()
	return l.Sys(unix.SYS_WAIT4, pid, status, options), status
}

// FutexWait appends a wait until the low 32 bits of a word differ from value. timeout is a
// struct timespec, or 0 for no limit.
func (l *List) FutexWait(word *uintptr, value, timeout any) *Op {
	const futexWait = 0
	return l.Sys(unix.SYS_FUTEX, word, futexWait, value, timeout)
}

// FutexWake appends a call that wakes up to n tasks that wait for a word.
func (l *List) FutexWake(word *uintptr, n int) *Op {
	const futexWake = 1
	return l.Sys(unix.SYS_FUTEX, word, futexWake, n)
}

// Exit appends the exit of the task's process.
func (l *List) Exit(status any) *Op { return l.Sys(unix.SYS_EXIT_GROUP, status) }

// ExitTask appends the exit of the task alone.
func (l *List) ExitTask(status any) *Op { return l.Sys(unix.SYS_EXIT, status) }

// Start creates a child of the Go program by clone(2) with flags. The child executes the
// list. A list may be started again once its child has exited.
func (l *List) Start(flags uint64) (pid int, errno syscall.Errno) {
	if l.start == nil {
		l.start = &l.p.ops(1)[0]
	}
	*l.start = Op{Trap: unix.SYS_CLONE, Args: [6]uintptr{uintptr(flags)}, Child: l.First()}
	ret, errno := Do(l.start)
	return int(ret), errno
}
