// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"encoding/json"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	extlinux "runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

// GuestCommand is the only argument of runsc-ext as the guest of a probe.
const GuestCommand = "probe-guest"

// childStatus is the exit status of the child that the guest creates.
const childStatus = 42

// outcome is the outcome of calling clone4 through one ABI.
type outcome struct {
	// PID is the child's ID, or 0 if the call failed.
	PID uintptr `json:"pid,omitempty"`

	// Errno is the error of the call, or 0.
	Errno syscall.Errno `json:"errno,omitempty"`

	// Ran is set if the child stored a value in shared memory.
	Ran bool `json:"ran"`

	// Reaped is set if a wait for the child returned its exit status.
	Reaped bool `json:"reaped"`

	// FD is set if CLONE_FD and CLONE_AUTOREAP work: the exit status of a child was
	// read from its descriptor, and no wait call found the child.
	FD bool `json:"fd"`

	// Signal is the signal that killed the process that made the call, or 0.
	Signal syscall.Signal `json:"signal,omitempty"`
}

// started is the first line that the guest writes.
const started = "started\n"

// Guest calls clone4 through every ABI. It writes started, and then the outcomes in the order
// of abis, each as soon as it is known.
func Guest() {
	os.Stdout.WriteString(started)
	e := json.NewEncoder(os.Stdout)
	for _, abi := range abis {
		if err := e.Encode(try(abi)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// try creates a process that calls clone4 through abi, and waits for it. The instruction may
// kill the process.
func try(abi abi) outcome {
	var (
		p      = rawclone.NewProgram()
		ran    = p.Word()
		status = p.Word()
	)
	child := p.List(
		rawclone.Op{Trap: rawclone.TrapStore, Args: [6]uintptr{rawclone.Addr(ran), 1}},
		rawclone.Op{Trap: unix.SYS_EXIT_GROUP, Args: [6]uintptr{childStatus}},
	)
	// An exit signal and a struct of size 0 make a call like fork(2).
	clone4 := rawclone.Op{Trap: abi.number, Entry: abi.entry, Args: [6]uintptr{0, uintptr(unix.SIGCHLD)}, Child: child}
	// A second call uses the flags of LevelFD.
	fd, info, args := p.Word(), words(p, extlinux.SizeOfClonefdInfo), words(p, extlinux.SizeOfClone4FDArgs)
	size := uintptr(extlinux.SizeOfClone4FDArgs)
	if abi.compat {
		size = extlinux.SizeOfCompatClone4FDArgs
		*rawclone.WordAt(args, 2) = rawclone.Addr(fd) << 32 // the sixth field of 4 bytes
	} else {
		*rawclone.WordAt(args, 5) = rawclone.Addr(fd)
	}
	clone4FD := clone4
	clone4FD.Args = [6]uintptr{0, extlinux.CLONE_FD | extlinux.CLONE_AUTOREAP, size, rawclone.Addr(args)}
	caller := p.List(
		clone4,
		rawclone.Op{Trap: unix.SYS_WAIT4, Deref: 1, Args: [6]uintptr{0, rawclone.Addr(status), unix.WALL}},
		clone4FD,
		rawclone.Sys(rawclone.TrapLoad, fd),
		rawclone.Op{Trap: unix.SYS_READ, Deref: 1, Args: [6]uintptr{0, rawclone.Addr(info), extlinux.SizeOfClonefdInfo}},
		rawclone.Sys(unix.SYS_WAIT4, -1, 0, unix.WALL),
		rawclone.Op{Trap: unix.SYS_EXIT_GROUP},
	)
	rawclone.At(caller, 1).Args[0] = rawclone.Addr(&caller.Ret)
	rawclone.At(caller, 4).Args[0] = rawclone.Addr(&rawclone.At(caller, 3).Ret)

	fork := p.List(rawclone.Op{Trap: unix.SYS_CLONE, Args: [6]uintptr{uintptr(unix.SIGCHLD)}, Child: caller})
	callerPID, errno := rawclone.Do(fork)
	if errno != 0 {
		return outcome{Errno: errno}
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(int(callerPID), &ws, 0, nil); err != nil {
		return outcome{Errno: err.(syscall.Errno)}
	}
	pid, waited := caller.Ret, rawclone.At(caller, 1).Ret

	var o outcome
	if ws.Signaled() {
		o.Signal = ws.Signal()
	} else if e := -int(pid); e > 0 && e < 4096 {
		o.Errno = syscall.Errno(e)
	} else {
		o.PID = pid
		o.Ran = *ran == 1
		read, none := rawclone.At(caller, 4), rawclone.At(caller, 5)
		o.FD = read.Ret == extlinux.SizeOfClonefdInfo && *info>>32 == childStatus && none.Errno() == unix.ECHILD
		o.Reaped = waited == pid && unix.WaitStatus(*status).ExitStatus() == childStatus
	}
	return o
}

// words returns the first of consecutive words with room for size bytes.
func words(p *rawclone.Program, size int) *uintptr {
	first := p.Word()
	for i := 8; i < size; i += 8 {
		p.Word()
	}
	return first
}
