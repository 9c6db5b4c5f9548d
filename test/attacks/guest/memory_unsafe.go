// SPDX-License-Identifier: Apache-2.0

package guest

// Sound because all of this memory is mapped outside of Go's heap: it does not move,
// and is never unmapped while something points to it.

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"runsc-ext/internal/rawclone"
)

// memory is what an attack and its processes share.
type memory struct {
	p *rawclone.Program

	// code is for machine code: writable, and shared by all processes.
	code []byte

	// data is shared by all processes, scratch is private to each.
	data    []byte
	scratch []byte
}

func newMemory() *memory {
	const size = 64 << 10
	return &memory{
		p:       rawclone.NewProgram(),
		code:    mapped(4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_SHARED),
		data:    mapped(size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED),
		scratch: mapped(size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE),
	}
}

// mapped returns memory whose addresses fit into the words of all ABIs.
func mapped(size, prot, flags int) []byte {
	mem, err := unix.Mmap(-1, 0, size, prot, flags|unix.MAP_ANON|rawclone.LowMemory)
	if err != nil {
		panic(fmt.Sprintf("mmap: %v", err))
	}
	return mem
}

// addr returns the address of memory that does not move.
func addr(mem []byte) uintptr { return uintptr(unsafe.Pointer(&mem[0])) }

// word returns word i of mem.
func word(mem []byte, i int) *uintptr { return (*uintptr)(unsafe.Pointer(&mem[8*i])) }
