// SPDX-License-Identifier: Apache-2.0

// Package vfork starts programs in children that share the memory of their parent until they
// execute the program. It can use any system call that creates such a child.
package vfork

import (
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// exitNotFound is the exit status of a child that could not execute its program.
const exitNotFound = 127

// Flags are the flags that the call must have. With CLONE_VM, the kernel copies no memory,
// however much the parent has. With CLONE_VFORK, the calling thread sleeps until the child
// has executed the program or has exited.
const Flags = unix.CLONE_VM | unix.CLONE_VFORK

// call is a system call for vfork to make.
type call struct {
	trap uintptr
	args [6]uintptr

	// result is the result of the child's call, or -errno. The parent sees it
	// because the child shares this memory. It stays 0 if the call does not return.
	result uintptr
}

// vfork makes the first of the calls, which must be a clone with CLONE_VM and
// CLONE_VFORK, and returns its result in the parent. The child makes the other
// calls, one after the other, and never returns: the last must exit.
//
// Go code cannot run in a child that shares its parent's memory. The child has the stack and
// the thread pointer of the parent, and Go's scheduler and garbage collector do not know the
// child. The assembly code of vfork uses none of these.
func vfork(calls *call) uintptr

// Start starts a program in a child and returns the child's ID. The child is created by a
// system call with the flags Flags, given by its number and arguments. If execErrno is
// set, the child could not execute the program, and has exited.
//
// Package os raises the soft RLIMIT_NOFILE of a Go program. Unlike os/exec, Start does not
// lower the limit again for the child.
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

	// Other code holds ForkLock while it has descriptors that are not close-on-exec
	// yet, and that a child must not inherit.
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()

	// No signal handler of the Go runtime may run in the child. So all signals are
	// blocked in this thread, and the child unblocks them once it has no handlers left.
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
