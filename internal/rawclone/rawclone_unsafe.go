// SPDX-License-Identifier: Apache-2.0

package rawclone

// The conversions here are sound because every pointer that is kept as a number
// points into a Program, which is mapped outside of Go's heap, page-aligned, and
// unmapped by Free alone: nothing moves it. Op has no Go pointer in it that the
// garbage collector would have to see, as Child points into a Program too.

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Program is a piece of shared memory for operations and for words that parent
// and child both see.
type Program struct {
	all []byte
	mem []byte // the rest of it that is free
}

// NewProgram returns a Program with room for some dozens of operations.
func NewProgram() *Program {
	mem, err := Map(-1, 128<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		panic(fmt.Sprintf("rawclone: mmap: %v", err))
	}
	return &Program{mem, mem}
}

// Reset makes the memory free again, and 0. No child may still run in it, and no list,
// word or buffer from before may be used.
func (p *Program) Reset() {
	clear(p.all[:len(p.all)-len(p.mem)])
	p.mem = p.all
}

// Free unmaps the memory in this process. Nothing that came from the program may be used
// any more, and no child that shares the process's memory may still run in it.
func (p *Program) Free() {
	if err := unix.Munmap(p.all); err != nil {
		panic(fmt.Sprintf("rawclone: munmap: %v", err))
	}
	p.all, p.mem = nil, nil
}

// Buffer returns size bytes of shared memory, 0 at first, aligned to a word.
func (p *Program) Buffer(size int) []byte {
	taken := (size + 7) &^ 7
	if taken > len(p.mem) {
		panic(fmt.Sprintf("rawclone: no room for %d bytes: a Program has %d, and %d are left", size, len(p.all), len(p.mem)))
	}
	b := p.mem[:size:size]
	p.mem = p.mem[taken:]
	return b
}

// Path returns the address of a NUL-terminated string in shared memory.
func (p *Program) Path(name string) uintptr {
	buf := p.Buffer(len(name) + 1)
	copy(buf, name)
	return AddrOf(buf)
}

// List puts ops into the program, one behind the other, and returns the first.
// The last must not come back: an exit, usually, or an execve and an exit.
func (p *Program) List(ops ...Op) *Op {
	list := p.ops(len(ops))
	copy(list, ops)
	return &list[0]
}

// ops returns room for n operations.
func (p *Program) ops(n int) []Op {
	return unsafe.Slice((*Op)(unsafe.Pointer(unsafe.SliceData(p.Buffer(n*int(unsafe.Sizeof(Op{})))))), n)
}

// At returns operation i of the list that starts at first.
func At(first *Op, i int) *Op {
	return (*Op)(unsafe.Add(unsafe.Pointer(first), uintptr(i)*unsafe.Sizeof(*first)))
}

// Word returns a word in shared memory, 0 at first.
func (p *Program) Word() *uintptr {
	return WordOf(p.Buffer(int(unsafe.Sizeof(uintptr(0)))))
}

// WordAt returns word i of the words that start at first. Those that Word returns
// follow each other.
func WordAt(first *uintptr, i int) *uintptr {
	return (*uintptr)(unsafe.Add(unsafe.Pointer(first), uintptr(i)*unsafe.Sizeof(*first)))
}

// Addr returns the address of a word or operation that does not move: one in a
// Program.
func Addr[T any](v *T) uintptr {
	return uintptr(unsafe.Pointer(v))
}

// AddrOf returns the address of memory that does not move: a buffer of a Program, or
// what Map returned.
func AddrOf(mem []byte) uintptr {
	return uintptr(unsafe.Pointer(unsafe.SliceData(mem)))
}

// WordOf returns the first word of memory that does not move.
func WordOf(mem []byte) *uintptr {
	return (*uintptr)(unsafe.Pointer(unsafe.SliceData(mem)))
}

// Map maps size bytes of a file, or of no file if fd is -1, at an address that fits into
// the words of every ABI. Errors are those of mmap(2).
func Map(fd, size, prot, flags int) ([]byte, error) {
	if fd < 0 {
		flags |= unix.MAP_ANON
	}
	return unix.Mmap(fd, 0, size, prot, flags|LowMemory)
}

// Do executes op in this thread, with all signals blocked, and returns its
// result: no signal handler of the Go runtime may run in a child, which begins
// with the caller's signal mask. op and its lists must be in a Program.
func Do(op *Op) (uintptr, syscall.Errno) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, old uint64
	all = ^all
	sigprocmask(&all, &old)
	invoke(op)
	sigprocmask(&old, nil)
	if e := -int(op.Ret); e > 0 && e < 4096 {
		return 0, syscall.Errno(e)
	}
	return op.Ret, 0
}

// sigprocmask sets the thread's signal mask. It is a raw system call: the Go
// scheduler must not take the thread away in between.
func sigprocmask(set, old *uint64) {
	_, _, errno := syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), unsafe.Sizeof(*set), 0, 0)
	if errno != 0 {
		panic(fmt.Sprintf("rawclone: rt_sigprocmask: %v", errno))
	}
}

// invoke executes op, which may make a child that never comes back here.
//
//go:noescape
func invoke(op *Op)
