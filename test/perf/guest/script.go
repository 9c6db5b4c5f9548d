// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

// variant is one thing to measure.
type variant struct {
	name  string
	n     int // how many of what is measured there are
	build func(s *script)
}

// measure returns how long one of what the variant measures took. The operations of
// every variant are in the same memory: with a mapping for each, a fork would take
// several times as long as that of an ordinary program.
func (v variant) measure(memory *rawclone.Program) (ns float64, err error) {
	memory.Reset()
	s := &script{Program: memory}
	v.build(s)

	var times [4]*uintptr // seconds and nanoseconds, before and after
	for i := range times {
		times[i] = s.Word()
	}
	clock := func(i int) rawclone.Op {
		return call(unix.SYS_CLOCK_GETTIME, unix.CLOCK_MONOTONIC, rawclone.Addr(times[i]))
	}
	ops := append(s.setup, clock(0))
	first := len(ops)
	list := s.list(append(append(ops, s.ops...), clock(2))...)
	// Shared memory again, so that what is measured does not begin with faults.
	create := clone.call(s.Program, cloneArgs{flags: linux.CLONE_VM | uintptr(unix.SIGCHLD)})
	create.Child = list
	if err := life(s.List(create)); err != nil {
		return 0, fmt.Errorf("%s: making the child that measures: %w", v.name, err)
	}
	for _, i := range s.checked {
		if ret := int(rawclone.At(list, first+i).Ret); ret < 0 {
			return 0, fmt.Errorf("%s: %w", v.name, unix.Errno(-ret))
		}
	}
	seconds, nanoseconds := int(*times[2]-*times[0]), int(*times[3]-*times[1])
	return (float64(seconds)*1e9 + float64(nanoseconds)) / float64(v.n), nil
}

// life makes a child and waits for its end.
func life(create *rawclone.Op) error {
	pid, errno := rawclone.Do(create)
	if errno != 0 {
		return errno
	}
	_, err := unix.Wait4(int(pid), nil, unix.WALL, nil)
	return err
}

// script is the operations of a variant.
type script struct {
	*rawclone.Program
	setup   []rawclone.Op // before the time is taken
	ops     []rawclone.Op
	checked []int // indices of operations that must not fail
}

// add adds operations. A small number as an argument with its bit in Deref is the
// result of so many operations before.
func (s *script) add(ops ...rawclone.Op) {
	s.ops = append(s.ops, ops...)
}

// mustWork says that the last operation must work.
func (s *script) mustWork() {
	s.checked = append(s.checked, len(s.ops)-1)
}

// list puts operations into the script's memory, and an exit behind them.
func (s *script) list(ops ...rawclone.Op) *rawclone.Op {
	first := s.List(append(ops[:len(ops):len(ops)], rawclone.Op{Trap: unix.SYS_EXIT})...)
	for i := range ops {
		op := rawclone.At(first, i)
		for arg, v := range op.Args {
			if op.Deref>>arg&1 == 1 && v < 4096 {
				op.Args[arg] = rawclone.Addr(&rawclone.At(first, i-int(v)).Ret)
			}
		}
	}
	return first
}

// call returns a system call.
func call(trap uintptr, args ...uintptr) rawclone.Op {
	op := rawclone.Op{Trap: trap}
	copy(op.Args[:], args)
	return op
}

// wait waits for the child that the operation before has made.
func wait() rawclone.Op { return waitFor(1) }

// waitFor waits for the child that was made so many operations before.
func waitFor(before uintptr) rawclone.Op {
	op := call(unix.SYS_WAIT4, before, 0, unix.WALL)
	op.Deref = 1 << 0
	return op
}

// words returns the address of consecutive words with the given values.
func words(p *rawclone.Program, values ...uintptr) uintptr {
	var first *uintptr
	for i, v := range values {
		w := p.Word()
		*w = v
		if i == 0 {
			first = w
		}
	}
	return rawclone.Addr(first)
}

// buffer returns the address of at least size bytes.
func buffer(p *rawclone.Program, size int) uintptr {
	return words(p, make([]uintptr, (size+7)/8)...)
}

// text returns the address of a string that ends with a 0.
func text(p *rawclone.Program, text string) uintptr {
	b := make([]byte, (len(text)+8)&^7)
	copy(b, text)
	var values []uintptr
	for ; len(b) > 0; b = b[8:] {
		values = append(values, uintptr(binary.LittleEndian.Uint64(b)))
	}
	return words(p, values...)
}
