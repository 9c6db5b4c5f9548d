// SPDX-License-Identifier: Apache-2.0

package storm

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
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/control/client"
	"gvisor.dev/gvisor/pkg/sentry/control"

	"runsc-ext/test/sandbox"
)

var (
	calls    = flag.Int("calls", 1500, "make this many calls in a storm; of 200,000, each takes 5 minutes or more")
	seed     = flag.Uint64("seed", 1, "make the calls of this seed")
	platform = flag.String("platform", "", "run on this platform alone")
	lockdep  = flag.Bool("lockdep", false, "build the sentry with gVisor's check of the order of locks")

	isGuest = flag.Bool("guest", false, "be the guest, which does what standard input says; test nothing")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if *isGuest {
		if err := guest(); err != nil {
			fmt.Fprintln(os.Stderr, "guest:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestStorm protects that a sandbox is what it was after a storm: it answers, has no
// task left, and the sentry's log has nothing to say. Memory is as after the same
// storm made by clone(2). That is not what it was before: gVisor keeps the state of
// some tasks that have ended, of one in fifteen here, most but not all of them those
// that had to do with ptrace(2).
func TestStorm(t *testing.T) {
	bin := runscExt(t)
	for _, p := range platforms() {
		t.Run(p, func(t *testing.T) {
			b := newBox(t, bin, p, nil)
			b.say("storm %d %d", *seed, *calls/10)
			first := b.memory()
			b.say("older %d %d", *seed+1, *calls)
			before := b.memory()
			out := b.say("storm %d %d", *seed+1, *calls)
			after := b.memory()
			b.wantNothingLeft(out)
			b.wantMemory(before, after, before.sentry-first.sentry)
			b.end()
			t.Logf("%+v", out)
			t.Logf("memory at first %v, after clone %v, after clone4 %v", first, before, after)
			for _, problem := range b.problems {
				t.Error(problem)
			}
			if out.Calls < *calls || out.Children < out.Calls/2 || out.Execs == 0 || out.Signals == 0 {
				t.Errorf("that was no storm: %+v", out)
			}
		})
	}
}

// TestStormFinds protects the checks of TestStorm: each has to see the fault that it
// is for.
func TestStormFinds(t *testing.T) {
	bin := faulty(t)
	for _, tc := range []struct{ name, command, want string }{
		{"reference leak", "call 1900", "Leak checking detected"},
		{"memory", "call 1901", "sentry memory"},
		{"panic", "call 1902", "panic: fault 1902"},
		{"task", "leave", "tasks left"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBox(t, bin, sandbox.Platforms[0], nil)
			b.say("storm %d %d", *seed, 200)
			before := b.memory()
			out := b.say("%s", tc.command)
			after := b.memory()
			b.wantNothingLeft(out)
			b.wantMemory(before, after, 0)
			b.end()
			if !slices.ContainsFunc(b.problems, func(p string) bool { return strings.Contains(p, tc.want) }) {
				t.Errorf("not found: problems are %q, want %q in one", b.problems, tc.want)
			}
		})
	}
}

// TestGVisorReports protects what is looked for in the log: that gVisor still says it
// so. The pinned source is asked, as a watchdog or a lock cannot be made to complain
// in a short time.
func TestGVisorReports(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "gvisor.dev/gvisor").Output()
	if err != nil {
		t.Fatal(err)
	}
	for file, phrases := range map[string][]string{
		"pkg/refs/refs_map.go":            {"Leak checking detected"},
		"pkg/sentry/watchdog/watchdog.go": {"Sentry detected %d stuck task(s)", "Watchdog goroutine is stuck"},
		"pkg/sync/locking/lockdep.go":     {"circular locking detected", "nested locking: ", "maximum lock depth"},
		"pkg/sentry/control/usage.go":     {"func (u *Usage) Reduce("},
		"runsc/boot/controller.go":        {"&control.Usage{"},
	} {
		b, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), file))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, phrase := range phrases {
			if !bytes.Contains(b, []byte(phrase)) {
				t.Errorf("%s does not have %q", file, phrase)
			}
		}
	}
}

