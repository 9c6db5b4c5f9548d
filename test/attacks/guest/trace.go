// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// traceOptions are ptrace options, most of them for events of calls that create children.
var traceOptions = []int{
	0,
	unix.PTRACE_O_TRACECLONE,
	unix.PTRACE_O_TRACEFORK,
	unix.PTRACE_O_TRACEVFORK,
	unix.PTRACE_O_TRACEVFORKDONE,
	unix.PTRACE_O_TRACEEXEC,
	unix.PTRACE_O_TRACEEXIT,
	unix.PTRACE_O_TRACESECCOMP,
	unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACEVFORKDONE,
	unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACEVFORKDONE |
		unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_TRACEEXIT | unix.PTRACE_O_TRACESECCOMP,
}

// ptrace is ptrace(2).
func ptrace(request, pid int, addr, data uintptr) syscall.Errno {
	_, _, e := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(pid), addr, data, 0, 0)
	return e
}

// tracer traces a process, and those of its children that become tracees, until the process
// exits.
type tracer struct {
	r       *run
	options int

	// resume has the ptrace requests by which a stopped tracee continues.
	resume []int
}

// follow traces the process pid, which waits until follow calls begin. The calling thread is
// the tracer.
func (tr *tracer) follow(pid int, begin func()) error {
	if e := ptrace(unix.PTRACE_SEIZE, pid, 0, uintptr(tr.options|unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_EXITKILL)); e != 0 {
		return fmt.Errorf("PTRACE_SEIZE: %w", e)
	}
	if e := ptrace(unix.PTRACE_INTERRUPT, pid, 0, 0); e != 0 && e != unix.ESRCH {
		return fmt.Errorf("PTRACE_INTERRUPT: %w", e)
	}
	begin()
	state := make(chan string, 1)
	late := time.AfterFunc(patience, func() {
		var all string
		names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		for _, name := range names {
			stat, _ := os.ReadFile(name)
			all += string(stat)
		}
		state <- all
		unix.Kill(pid, unix.SIGKILL)
	})
	defer func() { late.Stop() }()
	var stops int
	var last unix.WaitStatus
	for idle := 0; ; {
		// If a leader exits before its other threads, gVisor notifies the tracer once,
		// too early (exitNotifyLocked). A wait without WNOHANG would then not return.
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD|unix.WNOHANG, nil)
		if got == 0 && err == nil {
			if idle++; idle > 20 {
				unix.Nanosleep(&unix.Timespec{Nsec: 100_000}, nil)
			} else {
				unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
			}
			continue
		}
		idle = 0
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("the tracer's wait4: %w", err)
		case !ws.Stopped():
			tr.r.signaled(ws)
			if got != pid {
				continue
			}
			if !late.Stop() {
				return fmt.Errorf("the tracee has not exited within %v, after %d stops, the last with status %#x: %s", patience, stops, last, <-state)
			}
			return nil
		}
		tr.r.out.Stops++
		stops++
		last = ws
		ptrace(pick(tr.r, tr.resume), got, 0, uintptr(delivered(ws)))
	}
}

// delivered returns the signal that a tracee must receive after a stop; 0 for none.
func delivered(ws unix.WaitStatus) syscall.Signal {
	sig := ws.StopSignal()
	if ws>>16 != 0 || sig&^0x80 == unix.SIGTRAP || sig == unix.SIGSTOP {
		return 0
	}
	return sig
}
