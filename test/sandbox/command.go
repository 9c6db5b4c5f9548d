// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// limit is the time limit of a command. The slowest command takes a small part of it, even on
// a busy machine.
const limit = 2 * time.Minute

// Result is the result of a command.
type Result struct {
	Command        string // with its arguments
	Status         int    // exit status; -1 if a signal killed it
	Stdout, Stderr string
}

// String implements fmt.Stringer.String.
func (r Result) String() string {
	return fmt.Sprintf("%s: status %d, standard output %q, standard error %q", r.Command, r.Status, r.Stdout, r.Stderr)
}

// Check reports an error unless the command exited with status and wrote exactly
// stdout to its standard output.
func (r Result) Check(t testing.TB, status int, stdout string) {
	t.Helper()
	if r.Status != status || r.Stdout != stdout {
		t.Errorf("got %v\nwant status %d, standard output %q", r, status, stdout)
	}
}

// CheckRefused reports an error unless runsc-ext exited with status 128, wrote nothing
// to its standard output, and named each of wants on standard error.
func (r Result) CheckRefused(t testing.TB, wants ...string) {
	t.Helper()
	r.Check(t, 128, "")
	r.CheckStderr(t, wants...)
}

// CheckStderr reports an error for each of wants that standard error does not contain.
func (r Result) CheckStderr(t testing.TB, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(r.Stderr, want) {
			t.Errorf("got %v\nwant %q in standard error", r, want)
		}
	}
}

// Run runs a command and returns its result, whatever the exit status. A command that cannot
// be started, or exceeds the time limit, is fatal.
func Run(t testing.TB, name string, args ...string) Result {
	t.Helper()
	return Output(t, exec.Command(name, args...))
}

// Output is Run for an exec.Cmd, which can have an environment, a directory and credentials.
// Output sets its standard output and standard error.
func Output(t testing.TB, cmd *exec.Cmd) Result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	wait := start(t, cmd)
	wait(t)
	return Result{cmd.String(), cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// Session is a command that talks to a test while it runs.
type Session struct {
	Stdin  io.WriteCloser
	Stdout *bufio.Reader

	cmd    *exec.Cmd
	stderr bytes.Buffer
	wait   func(testing.TB)
}

// Start starts a command. The command is killed at the end of the test.
func Start(t testing.TB, cmd *exec.Cmd) *Session {
	t.Helper()
	s := &Session{cmd: cmd}
	cmd.Stderr = &s.stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.Stdin, s.Stdout = stdin, bufio.NewReader(stdout)
	s.wait = start(t, cmd)
	return s
}

// Process returns the process of the command.
func (s *Session) Process() *os.Process { return s.cmd.Process }

// Say writes a line to standard input. It ignores errors: the answer of a command shows
// whether the command has read the line.
func (s *Session) Say(format string, args ...any) {
	fmt.Fprintf(s.Stdin, format+"\n", args...)
}

// ReadTo reads standard output up to the given line, and returns what it read. It is fatal if
// the command exits first.
func (s *Session) ReadTo(t testing.TB, line string) string {
	t.Helper()
	var printed string
	for {
		l, err := s.Stdout.ReadString('\n')
		printed += l
		if l == line {
			return printed
		}
		if err != nil {
			t.Fatalf("the command printed %q and exited without the line %q: %v", printed, line, s.Wait(t))
		}
	}
}

// Wait waits until the command exits. Result.Stdout is the output that was not read before.
func (s *Session) Wait(t testing.TB) Result {
	t.Helper()
	stdout, err := io.ReadAll(s.Stdout)
	if err != nil {
		t.Fatalf("reading the output of %v: %v", s.cmd, err)
	}
	s.wait(t)
	return Result{s.cmd.String(), s.cmd.ProcessState.ExitCode(), string(stdout), s.stderr.String()}
}

// start starts cmd and returns a function that waits until the command exits. Without that
// wait, the command is killed at the end of the test.
func start(t testing.TB, cmd *exec.Cmd) (wait func(testing.TB)) {
	t.Helper()
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %v: %v", cmd, err)
	}
	// SIGTERM comes first, so that a command can stop an emulator that it has started.
	var late atomic.Bool
	term := time.AfterFunc(limit, func() {
		late.Store(true)
		cmd.Process.Signal(unix.SIGTERM)
	})
	kill := time.AfterFunc(limit+10*time.Second, func() { cmd.Process.Kill() })
	stop := func() {
		term.Stop()
		kill.Stop()
	}
	t.Cleanup(func() {
		stop()
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	return func(t testing.TB) {
		t.Helper()
		err := cmd.Wait()
		stop()
		if late.Load() {
			t.Fatalf("%v was killed because it ran for %v: output %q, %q", cmd, limit, cmd.Stdout, cmd.Stderr)
		}
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Fatalf("%v: %v", cmd, err)
		}
	}
}

// Need ends the test if err is not nil. It skips the test for a Missing, and fails it
// otherwise.
func Need(t testing.TB, err error) {
	t.Helper()
	if missing := Missing(""); errors.As(err, &missing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Install puts runsc-ext into a directory, where a test may put other files beside it, and
// returns its path.
func Install(t testing.TB, dir, name string) string {
	t.Helper()
	built, err := Binary()
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, name)
	if os.Link(built, bin) == nil {
		return bin
	}
	b, err := os.ReadFile(built) // dir is on another file system
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bin, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return bin
}

// WriteFile writes a file that every user may read.
func WriteFile(t testing.TB, name, contents string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(contents), 0o644); err != nil {
		t.Fatal(err)
	}
}
