// SPDX-License-Identifier: Apache-2.0

package syscalls

// The conversions here are sound: all this memory is mapped outside of Go's heap, so it does not
// move, and it stays mapped until the end of the test.

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// unmap unmaps part of the memory from kit.Memory.
func unmap(t *testing.T, mem []byte) {
	t.Helper()
	if err := unix.MunmapPtr(unsafe.Pointer(&mem[0]), uintptr(len(mem))); err != nil {
		t.Fatal(err)
	}
}

// wordAt maps a page of shared memory at an address and returns its first word.
func wordAt(t *testing.T, where uintptr) *uintptr {
	t.Helper()
	size := uintptr(unix.Getpagesize())
	at := *(*unsafe.Pointer)(unsafe.Pointer(&where))
	mem, err := unix.MmapPtr(-1, 0, at, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON|unix.MAP_FIXED_NOREPLACE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.MunmapPtr(mem, size) })
	return (*uintptr)(mem)
}

// nodename returns the host name in the result of uname(2) in buf.
func nodename(buf []byte) string {
	return unix.ByteSliceToString((*unix.Utsname)(unsafe.Pointer(&buf[0])).Nodename[:])
}

// sizeOfUtsname is the size of the result of uname(2).
const sizeOfUtsname = int(unsafe.Sizeof(unix.Utsname{}))
