// SPDX-License-Identifier: Apache-2.0

package storm

// Sound because all of this memory is mapped outside of Go's heap: it does not
// move, and is never unmapped.

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"runsc-ext/internal/rawclone"
)

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

// word returns the address of the first word of mem.
func word(mem []byte) *uintptr { return (*uintptr)(unsafe.Pointer(&mem[0])) }