// reports are what a sentry says where something is wrong inside of it.
var reports = regexp.MustCompile(`(?m)^.*(panic: |fatal error: |Leak checking detected|stuck task\(s\)|Watchdog goroutine is stuck|circular locking detected|nested locking: |maximum lock depth|DATA RACE).*$(\n.*){0,5}`)

func platforms() []string {
	if *platform != "" {
		return []string{*platform}
	}
	return sandbox.Platforms
}

func runscExt(t *testing.T) string {
	t.Helper()
	if *lockdep {
		return build(t, "-tags=lockdep")
	}
	bin, err := sandbox.Binary()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// faulty builds a sentry with faults.
func faulty(t *testing.T) string {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(here, "../../runsc-ext/faulty.go"): filepath.Join(here, "testdata/faulty/faulty.go"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "overlay.json")
	if err := os.WriteFile(name, overlay, 0o644); err != nil {
		t.Fatal(err)
	}
	return build(t, "-overlay="+name)
}

// build builds runsc-ext in another way than others use it.
func build(t *testing.T, flag string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "runsc-ext")
	cmd := exec.Command("go", "build", "-trimpath", flag, "-o", bin, "runsc-ext/runsc-ext")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return bin
}

// box is a container with the guest in it, and in most tests the sandbox as well.
type box struct {
	t        *testing.T
	id       string
	others   int // containers that have been started in the same sandbox
	bin      string
	guest    string // the program in it
	dir      string
	flags    []string
	cmd      *exec.Cmd
	stdin    io.WriteCloser
	stdout   *bufio.Reader
	stderr   bytes.Buffer
	ended    bool
	problems []string
}

// newBox starts a container: a sandbox, or one more in the sandbox of another.
func newBox(t *testing.T, bin, platform string, in *box, edits ...func(spec map[string]any)) *box {
	t.Helper()
	b := &box{t: t, id: "sandbox", bin: bin, dir: t.TempDir()}
	annotations := map[string]string{"io.kubernetes.cri.container-type": "sandbox"}
	if in != nil {
		in.others++
		b.id = fmt.Sprintf("container-%d", in.others)
		annotations = map[string]string{"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": in.id}
	}
	if err := os.Mkdir(b.logs(), 0o755); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(b.dir, "state")
	b.flags = append(flags(platform, edits), "--root="+state, "--debug-log="+b.logs()+"/", "--panic-log="+b.logs()+"/panic", "--ref-leak-mode=log-names")
	if in != nil {
		b.flags = in.flags
	}
	var err error
	if b.guest, err = os.Executable(); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(bin, "spec", "-bundle="+b.dir, "--", b.guest, "-guest").CombinedOutput(); err != nil {
		t.Fatalf("spec: %v\n%s", err, out)
	}
	config := filepath.Join(b.dir, "config.json")
	var spec map[string]any
	readJSON(t, config, &spec)
	spec["root"] = map[string]any{"path": "/", "readonly": true}
	process := spec["process"].(map[string]any)
	process["terminal"] = false
	for _, set := range []string{"bounding", "effective", "permitted"} {
		// CAP_SYS_ADMIN for namespaces.
		caps := process["capabilities"].(map[string]any)
		caps[set] = append(caps[set].([]any), "CAP_SYS_ADMIN", "CAP_SYS_PTRACE")
	}
	spec["annotations"] = annotations
	for _, edit := range edits {
		edit(spec)
	}
	out, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, out, 0o644); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	b.cmd = exec.CommandContext(ctx, bin, append(slices.Clip(b.flags), "run", "-bundle="+b.dir, b.id)...)
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
		exec.Command(bin, append(b.flags, "delete", "-force", b.id)...).Run()
		cancel()
		// runsc leaves a mount there for the next sandbox without network.
		unix.Unmount(filepath.Join(state, "null-netns"), unix.MNT_DETACH)
	})
	return b
}

func (b *box) logs() string { return filepath.Join(b.dir, "logs") }

func (b *box) problem(format string, args ...any) {
	b.problems = append(b.problems, fmt.Sprintf(format, args...))
}

