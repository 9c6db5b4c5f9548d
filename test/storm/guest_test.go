// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// outcome is the answer of the guest to a command.
type outcome struct {
	Calls    int            // number of clone4 calls that returned
	Children int            // number of these calls that created a child
	Errors   map[string]int // number of the other calls, by error name
	Execs    int            // number of successful execve calls
	Waves    int
	Ends     map[string]int // number of leaders of waves, by exit status
	Signals  int            // number of signals that the guest sent
	Killed   int            // number of processes that remained after tidy waves and were killed
	Late     []string       // tasks of the first tidy wave after which tasks remained: see tasks
	Seconds  float64
	Error    string   // why the command failed; empty if it succeeded
	Left     []string // processes that exist after the command: see others
}

const (
	// tidyTime and wildTime are the time limits of a wave, after which the guest kills
	// the wave. A tidy wave takes a fraction of its limit. A wild wave would take longer
	// than its limit.
	tidyTime = 10 * time.Second
	wildTime = 300 * time.Millisecond

	// afterTime is the time limit of a wild wave once its leader has exited.
	afterTime = 2 * time.Millisecond

	// patience is the time limit for killed processes to exit.
	patience = time.Minute
)

// The guest creates all children, and waits for them, on its first thread. Orphans also become
// children of the first thread, which then traces those that call PTRACE_TRACEME. gVisor keeps
// the state of a tracee for which another thread waits: see docs/upstream.md.
func init() { runtime.LockOSThread() }

// guest executes the commands in args or, if args is empty, the lines of standard input. guest
// prints an outcome after each command.
//
//	storm KIND LEVEL SEED CALLS   runs a storm; KIND is tidy or wild, LEVEL is on or fd
//	nothing                       does nothing
//	bomb                          starts a fork bomb
//	call NUMBER                   makes a system call without arguments
//	leave                         creates a child that never exits
func guest(args []string) error {
	ignoreSignals()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("becoming a subreaper: %w", err)
	}
	s, err := newStorm()
	if err != nil {
		return err
	}
	var in io.Reader = os.Stdin
	if len(args) > 0 {
		in = strings.NewReader(strings.Join(args, "\n") + "\n")
	}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		out := outcome{Errors: make(map[string]int), Ends: make(map[string]int)}
		err := s.command(lines.Text(), &out)
		if err == nil {
			out.Left, err = others()
		}
		if err != nil {
			out.Error = err.Error()
		}
		if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
			return err
		}
	}
	return nil
}

func (s *storm) command(line string, out *outcome) error {
	switch command, rest, _ := strings.Cut(line, " "); command {
	case "storm":
		var kind, level string
		var seed uint64
		var calls int
		if _, err := fmt.Sscan(rest, &kind, &level, &seed, &calls); err != nil {
			return fmt.Errorf("storm has the arguments %q, want KIND LEVEL SEED CALLS: %w", rest, err)
		}
		s.tidy, s.fd = kind == "tidy", level == "fd"
		s.rng = rand.New(rand.NewPCG(seed, 0))
		start := time.Now()
		for out.Calls < calls {
			if err := s.prepare(); err != nil {
				return err
			}
			if err := s.wave(out); err != nil {
				return err
			}
		}
		out.Seconds = time.Since(start).Seconds()
		return nil
	case "nothing":
		return nil
	case "bomb":
		l := rawclone.NewProgram().NewList(4)
		for range 3 {
			kit.Default().Clone4Raw(l, kit.SIGCHLD, 0, 0, l)
		}
		kit.Forever(l)
		return start(l)
	case "call":
		nr, err := strconv.Atoi(rest)
		if err != nil {
			return fmt.Errorf("%q is not a system call number: %w", rest, err)
		}
		if _, _, errno := syscall.RawSyscall(uintptr(nr), 0, 0, 0); errno != 0 {
			return fmt.Errorf("call %d: %s", nr, kit.ErrnoName(errno))
		}
		return nil
	case "leave":
		l := rawclone.NewProgram().NewList(1)
		kit.Forever(l)
		return start(l)
	default:
		return fmt.Errorf("unknown command %q", line)
	}
}

func start(l *rawclone.List) error {
	if _, errno := l.Start(kit.SIGCHLD); errno != 0 {
		return fmt.Errorf("creating a child: %s", kit.ErrnoName(errno))
	}
	return nil
}

// wave runs the lists that prepare has written, until no process of the wave is left.
func (s *storm) wave(out *outcome) error {
	leader, errno := s.threads[0].Start(kit.SIGCHLD)
	if errno != 0 {
		return fmt.Errorf("creating the leader of a wave: %s", kit.ErrnoName(errno))
	}
	limit := wildTime
	if s.tidy {
		limit = tidyTime
	}
	over := time.Now().Add(limit)
	for time.Now().Before(over) {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG|unix.WALL, nil)
		if err == unix.ECHILD {
			break
		}
		if pid > 0 && ws.Stopped() {
			// An orphan that calls PTRACE_TRACEME becomes a tracee of the guest.
			unix.PtraceDetach(pid)
			continue
		}
		if pid > 0 {
			if pid == leader {
				out.Ends[kit.Status(uint32(ws))]++
				if !s.tidy {
					over = time.Now().Add(afterTime)
				}
			}
			continue
		}
		s.disturb(leader, out)
		time.Sleep(time.Millisecond)
	}
	if s.tidy && len(out.Late) == 0 {
		out.Late = tasks()
	}
	killed, err := killAll()
	if err != nil {
		return err
	}
	if s.tidy {
		out.Killed += killed
	}
	s.count(out)
	return nil
}

