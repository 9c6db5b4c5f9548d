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

// target is what guests run in.
type target struct {
	name     string
	binary   string // empty: no sandbox
	platform string
}

// patience is how long a measurement may take: longer than any does, so that a sandbox
// that hangs ends the run.
const patience = 2 * time.Minute

// session is a guest that runs in a target, with a cgroup of its own.
type session struct {
	cgroup
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr bytes.Buffer
}

// start starts args in t.
func (t target) start(ctx context.Context, args ...string) (*session, error) {
	if t.binary != "" {
		args = append(append(append([]string{t.binary}, sandbox.Flags(t.platform)...), "do"), args...)
	}
	s := &session{cgroup: newCgroup()}
	// The shell enters the cgroup and becomes the command.
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

// close ends the guest, and waits until its target is gone.
func (s *session) close() error {
	s.stdin.Close()
	_, err := io.Copy(io.Discard, s.stdout)
	if err := errors.Join(err, s.cmd.Wait()); err != nil {
		return fmt.Errorf("%v: %w\n%s", s.cmd, err, s.stderr.Bytes())
	}
	return s.remove()
}

// rusage returns the nanoseconds of CPU time of a session that is closed, by the processes
// that have been waited for.
func (s *session) rusage() float64 {
	return float64((s.cmd.ProcessState.UserTime() + s.cmd.ProcessState.SystemTime()).Nanoseconds())
}

// phase is a part of a measurement.
type phase struct {
	name      string
	cpu, wall float64 // nanoseconds; cpu is 0 without a cgroup
	held      float64 // bytes at its start, more than before the measurement
}

// settled waits until what a guest has done is done in its sandbox too: children are
// taken down when their parent has already gone on.
func settled() { time.Sleep(3 * time.Millisecond) }

// measure asks for a measurement, and returns no phase if the kernel has no such call.
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
			return nil, fmt.Errorf("%s: the guest says %q", name, line)
		}
		p, err := s.phase(rest)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		p.held -= before
		phases = append(phases, p)
	}
}

// phase measures a phase that the guest has prepared.
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
		return p, fmt.Errorf("the guest says %q: %w", line, err)
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
