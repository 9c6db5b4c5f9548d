// SPDX-License-Identifier: Apache-2.0

package vfork

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigsetSize is the size of the kernel's sigset_t.
const sigsetSize = 8

// sigaction is the kernel's struct sigaction, of which only the handler matters
// here: 0 is SIG_DFL, 1 is SIG_IGN.
type sigaction struct {
	handler uintptr
	_       [3]uintptr
}

// handled returns whether a signal has a handler. A child keeps its parent's handlers until
// it executes a program.
func handled(sig uintptr) bool {
	var old sigaction
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&old)), sigsetSize, 0, 0)
	return errno == 0 && old.handler > 1
}

// Addr returns the address of *v as a number. It pins *v, because the garbage collector does
// not see that the number is an address.
func Addr[T any](pin *runtime.Pinner, v *T) uintptr {
	pin.Pin(v)
	return uintptr(unsafe.Pointer(v))
}
