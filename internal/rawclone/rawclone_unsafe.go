package rawclone

// The conversions here are sound because every pointer that is kept as a number
// points into a Program, which is mapped outside of Go's heap, page-aligned, and
// never unmapped: nothing moves or frees it. Op has no Go pointer in it that the
// garbage collector would have to see, as Child points into a Program too.

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Program is a piece of shared memory for operations and for words that parent
// and child both see. It is never freed: a child may still run in it.
type Program struct {
	all []byte
	mem []byte // the rest of it that is free
}

// NewProgram returns a Program with room for some dozens of operations.
func NewProgram() *Program {
	mem, err := unix.Mmap(-1, 0, 128<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON|LowMemory)
	if err != nil {
		panic(fmt.Sprintf("rawclone: mmap: %v", err))
	}
	return &Program{mem, mem}
}

// Reset makes all of the memory free again, and 0. No child may still run in it.
func (p *Program) Reset() {
	clear(p.all)
	p.mem = p.all
}

// List puts ops into the program, one behind the other, and returns the first.
// The last must not come back: an exit, usually, or an execve and an exit.
func (p *Program) List(ops ...Op) *Op {
	size := int(unsafe.Sizeof(Op{}))
	if len(ops)*size > len(p.mem) {
		panic(fmt.Sprintf("rawclone: no room for %d operations", len(ops)))
	}
	list := unsafe.Slice((*Op)(unsafe.Pointer(&p.mem[0])), len(ops))
	copy(list, ops)
	p.mem = p.mem[len(ops)*size:]
	return &list[0]
}

// At returns operation i of the list that starts at first.
func At(first *Op, i int) *Op {
	return (*Op)(unsafe.Add(unsafe.Pointer(first), uintptr(i)*unsafe.Sizeof(*first)))
}

// Word returns a word in shared memory, 0 at first.
func (p *Program) Word() *uintptr {
	w := (*uintptr)(unsafe.Pointer(&p.mem[0]))
	p.mem = p.mem[unsafe.Sizeof(*w):]
	return w
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
