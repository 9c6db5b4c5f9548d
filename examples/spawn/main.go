// SPDX-License-Identifier: Apache-2.0

// Spawn runs a command in a child made by clone4, or by clone(2) where the
// kernel has no clone4, and says by which.
//
//	spawn CMD [ARG...]
//
// Its exit status is the command's, or 128 plus the signal that ended it. As for
// env(1), 125 is a failure of spawn itself, 126 a command that cannot be run, and
// 127 one that is not there.
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

// Exit statuses that are not the command's.
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

// spawn runs a command and returns the exit status that tells of it.
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
		return exitCannotRun, fmt.Errorf("%w; to mean that one, write ./%s", err, argv[0])
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
		return exitFailed, fmt.Errorf("making a child for %s: %w%s", path, err, hint(err))
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

// hint says what an error of clone4 or execve mostly means, where its name does
// not.
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

// wait waits for a child's end.
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
// Just trying it is no test: released kernels gave its number to userfaultfd(2),
// which can succeed with clone4's arguments. This call can't, here or there.
// clone4 looks at the args before the flags, and says EFAULT; userfaultfd takes
// flags only, has none of these, and never says EFAULT.
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
	// The args are all 0, so their size could be, too. A stack is not needed: the
	// child does not use the one it shares.
	var pin runtime.Pinner
	defer pin.Unpin()
	args := vfork.Addr(&pin, new(linux.Clone4Args))
	return vfork.Start(linux.SYS_CLONE4, [6]uintptr{uintptr(flags >> 32), uintptr(flags & 0xffffffff), linux.SizeOfClone4Args, args}, path, argv, env)
}
