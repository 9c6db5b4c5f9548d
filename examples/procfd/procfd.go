// SPDX-License-Identifier: Apache-2.0

// Package procfd starts commands that a program follows by a file descriptor. It installs
// no signal handler, and leaves the program's own children and wait calls alone.
//
// If the kernel has CLONE_FD, a command reaps itself when it exits, and no wait call of the
// program can return it. Otherwise the descriptor is a pidfd, and the command is a zombie
// until Wait is called. If another wait call of the program reaps the command first, Wait
// fails with ECHILD.
package procfd

import (
	"encoding/binary"
	"fmt"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/examples/vfork"
)

// Exit is how a command exited.
type Exit struct {
	Status int            // exit status
	Signal syscall.Signal // the signal that killed the command, or 0
}

// Start searches for a command in PATH, and starts it with the environment env. It returns a
// descriptor that poll(2) reports as readable once the command has exited. The descriptor is
// close-on-exec.
func Start(argv, env []string) (fd int, err error) {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return -1, err
	}
	if haveCloneFD() {
		return startCloneFD(path, argv, env)
	}
	fd = -1
	_, err = syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Env:   env,
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{PidFD: &fd},
	})
	if err == nil && fd < 0 {
		err = fmt.Errorf("starting %s: this kernel has neither CLONE_FD nor pidfds; Linux has had the latter since 5.2", path)
	}
	return fd, err
}

func startCloneFD(path string, argv, env []string) (int, error) {
	const flags = vfork.Flags | linux.CLONE_FD | linux.CLONE_AUTOREAP
	var pin runtime.Pinner
	defer pin.Unpin()
	fd := new(int32)
	args := vfork.Addr(&pin, &linux.Clone4FDArgs{
		Clonefd:      uint64(vfork.Addr(&pin, fd)),
		ClonefdFlags: linux.CLONEFD_CLOEXEC,
	})
	_, execErrno, err := vfork.Start(linux.SYS_CLONE4, [6]uintptr{0, flags, linux.SizeOfClone4FDArgs, args}, path, argv, env)
	if err != nil {
		return -1, fmt.Errorf("creating a child for %s: %w", path, err)
	}
	if execErrno != 0 {
		unix.Close(int(*fd))
		return -1, fmt.Errorf("execve %s: %w", path, execErrno)
	}
	return int(*fd), nil
}

// Wait waits until the command of a descriptor exits, and returns how it exited. A second
// call for the descriptor fails. The descriptor stays open.
func Wait(fd int) (Exit, error) {
	if !haveCloneFD() {
		return waitPIDFD(fd)
	}
	var buf [linux.SizeOfClonefdInfo]byte
	n, err := retry(func() (int, error) { return unix.Read(fd, buf[:]) })
	if err != nil {
		return Exit{}, fmt.Errorf("reading descriptor %d of a command: %w", fd, err)
	}
	if n == 0 {
		return Exit{}, fmt.Errorf("descriptor %d of a command has been read before", fd)
	}
	var info linux.ClonefdInfo
	if _, err := binary.Decode(buf[:], binary.NativeEndian, &info); err != nil {
		return Exit{}, err
	}
	return exitOf(info.Code, info.Status), nil
}

func waitPIDFD(fd int) (Exit, error) {
	var info siginfo
	_, err := retry(func() (int, error) { return 0, waitid(fd, &info) })
	if err != nil {
		return Exit{}, fmt.Errorf("waiting for the command of descriptor %d: %w", fd, err)
	}
	return exitOf(info.code, info.status), nil
}

// exitOf returns the Exit for si_code and si_status of SIGCHLD.
func exitOf(code, status int32) Exit {
	const cldExited = 1
	if code == cldExited {
		return Exit{Status: int(status)}
	}
	return Exit{Signal: syscall.Signal(status)}
}

// retry calls f again while a signal interrupts it.
func retry(f func() (int, error)) (int, error) {
	for {
		if n, err := f(); err != unix.EINTR {
			return n, err
		}
	}
}

// haveCloneFD returns whether the kernel has CLONE_FD. Released kernels gave clone4's number
// to userfaultfd(2). The arguments are invalid for both calls, and only a kernel with CLONE_FD
// returns EFAULT: see clone4_fd_available in include/linux/clone4.h.
var haveCloneFD = sync.OnceValue(func() bool {
	const bad = ^uintptr(0)
	_, _, errno := unix.RawSyscall6(linux.SYS_CLONE4, bad, bad, linux.SizeOfClone4FDArgs, bad, 0, 0)
	return errno == unix.EFAULT
})
