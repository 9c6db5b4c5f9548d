// SPDX-License-Identifier: Apache-2.0

// Package guest has the attacks: what a program without privilege in a sandbox can do to the
// sentry by clone4 calls.
//
// With the flag -guest, a test binary becomes such a program, the guest. The guest executes
// commands, which are its arguments or the lines of its standard input. After each command, the
// guest prints a line of JSON. Each attack at level on also ends without an error on the
// reference kernel, if the guest is an ordinary user there.
package guest

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/internal/rawclone"
)

// patience is the time limit for a step of an attack, long enough for an emulated machine.
// Elsewhere, a step that makes progress takes less than a tenth of patience.
const patience = 2 * time.Minute

// Outcome is the answer of the guest to a command.
type Outcome struct {
	Attack  string
	Tries   int            // number of tries that the command asked for
	Made    int            // number of calls that created a child
	Failed  int            // number of calls that returned an error
	Stops   int            // number of ptrace stops
	Signals map[string]int // number of killed processes, by signal
	Seconds float64
	Calls   map[string]string // results of the calls of the command inherit
	Status  []string          // lines of /proc/PID/status that children inherit
	Error   string            // what differed from Linux, or failed; empty if nothing did
	Left    []string          // processes that exist after the command, except those of keep
}

// Attack is a way to attack a sandbox.
type Attack struct {
	Name string

	// Level is the lowest level of clone4 at which the attack works.
	Level string

	// Tries is the default number of tries, more than the attack needs to find its fault
	// in a sentry that has the fault.
	Tries int

	run func(r *run) error
}

// run is one execution of an attack.
type run struct {
	rng   *rand.Rand
	tries int
	until time.Time
	out   *Outcome
	mem   *memory
}

// goesOn returns whether the attack needs another round.
func (r *run) goesOn() bool {
	made := r.out.Made + r.out.Failed
	return made == 0 || made < r.tries && time.Now().Before(r.until)
}

func (r *run) oneIn(n int) bool { return r.rng.IntN(n) == 0 }

// pick returns a random element of choices.
func pick[T any](r *run, choices []T) T { return choices[r.rng.IntN(len(choices))] }

// signaled counts the signal that has killed a process, if a signal has.
func (r *run) signaled(ws unix.WaitStatus) {
	if !ws.Signaled() {
		return
	}
	if r.out.Signals == nil {
		r.out.Signals = make(map[string]int)
	}
	r.out.Signals[unix.SignalName(ws.Signal())]++
}

// Attacks returns all attacks on this architecture.
func Attacks() []Attack { return attacks }

var attacks = append(attacksOfArch(),
	Attack{Name: "args", Level: "on", Tries: 1260, run: args{}.run},
	Attack{Name: "args/fd", Level: "fd", Tries: 1260, run: args{fd: true}.run},
	Attack{Name: "descriptors", Level: "fd", Tries: 1500, run: descriptors},
	Attack{Name: "tracers", Level: "on", Tries: 1500, run: func(r *run) error { return traceCallers(r, false) }},
	Attack{Name: "tracers/fd", Level: "fd", Tries: 1500, run: func(r *run) error { return traceCallers(r, true) }},
)

// Main executes the commands in args or, if args is empty, the lines of standard input. Main
// returns the exit status.
//
//	attack NAME SEED TRIES TIME   makes TRIES tries of an attack, but begins no new round
//	                              after TIME, such as 2s
//	nothing                       answers
//	user                          becomes an ordinary user
//	inherit                       makes calls, and checks what the children inherit
//	keep                          creates children that stay
//	kill                          checks that these children still run, and kills them
//	exit                          exits
//	echo TEXT                     answers with TEXT as Outcome.Attack
func Main(args []string) int {
	signal.Ignore(unix.SIGHUP, unix.SIGIO, unix.SIGUSR1, unix.SIGUSR2)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "guest: becoming a subreaper:", err)
		return 1
	}
	var in io.Reader = os.Stdin
	if len(args) > 0 {
		in = strings.NewReader(strings.Join(args, "\n") + "\n")
	}
	status := 0
	for lines := bufio.NewScanner(in); lines.Scan() && lines.Text() != "exit"; {
		out := command(lines.Text())
		if out.Error != "" {
			status = 1
		}
		if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
			fmt.Fprintln(os.Stderr, "guest:", err)
			return 1
		}
	}
	return status
}

