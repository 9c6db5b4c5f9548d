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
	"syscall"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
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
// calls, one after the other, and never returns: the last must end it.
//
// There is no other way for a child that shares its parent's memory. It is on
// the parent's stack and has its thread pointer, but Go's scheduler and garbage
// collector know nothing of it. In assembly it needs none of these.
func vfork(calls *call) uintptr

// start starts a program in a child and returns the child's ID. If execErrno is
// set, the child could not execute the program, and has ended.
//
// Unlike os/exec, it does not lower the soft RLIMIT_NOFILE again, which package os
// raises as a program starts.
func start(useClone4 bool, path string, argv, env []string) (pid int, execErrno unix.Errno, err error) {
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

	// CLONE_VM: no memory is copied, however much there is. CLONE_VFORK: this
	// thread sleeps until the child has executed the program or has ended.
	const flags = linux.CLONE_VM | linux.CLONE_VFORK | uint64(unix.SIGCHLD)
	clone := call{trap: unix.SYS_CLONE, args: [6]uintptr{uintptr(flags)}}
	if useClone4 {
		// The args are all 0, so their size could be, too. A stack is not
		// needed: the child does not use the one it shares.
		args := new(linux.Clone4Args)
		clone = call{trap: linux.SYS_CLONE4, args: [6]uintptr{uintptr(flags >> 32), uintptr(flags & 0xffffffff), linux.SizeOfClone4Args, addr(&pin, args)}}
	}

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

	calls := []call{clone}
	sigDfl := addr(&pin, new(sigaction))
	for sig := uintptr(1); sig <= 8*sigsetSize; sig++ {
		if handled(sig) {
			calls = append(calls, call{trap: unix.SYS_RT_SIGACTION, args: [6]uintptr{sig, sigDfl, 0, sigsetSize}})
		}
	}
	calls = append(calls,
		call{trap: unix.SYS_RT_SIGPROCMASK, args: [6]uintptr{unix.SIG_SETMASK, addr(&pin, &mask), 0, sigsetSize}},
		call{trap: unix.SYS_EXECVE, args: [6]uintptr{addr(&pin, pathp), addr(&pin, &argvp[0]), addr(&pin, &envp[0])}},
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