// ignoreSignals ignores all signals that can stop or kill the guest, as far as a process can.
//
// gVisor sends SIGHUP to the process group of a stopped child even if an init process is in
// the group. If the parent of a caller exits during a call with CLONE_PARENT, the guest
// becomes the parent of the new child, which can still have the caller's exit signal:
// gVisor reads the signal first (Task.Clone). The storm tests neither difference from Linux.
func ignoreSignals() {
	for sig := unix.SIGHUP; sig <= 64; sig++ {
		switch {
		case faults[sig], sig == unix.SIGCHLD, sig == unix.SIGURG: // The Go runtime needs these.
		default:
			signal.Ignore(sig)
		}
	}
}

// disturb sends random signals to tasks of the wave, but not to threads of the guest.
func (s *storm) disturb(leader int, out *outcome) {
	if s.tidy && s.oneIn(20) {
		// If a tracer exits before the SIGSTOP of its PTRACE_ATTACH arrives, the
		// SIGSTOP stops the former tracee.
		unix.Kill(-1, unix.SIGCONT)
	}
	for range 4 {
		c := s.calls[s.rng.IntN(len(s.calls))]
		id := int(int32(atomic.LoadUintptr(&c.op.Ret)))
		if id <= 1 || id == notMade {
			continue
		}
		sig := s.signal()
		if s.oneIn(500) && !s.tidy {
			sig = unix.SIGKILL
		}
		if unix.Tgkill(id, id, sig) == nil || unix.Tgkill(leader, id, sig) == nil {
			out.Signals++
		}
	}
}

// killAll kills all other processes until the guest has no child, and returns the number of
// children for which it has waited.
func killAll() (killed int, err error) {
	for over := time.Now().Add(patience); ; {
		switch pid, err := unix.Wait4(-1, nil, unix.WNOHANG|unix.WALL, nil); {
		case err == unix.ECHILD:
			return killed, nil
		case err == unix.EINTR:
		case err != nil:
			return killed, fmt.Errorf("waiting for killed processes: %w", err)
		case pid > 0:
			killed++
		case time.Now().After(over):
			left, _ := others()
			return killed, fmt.Errorf("processes exist %v after SIGKILL: %q", patience, left)
		default:
			// The next iteration kills the children that are created meanwhile.
			if err := unix.Kill(-1, unix.SIGKILL); err != nil && err != unix.ESRCH {
				return killed, fmt.Errorf("killing all other processes: %w", err)
			}
			time.Sleep(100 * time.Microsecond)
		}
	}
}

// count adds the results of a wave's calls to out.
func (s *storm) count(out *outcome) {
	out.Waves++
	for _, c := range s.calls {
		if c.op.Ret == notMade {
			continue
		}
		out.Calls++
		if errno := c.op.Errno(); errno != 0 {
			out.Errors[kit.ErrnoName(errno)]++
		} else {
			out.Children++
		}
	}
	for _, exec := range s.execs {
		if before, exec := exec[0], exec[1]; before.Ret != notMade && exec.Ret == notMade {
			out.Execs++
		}
	}
}

// others returns /proc/PID/stat of each process except this process, its parent and kernel
// threads.
func others() ([]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var left []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || pid == os.Getppid() {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if stat := string(b); err == nil && !kernelThread(stat) {
			left = append(left, stat)
		}
	}
	return left, nil
}

// tasks returns the state, process ID, task ID, parent and tracer of each task outside this
// process.
func tasks() (all []string) {
	names, _ := filepath.Glob("/proc/[0-9]*/task/*/status")
	for _, name := range names {
		status, err := os.ReadFile(name)
		if err != nil || strings.HasPrefix(name, fmt.Sprintf("/proc/%d/", os.Getpid())) {
			continue
		}
		m := regexp.MustCompile(`State:\t(\w).*\nTgid:\t(\d+)\nPid:\t(\d+)\nPPid:\t(\d+)\nTracerPid:\t(\d+)`).FindStringSubmatch(string(status))
		if m != nil {
			all = append(all, strings.Join(m[1:], " "))
		}
	}
	return all
}

// kernelThread returns whether stat, from /proc/PID/stat, is that of a kernel thread. See
// proc(5), and PF_KTHREAD in the kernel's sched.h.
func kernelThread(stat string) bool {
	const pfKthread = 0x00200000
	var state string
	var parent, group, session, tty, foreground, flags int
	fmt.Sscan(stat[strings.LastIndex(stat, ")")+1:], &state, &parent, &group, &session, &tty, &foreground, &flags)
	return flags&pfKthread != 0
}
