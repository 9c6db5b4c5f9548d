package differential

// Sound because all of this memory is mapped outside of Go's heap: it does not
// move, and is never unmapped.

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"runsc-ext/internal/rawclone"
)

// arena is memory that all processes of a call share, used again for each call.
type arena struct {
	mem  []byte
	used int
}

func newArena(p *rawclone.Program, size int) *arena {
	first := p.Word()
	for i := 8; i < size; i += 8 {
		p.Word()
	}
	return &arena{mem: unsafe.Slice((*byte)(unsafe.Pointer(first)), size)}
}

// reset frees everything, and sets it to 0.
func (a *arena) reset() {
	clear(a.mem)
	a.used = 0
}

// buffer returns size bytes.
func (a *arena) buffer(size int) []byte {
	b := a.mem[a.used : a.used+size : a.used+size]
	a.used += (size + 7) &^ 7
	return b
}

// word returns a word.
func (a *arena) word() *uintptr { return word(a.buffer(8)) }

// path puts a NUL-terminated string into the arena.
func (a *arena) path(name string) uintptr {
	buf := a.buffer(len(name) + 1)
	copy(buf, name)
	return addr(buf)
}

// addr returns the address of memory that does not move.
func addr(mem []byte) uintptr { return uintptr(unsafe.Pointer(&mem[0])) }

// word returns the address of the first word of mem.
func word(mem []byte) *uintptr { return (*uintptr)(unsafe.Pointer(&mem[0])) }

// privatePages maps pages that a process with memory of its own has a copy of.
func privatePages(n int) []byte {
	mem, err := unix.Mmap(-1, 0, n*unix.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|rawclone.LowMemory)
	if err != nil {
		panic(fmt.Sprintf("mmap: %v", err))
	}
	return mem
}

// siginfo is what siginfo_t says of a child.
type siginfo struct {
	signo, errno, code, _ int32
	pid                   int32
	uid                   uint32
	status                int32
}

// siginfoOf returns the siginfo_t in buf.
func siginfoOf(buf []byte) siginfo { return *(*siginfo)(unsafe.Pointer(&buf[0])) }
