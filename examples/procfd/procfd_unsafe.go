// SPDX-License-Identifier: Apache-2.0

package procfd

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// siginfo is the kernel's siginfo_t for a child, and has the same size. The type in
// golang.org/x/sys/unix does not export si_status.
type siginfo struct {
	signo, errno, code, _ int32
	pid, uid, status      int32
	_                     [100]byte
}

// waitid waits for the child of a pidfd. The conversion is sound, because info has the size
// that the kernel writes.
func waitid(pidfd int, info *siginfo) error {
	_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_PIDFD, uintptr(pidfd), uintptr(unsafe.Pointer(info)), unix.WEXITED, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
