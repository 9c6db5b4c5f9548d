// SPDX-License-Identifier: Apache-2.0

// Package box runs the test binary as a hostile guest in a sandbox. The package checks that the
// guest causes no panic, no hang, no stuck task and no leaked reference, and that no task and no
// memory is left afterwards.
//
// The guest answers each line of its standard input with a line of JSON.
package box

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/control/client"
	"gvisor.dev/gvisor/pkg/sentry/control"

	"runsc-ext/test/sandbox"
)

var (
	runsc    = flag.String("runsc", "", "attack the runsc-ext at this `path`, not one that the test builds")
	platform = flag.String("platform", "", "run only on this `platform`")
	keepLogs = flag.String("keep-logs", "", "copy the logs of a sandbox with a problem to this `directory`")
)

// Platforms returns the platforms on which the tests run.
func Platforms() []string {
	if *platform != "" {
		return []string{*platform}
	}
	return sandbox.Platforms
}

// program returns a copy of the test binary in a directory that every user can enter. Other users
// cannot enter the directories of `go test`.
var program = sync.OnceValues(func() (string, error) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "runsc-ext-guest-*")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	programDir = dir
	name := filepath.Join(dir, filepath.Base(os.Args[0]))
	return name, os.WriteFile(name, self, 0o755)
})

// programDir is the directory of the copy, or empty.
var programDir string

// Run runs the tests, removes the files that boxes share, and returns the exit status.
func Run(m *testing.M) int {
	status := m.Run()
	if programDir != "" {
		os.RemoveAll(programDir)
	}
	return status
}

// Options are the options of a box.
type Options struct {
	// Binary is the path of a runsc-ext; empty for that of -runsc, or one built from the
	// source.
	Binary   string
	Platform string

	// Level is the level of clone4; empty for the default.
	Level string

	// User is the user and group ID of the guest; 0 for root with capabilities.
	User int

	// In is a box to whose sandbox the container is added; nil for a new sandbox.
	In *Box

	// Args are the arguments of the test binary; nil for "-guest".
	Args []string

	// Flags are additional global flags of runsc.
	Flags []string

	// CgroupsPath is the path of a control group for the sandbox; empty for none.
	CgroupsPath string

	// Edit changes the OCI spec; nil for no change.
	Edit func(spec map[string]any)

	// Restore is the directory of a checkpoint from which the container is restored;
	// empty for a new container.
	Restore string

	// Patience is the time limit for an answer, and for the exit of the sandbox; 0 for 10
	// minutes.
	Patience time.Duration
}

// Box is a container that runs the guest. In most tests, it is the only container of its sandbox.
type Box struct {
	ID       string
	Binary   string
	Guest    string   // path of the guest program
	Flags    []string // runsc's global flags
	Dir      string   // directory of the bundle
	Problems []string

	t        *testing.T
	patience time.Duration
	others   int // number of containers that were added to the sandbox
	cmd      *exec.Cmd
	stdin    io.WriteCloser
	stdout   *bufio.Reader
	stderr   bytes.Buffer
	ended    bool
}

