// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"runsc-ext/test/sandbox"
)

// target is where guests run: in sandboxes of a runsc binary, or without a sandbox.
type target struct {
	name     string
	binary   string // empty without a sandbox
	platform string
}

// patience limits the time of one measurement. Only a sandbox that hangs reaches the limit.
// The run then fails.
const patience = 2 * time.Minute

// session is a guest that runs in a target. Each session has its own cgroup.
type session struct {
	cgroup
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr bytes.Buffer
}

// start starts the command line args in t, in a new cgroup.
func (t target) start(ctx context.Context, args ...string) (*session, error) {
	if t.binary != "" {
		args = append(append(append([]string{t.binary}, sandbox.Flags(t.platform)...), "do"), args...)
	}
	s := &session{cgroup: newCgroup()}
	// The shell enters the cgroup and then executes the command, so that the cgroup counts
	// everything that the command does.
	const enter = `while [ "$1" != -- ]; do echo $$ >"$1" || exit; shift; done; shift; exec "$@"`
	s.cmd = exec.CommandContext(ctx, "/bin/sh", append(append(append([]string{"-c", enter, "sh"}, s.procs()...), "--"), args...)...)
	s.cmd.WaitDelay = 5 * time.Second
	s.cmd.Stderr = &s.stderr
	stdin, err := s.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.stdin, s.stdout = stdin, bufio.NewReader(stdout)
	return s, s.cmd.Start()
}

// close closes the input of the guest, and waits until the guest and its sandbox have
// exited. A guest exits at the end of its input.
func (s *session) close() error {
	s.stdin.Close()
	_, err := io.Copy(io.Discard, s.stdout)
	if err := errors.Join(err, s.cmd.Wait()); err != nil {
		return fmt.Errorf("%v: %w\n%s", s.cmd, err, s.stderr.Bytes())
	}
	return s.remove()
}

// rusage returns the CPU time of a session in nanoseconds, after the session's command has
// exited. The time includes only processes that their parents have waited for
// (RUSAGE_CHILDREN in getrusage(2)).
func (s *session) rusage() float64 {
	return float64((s.cmd.ProcessState.UserTime() + s.cmd.ProcessState.SystemTime()).Nanoseconds())
}

// phase has the values of one phase of a measurement.
type phase struct {
	name      string
	cpu, wall float64 // in nanoseconds; cpu is 0 without a cgroup
	held      float64 // bytes of memory: at the start of the phase, minus before the measurement
}

// settled gives the sandbox time to complete the work of the guest. A sandbox may still
// release an exited child after the parent has waited for the child.
func settled() { time.Sleep(3 * time.Millisecond) }

// measure asks the guest for a measurement, and returns the phases of the measurement. It
// returns none if the kernel lacks the system call.
func (s *session) measure(name string, n int, args string) ([]phase, error) {
	watchdog := time.AfterFunc(patience, func() { s.cmd.Process.Kill() })
	defer watchdog.Stop()
	var phases []phase
	before, err := s.heldNow()
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(s.stdin, "%s %d %s\n", name, n, args)
	for {
		line, err := s.stdout.ReadString('\n')
		if err != nil {
			s.cmd.Wait()
			return nil, fmt.Errorf("%s: %v: %w\n%s", name, s.cmd, err, s.stderr.Bytes())
		}
		word, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch word {
		case "done", "unsupported":
			return phases, nil
		case "ready":
		default:
			return nil, fmt.Errorf("%s: the guest printed %q, want \"ready PHASE\", \"done\" or \"unsupported\"", name, line)
		}
		p, err := s.phase(rest)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		p.held -= before
		phases = append(phases, p)
	}
}

// phase starts a phase that the guest has prepared, and measures the phase.
func (s *session) phase(name string) (phase, error) {
	p := phase{name: name}
	settled()
	var err error
	if p.held, err = s.heldNow(); err != nil {
		return p, err
	}
	before, err := s.cpuNow()
	if err != nil {
		return p, err
	}
	fmt.Fprintln(s.stdin)
	line, err := s.stdout.ReadString('\n')
	if err != nil {
		return p, err
	}
	if p.wall, err = strconv.ParseFloat(strings.TrimSuffix(line, "\n"), 64); err != nil {
		return p, fmt.Errorf("the guest printed %q, want a number of nanoseconds: %w", line, err)
	}
	settled()
	after, err := s.cpuNow()
	p.cpu = after - before
	return p, err
}

func (s *session) cpuNow() (float64, error) {
	if s.cpu == "" {
		return 0, nil
	}
	return s.cpuTime()
}

func (s *session) heldNow() (float64, error) {
	if s.memory == "" {
		return 0, nil
	}
	return s.held()
}
