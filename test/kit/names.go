// SPDX-License-Identifier: Apache-2.0

package kit

import (
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
)

// Sets of flags that many tests use.
const (
	SIGCHLD = uint64(unix.SIGCHLD) // as an exit signal

	ThreadFlags    = linux.CLONE_VM | linux.CLONE_FS | linux.CLONE_FILES | linux.CLONE_SIGHAND | linux.CLONE_THREAD | linux.CLONE_SYSVSEM
	NamespaceFlags = linux.CLONE_NEWNS | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC | linux.CLONE_NEWUSER | linux.CLONE_NEWPID | linux.CLONE_NEWNET

	// RefusedFlags are the flags that clone(2) accepts and clone4 refuses.
	RefusedFlags = linux.CLONE_PID | linux.CLONE_DETACHED | linux.CLONE_STOPPED
)

// Values of si_code for SIGCHLD, and of linux.ClonefdInfo.Code.
const (
	CLD_EXITED = 1
	CLD_KILLED = 2
)

var flagNames = map[uint64]string{
	linux.CLONE_VM:             "VM",
	linux.CLONE_FS:             "FS",
	linux.CLONE_FILES:          "FILES",
	linux.CLONE_SIGHAND:        "SIGHAND",
	linux.CLONE_PID:            "PID",
	linux.CLONE_PTRACE:         "PTRACE",
	linux.CLONE_VFORK:          "VFORK",
	linux.CLONE_PARENT:         "PARENT",
	linux.CLONE_THREAD:         "THREAD",
	linux.CLONE_NEWNS:          "NEWNS",
	linux.CLONE_SYSVSEM:        "SYSVSEM",
	linux.CLONE_SETTLS:         "SETTLS",
	linux.CLONE_PARENT_SETTID:  "PARENT_SETTID",
	linux.CLONE_CHILD_CLEARTID: "CHILD_CLEARTID",
	linux.CLONE_DETACHED:       "DETACHED",
	linux.CLONE_UNTRACED:       "UNTRACED",
	linux.CLONE_CHILD_SETTID:   "CHILD_SETTID",
	linux.CLONE_STOPPED:        "STOPPED",
	linux.CLONE_NEWUTS:         "NEWUTS",
	linux.CLONE_NEWIPC:         "NEWIPC",
	linux.CLONE_NEWUSER:        "NEWUSER",
	linux.CLONE_NEWPID:         "NEWPID",
	linux.CLONE_NEWNET:         "NEWNET",
	linux.CLONE_IO:             "IO",
}

// fdFlagNames are the names of bits that have another meaning at level fd.
var fdFlagNames = map[uint64]string{
	linux.CLONE_AUTOREAP: "AUTOREAP",
	linux.CLONE_FD:       "FD",
}

// FlagNames returns the names of flags without CLONE_, joined by "|". It omits the exit
// signal. A bit without a name is 2^n, and no flag at all is "0".
func FlagNames(flags uint64) string {
	var names []string
	for bit := 8; bit < 64; bit++ {
		switch f := uint64(1) << bit; {
		case flags&f == 0:
		case Level() == "fd" && fdFlagNames[f] != "":
			names = append(names, fdFlagNames[f])
		case flagNames[f] != "":
			names = append(names, flagNames[f])
		default:
			names = append(names, fmt.Sprintf("2^%d", bit))
		}
	}
	if names == nil {
		return "0"
	}
	return strings.Join(names, "|")
}

// Flags returns the names of flags and of the exit signal: "VM|VFORK|SIGCHLD".
func Flags(flags uint64) string {
	signal := SignalName(syscall.Signal(flags & linux.CSIGNAL))
	switch names := FlagNames(flags); {
	case flags&linux.CSIGNAL == 0:
		return names
	case names == "0":
		return signal
	default:
		return names + "|" + signal
	}
}

// FDFlags returns the names of clonefd_flags.
func FDFlags(flags uint32) string {
	var names []string
	for bit := range 32 {
		switch f := uint32(1) << bit; {
		case flags&f == 0:
		case f == linux.CLONEFD_CLOEXEC:
			names = append(names, "CLOEXEC")
		case f == linux.CLONEFD_NONBLOCK:
			names = append(names, "NONBLOCK")
		case f == linux.CLONEFD_KILL_ON_CLOSE:
			names = append(names, "KILL_ON_CLOSE")
		case f == unix.O_CLOEXEC:
			names = append(names, "O_CLOEXEC")
		case f == unix.O_NONBLOCK:
			names = append(names, "O_NONBLOCK")
		default:
			names = append(names, fmt.Sprintf("2^%d", bit))
		}
	}
	if names == nil {
		return "0"
	}
	return strings.Join(names, "|")
}