// New starts a container, in a new sandbox or in that of another box.
func New(t *testing.T, o Options) *Box {
	t.Helper()
	b := &Box{t: t, ID: "sandbox", Dir: t.TempDir(), Binary: o.Binary, patience: o.Patience}
	if b.patience == 0 {
		b.patience = 10 * time.Minute
	}
	annotations := map[string]string{"io.kubernetes.cri.container-type": "sandbox"}
	if o.In != nil {
		o.In.others++
		b.ID = fmt.Sprintf("container-%d", o.In.others)
		b.Binary = o.In.Binary
		annotations = map[string]string{"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": o.In.ID}
	}
	if b.Binary == "" {
		b.Binary = binary(t)
	}
	if o.Level != "" && o.In == nil {
		b.Binary = atLevel(t, b.Binary, o.Level)
	}
	if err := os.Mkdir(b.Logs(), 0o777); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(b.Dir, "state")
	b.Flags = sandbox.Flags(o.Platform)
	if o.CgroupsPath != "" {
		b.Flags = slices.DeleteFunc(b.Flags, func(f string) bool { return f == "--ignore-cgroups" })
	}
	b.Flags = append(b.Flags, "--root="+state, "--debug-log="+b.Logs()+"/", "--panic-log="+b.Logs()+"/panic", "--ref-leak-mode=log-names")
	b.Flags = append(b.Flags, o.Flags...)
	if o.In != nil {
		b.Flags = o.In.Flags
	}
	var err error
	if b.Guest, err = program(); err != nil {
		t.Fatal(err)
	}
	args := o.Args
	if args == nil {
		args = []string{"-guest"}
	}
	b.spec(append([]string{b.Guest}, args...), annotations, o)

	run := []string{"run", "-bundle=" + b.Dir, b.ID}
	if o.Restore != "" {
		run = []string{"restore", "-bundle=" + b.Dir, "-image-path=" + o.Restore, b.ID}
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.cmd = exec.CommandContext(ctx, b.Binary, append(slices.Clip(b.Flags), run...)...)
	b.cmd.Stderr = &b.stderr
	b.cmd.WaitDelay = 5 * time.Second
	if b.stdin, err = b.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := b.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	b.stdout = bufio.NewReader(stdout)
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		exec.Command(b.Binary, append(slices.Clip(b.Flags), "delete", "-force", b.ID)...).Run()
		cancel()
		// runsc leaves a mount in this directory for the next sandbox without network.
		unix.Unmount(filepath.Join(state, "null-netns"), unix.MNT_DETACH)
	})
	return b
}