func command(line string) Outcome {
	verb, rest, _ := strings.Cut(line, " ")
	out := Outcome{Attack: rest}
	switch verb {
	case "nothing":
	case "user":
		fail(&out, becomeUser())
	case "inherit":
		fail(&out, inherit(&out))
	case "keep":
		fail(&out, keep())
	case "kill":
		fail(&out, kill())
	case "echo":
		return out
	case "attack":
		var (
			seed uint64
			text string
		)
		_, err := fmt.Sscan(rest, &out.Attack, &seed, &out.Tries, &text)
		limit, perr := time.ParseDuration(text)
		if err = cmp.Or(err, perr); err != nil {
			out.Error = fmt.Sprintf("attack has the arguments %q, want NAME SEED TRIES TIME: %v", rest, err)
			return out
		}
		start := time.Now()
		fail(&out, attack(&out, seed, start.Add(limit)))
		out.Seconds = time.Since(start).Seconds()
	default:
		out.Error = fmt.Sprintf("unknown command %q", line)
		return out
	}
	left, err := others()
	fail(&out, err)
	out.Left = left
	return out
}

// becomeUser makes the guest a process of user 1000. PR_SET_DUMPABLE lets the user trace the
// processes of the guest, which setuid would prevent.
func becomeUser() error {
	const id = 1000
	return errors.Join(
		syscall.Setgroups(nil), syscall.Setgid(id), syscall.Setuid(id),
		unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0),
	)
}

// fail records err in out, unless out has an error.
func fail(out *Outcome, err error) {
	if err != nil && out.Error == "" {
		out.Error = err.Error()
	}
}

// attack makes one attack in a new thread, which exits afterwards. A thread that was a tracer
// or has changed its namespaces must not run other goroutines.
func attack(out *Outcome, seed uint64, until time.Time) error {
	for i := range attacks {
		a := &attacks[i]
		if a.Name != out.Attack {
			continue
		}
		result := make(chan error)
		go func() {
			runtime.LockOSThread()
			mem, err := newMemory()
			if err == nil {
				err = a.run(&run{rng: rand.New(rand.NewPCG(seed, 0)), tries: out.Tries, until: until, out: out, mem: mem})
			}
			if e := killAll(); err == nil {
				err = e
			}
			result <- err
		}()
		return <-result
	}
	return fmt.Errorf("unknown attack %q", out.Attack)
}

// memory is the memory of an attack and its processes.
type memory struct {
	p *rawclone.Program

	// code is for machine code: writable, and shared by all processes.
	code []byte

	// data is shared by all processes, scratch is private to each.
	data    []byte
	scratch []byte
}

func newMemory() (*memory, error) {
	const size = 64 << 10
	m := &memory{p: rawclone.NewProgram()}
	for _, part := range []struct {
		mem               *[]byte
		size, prot, flags int
	}{
		{&m.code, 4096, unix.PROT_READ | unix.PROT_WRITE | unix.PROT_EXEC, unix.MAP_SHARED},
		{&m.data, size, unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED},
		{&m.scratch, size, unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE},
	} {
		var err error
		if *part.mem, err = rawclone.Map(-1, part.size, part.prot, part.flags); err != nil {
			return nil, fmt.Errorf("mmap: %w", err)
		}
	}
	return m, nil
}

// word returns word i of memory that does not move.
func word(mem []byte, i int) *uintptr { return rawclone.WordOf(mem[8*i:]) }

// killAll kills all processes that the guest has started, and waits for them.
func killAll() error {
	for over := time.Now().Add(patience); ; {
		if err := unix.Kill(-1, unix.SIGKILL); err != nil && err != unix.ESRCH && err != unix.EPERM {
			return fmt.Errorf("killing all other processes: %w", err)
		}
		var err error
		for pid := 1; pid > 0; {
			if pid, err = unix.Wait4(-1, nil, unix.WNOHANG|unix.WALL, nil); err == unix.EINTR {
				pid, err = 1, nil
			}
		}
		if err == unix.ECHILD {
			return nil
		}
		if err != nil {
			return fmt.Errorf("waiting for killed processes: %w", err)
		}
		if time.Now().After(over) {
			left, _ := others()
			return fmt.Errorf("processes exist %v after SIGKILL: %q", patience, left)
		}
		time.Sleep(time.Millisecond)
	}
}

// others returns /proc/PID/status of the user's processes, except this process, its parent and
// the children of keep.
func others() ([]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var left []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || pid == os.Getppid() || slices.Contains(kept, pid) {
			continue
		}
		status, err := os.ReadFile("/proc/" + e.Name() + "/status")
		if err == nil && strings.Contains(string(status), fmt.Sprintf("\nUid:\t%d\t", os.Getuid())) && descends(status) {
			left = append(left, string(status))
		}
	}
	return left, nil
}

// descends returns whether a process with this status can be a descendant of the guest, and not
// a kernel thread.
func descends(status []byte) bool {
	return strings.Contains(string(status), "\nVmSize:") || strings.Contains(string(status), "zombie")
}
