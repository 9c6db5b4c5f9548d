// SPDX-License-Identifier: Apache-2.0

package storm

import (
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
	calls   = flag.Int("calls", 2000, "`number` of clone4 calls in each sandbox, in 10 storms")
	seed    = flag.Uint64("seed", 1, "`seed` of the random calls")
	lockdep = flag.Bool("lockdep", false, "build a sentry that checks the order of its locks")
	isGuest = flag.Bool("guest", false, "run as the guest: execute the commands in the arguments or in standard input, and test nothing")
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

// rounds is the number of storms of each kind in a sandbox. After two tidy storms, a sandbox has
// allocated all memory that it allocates only once.
const rounds = 5

// TestStorm checks that a sandbox is intact after storms: the sandbox answers, has no task left,
// and has no report in its logs. Half of the calls are in tidy storms, after which the sandbox
// must not need more memory than before. The other half are in wild storms, after which gVisor
// keeps the state of some tasks. So the test sets no limit for memory after these.
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
						b.Problem("the tidy storms executed %d programs and sent %d signals, want some of both", execs, signals)
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

// runStorm runs a storm in a box. It checks that the storm has made its calls, that enough calls
// have created a child, and that some calls have failed.
func runStorm(t *testing.T, b *box.Box, kind, level string, seed uint64, calls int) outcome {
	t.Helper()
	out := say(b, fmt.Sprintf("storm %s %s %d %d", kind, level, seed, calls))
	rate := float64(out.Calls) / out.Seconds
	t.Logf("%s: %+v, %.0f calls in a second", kind, out, rate)
	if out.Calls < calls || out.Children < out.Calls/3 || len(out.Errors) == 0 {
		b.Problem("storm: %+v, want %d calls, a third of them with a child, and some with an error", out, calls)
	}
	return out
}

// say sends a command to the guest, and records the problems that the answer shows.
func say(b *box.Box, command string) outcome {
	var out outcome
	b.Say(&out, command)
	checkOutcome(b, out)
	return out
}

func checkOutcome(b *box.Box, out outcome) {
	if out.Error != "" {
		b.Problem("error of the guest: %s", out.Error)
	}
	if len(out.Left) > 0 {
		b.Problem("tasks left: %q", out.Left)
	}
}

// TestNative checks the guest itself on the reference kernel: both kinds of storm make their
// calls there, and leave no process.
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

// TestStormFinds checks that the checks of TestStorm find faults: four of the sentry, which are in
// testdata/faulty, and a child that the guest leaves.
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
				t.Errorf("problems: %q, want one with %q", b.Problems, tc.want)
			}
		})
	}
}

// TestGVisorReports checks that gVisor has the messages that box looks for in logs, and the calls
// by which box measures memory. The test reads gVisor's source, because a stuck task or a wrong
// order of locks cannot be caused in a short time.
func TestGVisorReports(t *testing.T) {
	for file, phrases := range map[string][]string{
		"pkg/refs/refs_map.go":            {"Leak checking detected"},
		"pkg/sentry/watchdog/watchdog.go": {"Sentry detected %d stuck task(s)", "Watchdog goroutine is stuck"},
		"pkg/sync/locking/lockdep.go":     {"circular locking detected", "nested locking: ", "maximum lock depth"},
		"pkg/sentry/control/usage.go":     {"func (u *Usage) Reduce("},
		"runsc/boot/controller.go":        {"&control.Usage{"},
	} {
		t.Run(file, func(t *testing.T) {
			src := sandbox.GVisorSource(t, file)
			for _, phrase := range phrases {
				if !strings.Contains(src, phrase) {
					t.Errorf("%s does not have %q", file, phrase)
				}
			}
		})
	}
}

// lockdepBinary returns the path of a runsc-ext that checks the order of its locks if -lockdep is
// set. Otherwise, lockdepBinary returns "", which means the usual binary.
func lockdepBinary(t *testing.T) string {
	t.Helper()
	if !*lockdep {
		return ""
	}
	return build(t, "-tags=lockdep")
}

// faulty builds a runsc-ext with the faults in testdata/faulty, and returns its path.
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

// build builds runsc-ext with an additional flag of go build, and returns the path.
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
