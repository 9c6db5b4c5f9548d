// SPDX-License-Identifier: Apache-2.0

// Spawn runs a command in a child that it creates with clone4, or with clone(2) if the
// kernel does not have clone4. It prints which call it uses.
//
//	spawn CMD [ARG...]
//
// The exit status is that of the command, or 128 plus the signal that killed the command.
// As for env(1), 125 is a failure of spawn itself, 126 a command that cannot be executed,
// and 127 a command that does not exist.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/examples/vfork"
)

// Exit statuses of spawn itself.
const (
	exitFailed    = 125
	exitCannotRun = 126
	exitNotFound  = 127
)

func main() {
	status, err := spawn(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "spawn: %v\n", err)
	}
	os.Exit(status)
}

// spawn runs a command and returns the exit status for main.
func spawn(argv []string) (int, error) {
	if len(argv) == 0 {
		return exitFailed, errors.New("no command; usage: spawn CMD [ARG...]")
	}
	path, err := exec.LookPath(argv[0])
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return exitNotFound, fmt.Errorf("%w; install it, or give its path", err)
	case errors.Is(err, fs.ErrNotExist):
		return exitNotFound, err
	case errors.Is(err, exec.ErrDot):
		return exitCannotRun, fmt.Errorf("%w; to run the file in this directory, write ./%s", err, argv[0])
	case errors.Is(err, fs.ErrPermission):
		return exitCannotRun, fmt.Errorf("%w; to make it executable: chmod +x", err)
	case err != nil:
		return exitCannotRun, err
	}
	useClone4 := haveClone4()
	if useClone4 {
		fmt.Fprintln(os.Stderr, "spawn: using clone4")
	} else {
		fmt.Fprintln(os.Stderr, "spawn: using clone, as this kernel has no clone4")
	}

	pid, execErrno, err := start(useClone4, path, argv, os.Environ())
	if err != nil {
		return exitFailed, fmt.Errorf("creating a child for %s: %w%s", path, err, hint(err))
	}
	status, err := wait(pid)
	switch {
	case err != nil:
		return exitFailed, fmt.Errorf("waiting for %s, process %d: %w", path, pid, err)
	case execErrno != 0:
		return exitCannotRun, fmt.Errorf("execve %s: %w%s", path, execErrno, hint(execErrno))
	case status.Signaled():
		return 128 + int(status.Signal()), nil
	default:
		return status.ExitStatus(), nil
	}
}

// hint returns the usual cause of an error of clone4 or execve, if its name does not
// tell.
func hint(err error) string {
	switch err {
	case unix.EAGAIN:
		return "; too many processes: see ulimit -u, and pids.max of the cgroup"
	case unix.ENOENT:
		return "; the file is there, its interpreter is not: see its #! line, or ldd"
	case unix.ENOEXEC:
		return "; the file must begin with #!, or be a program for " + runtime.GOARCH
	default:
		return ""
	}
}

// wait waits until a child exits.
func wait(pid int) (unix.WaitStatus, error) {
	for {
		var status unix.WaitStatus
		if _, err := unix.Wait4(pid, &status, 0, nil); err != unix.EINTR {
			return status, err
		}
	}
}

// haveClone4 returns whether the kernel has clone4.
//
// Released kernels gave clone4's number to userfaultfd(2), which can succeed with the
// arguments of a normal call. The arguments here are invalid for both calls. clone4
// reads the struct before it checks the flags, so it returns EFAULT. userfaultfd has
// only flags, which are invalid here, and never returns EFAULT.
func haveClone4() bool {
	const bad = ^uintptr(0)
	_, _, errno := unix.RawSyscall6(linux.SYS_CLONE4, bad, bad, 8, bad, 0, 0)
	return errno == unix.EFAULT
}

// start starts a program in a child and returns the child's ID. If execErrno is set, the
// child could not execute the program, and has exited.
func start(useClone4 bool, path string, argv, env []string) (pid int, execErrno unix.Errno, err error) {
	const flags = vfork.Flags | uint64(unix.SIGCHLD)
	if !useClone4 {
		return vfork.Start(unix.SYS_CLONE, [6]uintptr{uintptr(flags)}, path, argv, env)
	}
	// All fields are 0, so the size could be 0 too. The child needs no stack of its
	// own, because it does not use the parent's.
	var pin runtime.Pinner
	defer pin.Unpin()
	args := vfork.Addr(&pin, new(linux.Clone4Args))
	return vfork.Start(linux.SYS_CLONE4, [6]uintptr{uintptr(flags >> 32), uintptr(flags & 0xffffffff), linux.SizeOfClone4Args, args}, path, argv, env)
}
