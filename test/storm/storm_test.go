// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"runsc-ext/test/box"
	"runsc-ext/test/sandbox"
)

var (
	calls   = flag.Int("calls", 2000, "make this many calls in each sandbox, in 10 storms")
	seed    = flag.Uint64("seed", 1, "make the calls of this seed")
	lockdep = flag.Bool("lockdep", false, "build the sentry with gVisor's check of the order of locks")
	isGuest = flag.Bool("guest", false, "be the guest, which does what the arguments or standard input say; test nothing")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if *isGuest {
		if err := guest(flag.Args()); err != nil {
			fmt.Fprintln(os.Stderr, "guest:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(box.Run(m))
}

var levels = []string{"on", "fd"}

// rounds is how many equal storms of each kind a sandbox has. After the second tidy one,
// what a sandbox allocates once is there.
const rounds = 5

// TestStorm checks that a sandbox is what it was after a storm: the sandbox answers, has
// no task left, and its log has no report. One half of the calls are tidy storms, after
// each of which the sandbox has to need as much memory as before; the other is a wild
// storm, after which gVisor keeps the state of some tasks.
func TestStorm(t *testing.T) {
	binary := lockdepBinary(t)
	for _, level := range levels {
		t.Run(level, func(t *testing.T) {
			for _, p := range box.Platforms() {
				t.Run(p, func(t *testing.T) {
					t.Parallel()
					b := box.New(t, box.Options{
						Binary: binary, Platform: p, Level: level,
						Patience: 10*time.Minute + time.Duration(*calls)*time.Millisecond,
					})
					var before, after box.Memory
					children, execs, signals := 0, 0, 0
					for round := range rounds {
						out := runStorm(t, b, "tidy", level, *seed+uint64(round), *calls/2/rounds)
						after = b.Memory()
						t.Logf("memory after round %d: %+v kB", round+1, after)
						if round < 2 {
							before = after
						} else {
							children += out.Children
						}
						execs += out.Execs
						signals += out.Signals
					}
					if execs == 0 || signals == 0 {
						b.Problem("that was no storm: %d programs executed, %d signals sent", execs, signals)
					}
					b.WantMemory(before, after, children)
					for round := range rounds {
						runStorm(t, b, "wild", level, *seed+uint64(round), *calls/2/rounds)
					}
					t.Logf("memory after the wild storms: %+v kB", b.Memory())
					b.WantAnswer()
					b.End()
					b.Report()
					t.Logf("problems, such as a panic, a stuck task or a leaked reference: %d", len(b.Problems))
				})
			}
		})
	}
}

// runStorm makes a storm in a box, and checks that the storm was one.
func runStorm(t *testing.T, b *box.Box, kind, level string, seed uint64, calls int) outcome {
	t.Helper()
	out := say(b, fmt.Sprintf("storm %s %s %d %d", kind, level, seed, calls))
	rate := float64(out.Calls) / out.Seconds
	t.Logf("%s: %+v, %.0f calls in a second", kind, out, rate)
	if out.Calls < calls || out.Children < out.Calls/3 || len(out.Errors) == 0 {
		b.Problem("that was no storm: %+v", out)
	}
	return out
}

// say tells the guest to do something, and notes as a problem what went wrong.
func say(b *box.Box, command string) outcome {
	var out outcome
	b.Say(&out, command)
	checkOutcome(b, out)
	return out
}

func checkOutcome(b *box.Box, out outcome) {
	if out.Error != "" {
		b.Problem("the guest: %s", out.Error)
	}
	if len(out.Left) > 0 {
		b.Problem("tasks left: %q", out.Left)
	}
}

// TestNative checks that storms come to their end where they test nothing: on the
// reference kernel.
func TestNative(t *testing.T) {
	bin, err := sandbox.BuildTest("runsc-ext/test/storm", runtime.GOARCH)
	sandbox.Need(t, err)
	const calls = 800
	var commands []string
	for _, kind := range []string{"tidy", "wild"} {
		commands = append(commands, fmt.Sprintf("storm %s on %d %d", kind, *seed, calls))
	}
	cmd, err := sandbox.Native(bin, append([]string{"-guest"}, commands...)...)
	sandbox.Need(t, err)
	r := sandbox.Output(t, cmd)
	answers := json.NewDecoder(strings.NewReader(r.Stdout))
	for _, command := range commands {
		var out outcome
		if err := answers.Decode(&out); err != nil {
			t.Fatalf("%s: %v: got %v", command, err, r)
		}
		t.Logf("%s: %+v", command, out)
		if out.Error != "" || out.Left != nil || out.Calls < calls {
			t.Errorf("%s: %+v", command, out)
		}
	}
}

// TestStormFinds checks the checks of TestStorm: each has to see the fault that it is for.
func TestStormFinds(t *testing.T) {
	bin := faulty(t)
	const tidy = "storm tidy on 1 800"
	for _, tc := range []struct {
		name     string
		commands []string
		want     string
	}{
		{name: "reference leak", commands: []string{"call 1900"}, want: "Leak checking detected"},
		{name: "memory", commands: []string{"call 1901"}, want: "sentry memory"},
		{name: "memory of each child", commands: []string{"call 1903", tidy}, want: "sentry memory"},
		{name: "panic", commands: []string{"call 1902"}, want: "panic: fault 1902"},
		{name: "task", commands: []string{"leave"}, want: "tasks left"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := box.New(t, box.Options{Binary: bin, Platform: sandbox.Platforms[0]})
			say(b, tidy)
			before := b.Memory()
			children := 0
			for _, command := range tc.commands {
				children += say(b, command).Children
			}
			b.WantMemory(before, b.Memory(), children)
			b.WantAnswer()
			b.End()
			if !slices.ContainsFunc(b.Problems, func(p string) bool { return strings.Contains(p, tc.want) }) {
				t.Errorf("not found: problems are %q, want %q in one", b.Problems, tc.want)
			}
		})
	}
}

// TestGVisorReports checks that gVisor still reports what box looks for in the log, in the
// same words. The pinned source is asked, as a watchdog or a lock cannot be made to
// complain in a short time.
func TestGVisorReports(t *testing.T) {
	r := sandbox.Run(t, "go", "list", "-m", "-f", "{{.Dir}}", "gvisor.dev/gvisor")
	if r.Status != 0 {
		t.Fatal(r)
	}
	for file, phrases := range map[string][]string{
		"pkg/refs/refs_map.go":            {"Leak checking detected"},
		"pkg/sentry/watchdog/watchdog.go": {"Sentry detected %d stuck task(s)", "Watchdog goroutine is stuck"},
		"pkg/sync/locking/lockdep.go":     {"circular locking detected", "nested locking: ", "maximum lock depth"},
		"pkg/sentry/control/usage.go":     {"func (u *Usage) Reduce("},
		"runsc/boot/controller.go":        {"&control.Usage{"},
	} {
		t.Run(file, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join(strings.TrimSpace(r.Stdout), file))
			if err != nil {
				t.Fatal(err)
			}
			for _, phrase := range phrases {
				if !bytes.Contains(b, []byte(phrase)) {
					t.Errorf("%s does not have %q", file, phrase)
				}
			}
		})
	}
}

// lockdepBinary returns a runsc-ext that checks the order of locks if -lockdep asks for
// one, and "" for the usual one otherwise.
func lockdepBinary(t *testing.T) string {
	t.Helper()
	if !*lockdep {
		return ""
	}
	return build(t, "-tags=lockdep")
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
	sandbox.WriteFile(t, name, string(overlay))
	return build(t, "-overlay="+name)
}

// build builds runsc-ext in another way than others use it.
func build(t *testing.T, flag string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "runsc-ext")
	cmd := exec.Command("go", "build", "-trimpath", flag, "-o", bin, "runsc-ext/runsc-ext")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if r := sandbox.Output(t, cmd); r.Status != 0 {
		t.Fatal(r)
	}
	return bin
}
