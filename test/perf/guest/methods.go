// SPDX-License-Identifier: Apache-2.0

package main

import (
	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

// method is a way to make a child.
type method struct {
	name    string
	partial bool // the same as another, with less of its struct
	call    func(p *rawclone.Program, a cloneArgs) rawclone.Op
}

// cloneArgs are the arguments that the methods have in common.
type cloneArgs struct {
	flags           uintptr // and the exit signal
	ptid, ctid, tls uintptr
}

const fork = "fork" // has no arguments

var (
	clone = method{name: "clone", call: func(p *rawclone.Program, a cloneArgs) rawclone.Op {
		return rawclone.Op{Trap: unix.SYS_CLONE, Args: cloneRegisters(a)}
	}}

	clone3 = method{name: "clone3", call: func(p *rawclone.Program, a cloneArgs) rawclone.Op {
		const csignal = linux.CSIGNAL
		args := words(p, a.flags&^csignal, 0, a.ctid, a.ptid, a.flags&csignal, 0, 0, a.tls)
		return call(unix.SYS_CLONE3, args, 64)
	}}

	fullClone4 = clone4("clone4", linux.SizeOfClone4Args)

	methods = append(archMethods, clone, clone3, fullClone4, clone4("clone4-0-bytes", 0), clone4("clone4-13-bytes", 13))
)

// clone4 passes the first size bytes of its struct.
func clone4(name string, size uintptr) method {
	return method{name, size < linux.SizeOfClone4Args, func(p *rawclone.Program, a cloneArgs) rawclone.Op {
		return call(linux.SYS_CLONE4, 0, a.flags, size, words(p, a.ptid, a.ctid, 0, 0, a.tls))
	}}
}

// there returns the methods by which this kernel makes a child. Where it has no
// clone4, there may be another call at its number, which works.
func there(all []method) (methods []method) {
	p := rawclone.NewProgram()
	child := p.List(call(unix.SYS_EXIT))
	for _, m := range all {
		if life(p.List(m.process(p, child))) == nil {
			methods = append(methods, m)
		}
	}
	return methods
}

// process returns the call that makes a process, which goes on at child.
func (m method) process(p *rawclone.Program, child *rawclone.Op) rawclone.Op {
	op := m.call(p, cloneArgs{flags: uintptr(unix.SIGCHLD)})
	op.Child = child
	return op
}

// thread returns the call that makes a thread as a C library does, with a TLS of its
// own, and the call that waits for its end, so many operations later.
func (m method) thread(p *rawclone.Program, child *rawclone.Op, later uintptr) (create, join rawclone.Op) {
	const flags = linux.CLONE_VM | linux.CLONE_FS | linux.CLONE_FILES | linux.CLONE_SIGHAND | linux.CLONE_THREAD | linux.CLONE_SYSVSEM |
		linux.CLONE_SETTLS | linux.CLONE_PARENT_SETTID | linux.CLONE_CHILD_CLEARTID
	tid, tls := buffer(p, 8), buffer(p, 8)
	create = m.call(p, cloneArgs{flags: flags, ptid: tid, ctid: tid, tls: tls})
	create.Child = child
	// It waits while the word holds the ID that the call has returned.
	join = call(unix.SYS_FUTEX, tid, 0 /* FUTEX_WAIT */, later)
	join.Deref = 1 << 2
	return create, join
}
