// SPDX-License-Identifier: Apache-2.0

package main_test

// The conversion here is sound: the kernel reads the filter only during the call, and
// runtime.KeepAlive keeps the filter alive until then.

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// refuseUserNamespaces installs a seccomp filter that refuses CLONE_NEWUSER in clone(2), as
// container engines do. The filter is for this thread and the programs that it executes.
func refuseUserNamespaces() error {
	const (
		nr         = 0  // offset in struct seccomp_data
		firstArg   = 16 // offset of the argument's lower half
		retAllow   = 0x7fff0000
		retErrno   = 0x00050000
		load       = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		ifEqual    = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ifSet      = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		ret        = unix.BPF_RET | unix.BPF_K
		modeFilter = 2
	)
	filter := []unix.SockFilter{
		{Code: load, K: nr},
		{Code: ifEqual, K: unix.SYS_CLONE, Jf: 3},
		{Code: load, K: firstArg},
		{Code: ifSet, K: unix.CLONE_NEWUSER, Jf: 1},
		{Code: ret, K: retErrno | uint32(unix.EPERM)},
		{Code: ret, K: retAllow},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	err := unix.Prctl(unix.PR_SET_SECCOMP, modeFilter, uintptr(unsafe.Pointer(&prog)), 0, 0)
	runtime.KeepAlive(&prog)
	return err
}
