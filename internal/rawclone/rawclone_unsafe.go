// SPDX-License-Identifier: Apache-2.0

package rawclone

// The conversions here are sound: every pointer that is kept as a number points into a
// Program. A Program is mapped outside of Go's heap and page-aligned, and only Free unmaps
// it, so it does not move. The garbage collector need not see the pointers in an Op,
// because Child points into a Program too.

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Program is a piece of shared memory for the operations and words of a parent and
// its children.
type Program struct {
	all []byte
	mem []byte // the free rest of all
}

// NewProgram returns a Program of 128 kB.
func NewProgram() *Program {
	mem, err := Map(-1, 128<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		panic(fmt.Sprintf("rawclone: mmap: %v", err))
	}
	return &Program{mem, mem}
}

// Reset makes the memory free again, and fills it with zeros. No child may still run in
// the program, and no list, word or buffer from before may be used again.
func (p *Program) Reset() {
	clear(p.all[:len(p.all)-len(p.mem)])
	p.mem = p.all
}

// Free unmaps the memory in this process. Nothing from the program may be used again, and
// no child that shares the process's memory may still run in the program.
func (p *Program) Free() {
	if err := unix.Munmap(p.all); err != nil {
		panic(fmt.Sprintf("rawclone: munmap: %v", err))
	}
	p.all, p.mem = nil, nil
}

// Buffer returns size zero bytes of shared memory, aligned to a word.
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

// List puts ops into the program, one behind the other, and returns the first. The last
// operation must not return: usually it is an exit.
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

// Word returns a zero word in shared memory.
func (p *Program) Word() *uintptr {
	return WordOf(p.Buffer(int(unsafe.Sizeof(uintptr(0)))))
}

// WordAt returns word i of the words that start at first. Words from consecutive calls of
// Word follow each other.
func WordAt(first *uintptr, i int) *uintptr {
	return (*uintptr)(unsafe.Add(unsafe.Pointer(first), uintptr(i)*unsafe.Sizeof(*first)))
}

// Addr returns the address of a word or operation in a Program.
func Addr[T any](v *T) uintptr {
	return uintptr(unsafe.Pointer(v))
}

// AddrOf returns the address of a buffer of a Program, or of memory that Map returned.
func AddrOf(mem []byte) uintptr {
	return uintptr(unsafe.Pointer(unsafe.SliceData(mem)))
}

// WordOf returns the first word of memory that does not move.
func WordOf(mem []byte) *uintptr {
	return (*uintptr)(unsafe.Pointer(unsafe.SliceData(mem)))
}

// Map maps size bytes of a file, or anonymous memory if fd is -1, at an address that fits
// into the words of every ABI. Errors are those of mmap(2).
func Map(fd, size, prot, flags int) ([]byte, error) {
	if fd < 0 {
		flags |= unix.MAP_ANON
	}
	return unix.Mmap(fd, 0, size, prot, flags|LowMemory)
}

// Do executes op in this thread and returns its result. op and its lists must be in a
// Program. All signals are blocked meanwhile. A child inherits the signal mask, so no
// signal handler of the Go runtime runs in a child.
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

// sigprocmask sets the thread's signal mask. The call is a raw one, so the Go scheduler
// does not interfere between it and the next call.
func sigprocmask(set, old *uint64) {
	_, _, errno := syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), unsafe.Sizeof(*set), 0, 0)
	if errno != 0 {
		panic(fmt.Sprintf("rawclone: rt_sigprocmask: %v", errno))
	}
}

// invoke executes op. A child that op creates never returns from invoke.
//
//go:noescape
func invoke(op *Op)