// say tells the guest to do something, and returns the outcome.
func (b *box) say(format string, args ...any) outcome {
	fmt.Fprintf(b.stdin, format+"\n", args...)
	var out outcome
	line, err := b.stdout.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &out)
	}
	if err != nil {
		b.problem("the guest does not answer: %v", err)
		b.ended = true
	}
	return out
}

// memory is the memory of a sandbox, in kB.
type memory struct {
	sentry  int // the sentry's own: anonymous memory of the process
	program int // of the programs in it, and their files
}

// memory measures the memory after a garbage collection, when it does not get less
// any more: the Go runtime gives memory back in the background, over seconds.
func (b *box) memory() memory {
	b.t.Helper()
	last := b.memoryNow()
	for same := 0; same < 4 && !b.ended; same++ {
		time.Sleep(250 * time.Millisecond)
		m := b.memoryNow()
		if m.sentry < last.sentry*99/100 {
			same = 0
		}
		last = m
	}
	return last
}

func (b *box) memoryNow() memory {
	b.t.Helper()
	if b.ended {
		return memory{}
	}
	states, _ := filepath.Glob(filepath.Join(b.dir, "state", "*.state"))
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
	return memory{anonymous, int(usage.Total / 1024)}
}

// wantNothingLeft checks that the sandbox answers and has no task but the guest.
func (b *box) wantNothingLeft(out outcome) {
	if len(out.Left) > 0 {
		b.problem("tasks left: %q", out.Left)
	}
	if b.ended || os.Geteuid() != 0 {
		return // without root, runsc executes nothing in a container
	}
	cmd := exec.Command(b.bin, append(slices.Clip(b.flags), "exec", b.id, b.guest, "-test.list=^TestStorm$")...)
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "TestStorm\n" {
		b.problem("no answer: %v: %v: %s", cmd, err, out)
	}
	ps, err := exec.Command(b.bin, append(slices.Clip(b.flags), "ps", "-format=json", b.id)...).Output()
	var pids []int
	if err == nil {
		err = json.Unmarshal(ps, &pids)
	}
	if err != nil || len(pids) != 1 {
		b.problem("tasks left, says ps: %s, error %v; want one", ps, err)
	}
}

// wantMemory checks that memory has not become more than by expected, in kB, within
// 5 percent, and what a heap does not tell in a short time.
func (b *box) wantMemory(before, after memory, expected int) {
	const noise = 4 << 10
	if most := before.sentry*105/100 + max(expected, 0) + noise; after.sentry > most {
		b.problem("sentry memory is %d kB, and was %d kB before: want %d kB at most", after.sentry, before.sentry, most)
	}
	if most := before.program*105/100 + noise; after.program > most {
		b.problem("memory of programs is %d kB, and was %d kB before: want %d kB at most", after.program, before.program, most)
	}
}

// end ends the sandbox, and looks into its log.
func (b *box) end() {
	b.t.Helper()
	b.stdin.Close()
	if err := b.cmd.Wait(); err != nil {
		b.problem("the sandbox: %v: %s", err, b.stderr.String())
	}
	if log := b.lookIntoLogs(); !strings.Contains(log, "Exiting with status: ") {
		// It is said after the check for leaks.
		b.problem("no end of the sentry in its log")
	}
}

// lookIntoLogs looks for reports in all logs, and returns the sentry's.
func (b *box) lookIntoLogs() string {
	b.t.Helper()
	names, err := filepath.Glob(filepath.Join(b.logs(), "*"))
	if err != nil {
		b.t.Fatal(err)
	}
	var sentrys strings.Builder
	for _, name := range names {
		log, err := os.ReadFile(name)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, report := range reports.FindAll(log, -1) {
			b.problem("%s: %s", filepath.Base(name), report)
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

// flags returns runsc-ext's flags, without the one by which it ignores what an edit of
// the spec asks for.
func flags(platform string, edits []func(spec map[string]any)) []string {
	all := sandbox.Flags(platform)
	if len(edits) > 0 {
		all = slices.DeleteFunc(all, func(f string) bool { return f == "--ignore-cgroups" })
	}
	return all
}
