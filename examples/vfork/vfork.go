// SPDX-License-Identifier: Apache-2.0

// Package vfork starts programs in children that share the memory of their parent until
// then, by any system call that creates such a child.
package vfork

import (
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// exitNotFound is the exit status of a child that could not execute its program.
const exitNotFound = 127

// Flags are those that the creating call must have. CLONE_VM: no memory is copied,
// however much there is. CLONE_VFORK: the calling thread sleeps until the child has
// executed the program or has exited.
const Flags = unix.CLONE_VM | unix.CLONE_VFORK

// call is a system call to be made by vfork.
type call struct {
	trap uintptr
	args [6]uintptr

	// result is what the child got: -errno for an error, as it shares this
	// memory. It stays 0 if the child did not come back from the call.
	result uintptr
}

// vfork makes the first of the calls, which must be a clone with CLONE_VM and
// CLONE_VFORK, and returns its result in the parent. The child makes the other
// calls, one after the other, and never returns: the last must exit.
//
// There is no other way for a child that shares its parent's memory. It is on
// the parent's stack and has its thread pointer, but Go's scheduler and garbage
// collector know nothing of it. In assembly it needs none of these.
func vfork(calls *call) uintptr

// Start starts a program in a child and returns the child's ID. The child is created by a
// system call with the flags Flags, given by its number and arguments. If execErrno is
// set, the child could not execute the program, and has exited.
//
// Unlike os/exec, Start does not lower the soft RLIMIT_NOFILE again, which package os
// raises as a program starts.
func Start(trap uintptr, args [6]uintptr, path string, argv, env []string) (pid int, execErrno unix.Errno, err error) {
	pathp, err := unix.BytePtrFromString(path)
	if err != nil {
		return 0, 0, err
	}
	argvp, err := syscall.SlicePtrFromStrings(argv)
	if err != nil {
		return 0, 0, err
	}
	envp, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return 0, 0, err
	}
	var pin runtime.Pinner
	defer pin.Unpin()

	// Others keep ForkLock while a file descriptor of theirs may still be
	// inherited by mistake.
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()

	// A signal must not run a handler of Go's in the child. So all are blocked
	// until the child has no handlers left. The mask is this thread's.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, mask unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &mask); err != nil {
		return 0, 0, err
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &mask, nil)

	calls := []call{{trap: trap, args: args}}
	sigDfl := Addr(&pin, new(sigaction))
	for sig := uintptr(1); sig <= 8*sigsetSize; sig++ {
		if handled(sig) {
			calls = append(calls, call{trap: unix.SYS_RT_SIGACTION, args: [6]uintptr{sig, sigDfl, 0, sigsetSize}})
		}
	}
	calls = append(calls,
		call{trap: unix.SYS_RT_SIGPROCMASK, args: [6]uintptr{unix.SIG_SETMASK, Addr(&pin, &mask), 0, sigsetSize}},
		call{trap: unix.SYS_EXECVE, args: [6]uintptr{Addr(&pin, pathp), Addr(&pin, &argvp[0]), Addr(&pin, &envp[0])}},
		call{trap: unix.SYS_EXIT, args: [6]uintptr{exitNotFound}},
	)
	pin.Pin(&calls[0])
	result := int(vfork(&calls[0]))
	if result < 0 {
		return 0, 0, unix.Errno(-result)
	}
	execve := calls[len(calls)-2]
	return result, unix.Errno(-execve.result), nil
}