// spec writes the OCI spec of the bundle.
func (b *Box) spec(args []string, annotations map[string]string, o Options) {
	b.t.Helper()
	if out, err := exec.Command(b.Binary, append([]string{"spec", "-bundle=" + b.Dir, "--"}, args...)...).CombinedOutput(); err != nil {
		b.t.Fatalf("spec: %v\n%s", err, out)
	}
	config := filepath.Join(b.Dir, "config.json")
	var spec map[string]any
	readJSON(b.t, config, &spec)
	spec["root"] = map[string]any{"path": "/", "readonly": true}
	process := spec["process"].(map[string]any)
	process["terminal"] = false
	if o.User != 0 {
		process["user"] = map[string]any{"uid": o.User, "gid": o.User}
		delete(process, "capabilities")
	} else {
		for _, set := range []string{"bounding", "effective", "permitted"} {
			// Namespaces need CAP_SYS_ADMIN.
			caps := process["capabilities"].(map[string]any)
			caps[set] = append(caps[set].([]any), "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_CHROOT")
		}
	}
	spec["annotations"] = annotations
	if o.CgroupsPath != "" {
		spec["linux"].(map[string]any)["cgroupsPath"] = o.CgroupsPath
	}
	if o.Edit != nil {
		o.Edit(spec)
	}
	out, err := json.Marshal(spec)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(config, out, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// binary returns the runsc-ext to attack.
func binary(t *testing.T) string {
	t.Helper()
	if *runsc != "" {
		return *runsc
	}
	bin, err := sandbox.Binary()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// atLevel returns the path of a hard link to a binary. The file NAME.clone4 beside the link sets
// the level.
func atLevel(t *testing.T, bin, level string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "runsc-ext")
	if err := os.Link(bin, name); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name+".clone4", []byte(level), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// Logs returns the directory of the sandbox's logs.
func (b *Box) Logs() string { return filepath.Join(b.Dir, "logs") }

// Problem records a problem. Report reports all problems.
func (b *Box) Problem(format string, args ...any) {
	b.Problems = append(b.Problems, fmt.Sprintf(format, args...))
}

// Send sends a command to the guest, and does not wait for the answer.
func (b *Box) Send(command string) {
	if _, err := io.WriteString(b.stdin, command+"\n"); err != nil {
		b.Problem("the guest does not read %q: %v", command, err)
	}
}

// Receive reads the next answer of the guest into out. Without an answer in time, Receive adds the
// stacks of the sentry to the logs.
func (b *Box) Receive(out any) {
	b.t.Helper()
	if b.ended {
		return
	}
	line := make(chan []byte, 1)
	failed := make(chan error, 1)
	go func() {
		l, err := b.stdout.ReadBytes('\n')
		if err != nil {
			failed <- err
			return
		}
		line <- l
	}()
	select {
	case l := <-line:
		if err := json.Unmarshal(l, out); err != nil {
			b.Problem("the guest answers %q: %v", l, err)
		}
	case err := <-failed:
		b.Problem("the guest does not answer: %v: %s", err, b.stderr.String())
		b.ended = true
	case <-time.After(b.patience):
		b.Problem("the guest does not answer within %v", b.patience)
		b.ended = true
		stacks, _ := exec.Command("timeout", append([]string{"20", b.Binary}, append(slices.Clip(b.Flags), "debug", "-stacks", b.ID)...)...).CombinedOutput()
		os.WriteFile(filepath.Join(b.Logs(), "stacks"), stacks, 0o644)
	}
}

// Say sends a command to the guest, and reads the answer into out.
func (b *Box) Say(out any, command string) {
	b.t.Helper()
	b.Send(command)
	b.Receive(out)
}

// Run runs a command of runsc with the flags of the sandbox, for 2 minutes at most.
func (b *Box) Run(args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return exec.CommandContext(ctx, b.Binary, append(slices.Clip(b.Flags), args...)...).CombinedOutput()
}

// WantAnswer checks that the sandbox executes a new process, and that afterwards the guest is the
// only process of the container.
func (b *Box) WantAnswer() {
	b.t.Helper()
	if b.ended || os.Geteuid() != 0 {
		return // runsc exec needs root
	}
	if out, err := b.Run("exec", b.ID, b.Guest, "-test.list=^$"); err != nil {
		b.Problem("runsc exec: %v: %s", err, out)
	}
	ps, err := b.Run("ps", "-format=json", b.ID)
	var pids []int
	if err == nil {
		err = json.Unmarshal(ps, &pids)
	}
	if err != nil || len(pids) != 1 {
		b.Problem("tasks left: runsc ps reports %s, error %v; want one process", ps, err)
	}
}

// Memory is the memory of a sandbox, in kB.
type Memory struct {
	Sentry  int // anonymous memory of the sentry's process on the host
	Program int // memory of the guest's programs and files, as the sentry reports it
}

// Memory waits until the memory of the sentry no longer shrinks, and returns the memory. A garbage
// collection precedes each measurement. The Go runtime returns the freed memory to the host in the
// background, which takes seconds.
func (b *Box) Memory() Memory {
	b.t.Helper()
	last := b.memoryNow()
	for same := 0; same < 4 && !b.ended; same++ {
		time.Sleep(250 * time.Millisecond)
		m := b.memoryNow()
		if m.Sentry < last.Sentry*99/100 {
			same = 0
		}
		last = m
	}
	return last
}

func (b *Box) memoryNow() Memory {
	b.t.Helper()
	if b.ended {
		return Memory{}
	}
	states, _ := filepath.Glob(filepath.Join(b.Dir, "state", "*.state"))
	if len(states) != 1 {
		b.t.Fatalf("state files: %v, want one", states)
	}
	var state struct {
		Sandbox struct {
			PID               int `json:"pid"`
			ControlSocketPath string
		}
	}
	readJSON(b.t, states[0], &state)
	conn, err := client.ConnectTo(state.Sandbox.ControlSocketPath)
	if err != nil {
		b.t.Fatalf("connecting to the sentry: %v", err)
	}
	defer conn.Close()
	if err := conn.Call("Usage.Reduce", &control.UsageReduceOpts{Wait: true}, nil); err != nil {
		b.t.Fatalf("Usage.Reduce: %v", err)
	}
	var usage control.MemoryUsage
	if err := conn.Call("Usage.Collect", &control.MemoryUsageOpts{Full: true}, &usage); err != nil {
		b.t.Fatalf("Usage.Collect: %v", err)
	}
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", state.Sandbox.PID))
	if err != nil {
		b.t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^Anonymous: +(\d+) kB$`).FindSubmatch(rollup)
	if m == nil {
		b.t.Fatalf("no Anonymous in %s", rollup)
	}
	anonymous, err := strconv.Atoi(string(m[1]))
	if err != nil {
		b.t.Fatal(err)
	}
	return Memory{anonymous, int(usage.Total / 1024)}
}

// WantMemory checks that memory has not grown between two measurements. children is the number of
// children that exited meanwhile. The check allows 5 percent, the noise of a heap, and 32 bytes for
// each child. The state of a task takes 16 kB or more, so the check finds one leak in 500 children.
func (b *Box) WantMemory(before, after Memory, children int) {
	// The memory of programs is in a file, which grows by pieces of 2 MB.
	const sentryNoise, programNoise = 4 << 10, 16 << 10
	bound := func(before, noise int) int { return before*105/100 + noise + children*32/1024 }
	if most := bound(before.Sentry, sentryNoise); after.Sentry > most {
		b.Problem("sentry memory: %d kB after %d children, want at most %d kB (%d kB before)", after.Sentry, children, most, before.Sentry)
	}
	if most := bound(before.Program, programNoise); after.Program > most {
		b.Problem("memory of programs: %d kB after %d children, want at most %d kB (%d kB before)", after.Program, children, most, before.Program)
	}
}

// End closes the standard input of the guest, so that the guest exits. End waits until the sandbox
// exits too, and checks the logs.
func (b *Box) End() {
	b.t.Helper()
	b.stdin.Close()
	if b.ended {
		b.Run("kill", "-all", b.ID, "KILL")
	}
	late := time.AfterFunc(b.patience, func() { b.cmd.Process.Kill() })
	defer late.Stop()
	if err := b.cmd.Wait(); err != nil {
		b.Problem("runsc run: %v: %s", err, b.stderr.String())
	}
	if log := b.LookIntoLogs(); !strings.Contains(log, "Exiting with status: ") {
		// The sentry logs this line after the check for leaked references.
		b.Problem("the log of the sentry has no line with its exit status")
	}
}

// Wait waits until the container exits, and returns its exit status.
func (b *Box) Wait() int {
	b.cmd.Wait()
	return b.cmd.ProcessState.ExitCode()
}

// CloseInput closes the guest's standard input.
func (b *Box) CloseInput() { b.stdin.Close() }

// Report fails the test if there was a problem. With -keep-logs, Report then copies the logs.
func (b *Box) Report() {
	b.t.Helper()
	for _, p := range b.Problems {
		b.t.Error(p)
	}
	if len(b.Problems) > 0 && *keepLogs != "" {
		to := filepath.Join(*keepLogs, fmt.Sprintf("%s-%d", strings.ReplaceAll(b.t.Name(), "/", "_"), os.Getpid()))
		if err := os.CopyFS(to, os.DirFS(b.Logs())); err != nil {
			b.t.Logf("keeping logs: %v", err)
		} else {
			b.t.Logf("logs are in %s", to)
		}
	}
}

// Reports matches each log message in which a sentry reports an internal problem, with up to five
// lines after the message.
var Reports = regexp.MustCompile(`(?m)^.*(panic: |fatal error: |Leak checking detected|stuck task\(s\)|Watchdog goroutine is stuck|circular locking detected|nested locking: |maximum lock depth|DATA RACE).*$(\n.*){0,5}`)

// LookIntoLogs records each report in the logs as a problem, and returns the log of the sentry.
func (b *Box) LookIntoLogs() string {
	b.t.Helper()
	names, err := filepath.Glob(filepath.Join(b.Logs(), "*"))
	if err != nil {
		b.t.Fatal(err)
	}
	var sentrys strings.Builder
	for _, name := range names {
		log, err := os.ReadFile(name)
		if err != nil {
			b.t.Fatal(err)
		}
		if filepath.Base(name) != "stacks" {
			for _, report := range Reports.FindAll(log, -1) {
				b.Problem("%s: %s", filepath.Base(name), report)
			}
		}
		if strings.HasSuffix(name, ".boot.txt") {
			sentrys.Write(log)
		}
	}
	return sentrys.String()
}

func readJSON(t *testing.T, name string, v any) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}