// ErrnoName returns the name of an errno, and "success" for 0.
func ErrnoName(e syscall.Errno) string {
	switch name := unix.ErrnoName(e); {
	case e == 0:
		return "success"
	case name != "":
		return name
	}
	return fmt.Sprintf("errno %d", uintptr(e))
}

// SignalName returns the name of a signal, or "signal n" if it has no name.
func SignalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", int(s))
}

var eventNames = map[int]string{
	unix.PTRACE_EVENT_FORK:       "PTRACE_EVENT_FORK",
	unix.PTRACE_EVENT_VFORK:      "PTRACE_EVENT_VFORK",
	unix.PTRACE_EVENT_CLONE:      "PTRACE_EVENT_CLONE",
	unix.PTRACE_EVENT_EXEC:       "PTRACE_EVENT_EXEC",
	unix.PTRACE_EVENT_VFORK_DONE: "PTRACE_EVENT_VFORK_DONE",
	unix.PTRACE_EVENT_EXIT:       "PTRACE_EVENT_EXIT",
	unix.PTRACE_EVENT_SECCOMP:    "PTRACE_EVENT_SECCOMP",
	unix.PTRACE_EVENT_STOP:       "PTRACE_EVENT_STOP",
}

// SyscallStop is what Status returns for a syscall stop under PTRACE_O_TRACESYSGOOD.
const SyscallStop = "syscall stop"

// Status describes a wait status: "exit status 7", "SIGKILL", "stopped by SIGSTOP",
// "continued", SyscallStop, or the name of a ptrace event.
func Status[T ~uint32 | ~uintptr](status T) string {
	switch ws := unix.WaitStatus(status); {
	case ws.Exited():
		return fmt.Sprintf("exit status %d", ws.ExitStatus())
	case ws.Signaled():
		return SignalName(ws.Signal())
	case ws.Continued():
		return "continued"
	case ws.Stopped() && ws.StopSignal() == unix.SIGTRAP|0x80:
		return SyscallStop
	case ws.Stopped() && ws.StopSignal() == unix.SIGTRAP && eventNames[int(ws>>16)] != "":
		return eventNames[int(ws>>16)]
	case ws.Stopped() && ws>>16 == 0:
		return "stopped by " + SignalName(ws.StopSignal())
	default:
		return fmt.Sprintf("wait status %#x", uint64(status))
	}
}

var requestNames = map[int]string{
	unix.PTRACE_TRACEME:     "PTRACE_TRACEME",
	unix.PTRACE_PEEKUSR:     "PTRACE_PEEKUSER",
	unix.PTRACE_POKEDATA:    "PTRACE_POKEDATA",
	unix.PTRACE_POKEUSR:     "PTRACE_POKEUSER",
	unix.PTRACE_CONT:        "PTRACE_CONT",
	unix.PTRACE_SINGLESTEP:  "PTRACE_SINGLESTEP",
	unix.PTRACE_ATTACH:      "PTRACE_ATTACH",
	unix.PTRACE_DETACH:      "PTRACE_DETACH",
	unix.PTRACE_SYSCALL:     "PTRACE_SYSCALL",
	unix.PTRACE_SYSEMU:      "PTRACE_SYSEMU",
	unix.PTRACE_SETOPTIONS:  "PTRACE_SETOPTIONS",
	unix.PTRACE_GETEVENTMSG: "PTRACE_GETEVENTMSG",
	unix.PTRACE_GETREGSET:   "PTRACE_GETREGSET",
	unix.PTRACE_SETREGSET:   "PTRACE_SETREGSET",
	unix.PTRACE_SEIZE:       "PTRACE_SEIZE",
	unix.PTRACE_INTERRUPT:   "PTRACE_INTERRUPT",
}

// RequestName returns the name of a request of ptrace(2).
func RequestName(request int) string {
	if name := requestNames[request]; name != "" {
		return name
	}
	return fmt.Sprintf("ptrace request %#x", request)
}
