// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"runsc-ext/test/kit"
	"runsc-ext/test/sandbox"
)

const (
	recordedSeed  = 1
	recordedCalls = 1000

	// emulatedCalls is the number of calls in an emulated machine. It covers every kind once.
	emulatedCalls = 200

	// becomes separates a call from its outcome in a line.
	becomes = " -> "

	maxShown = 20 // differences
)

// recorded are the files of outcomes on the reference kernel, by the number of ABIs. arm64 has
// one ABI. A call has the same meaning there, so it must have the outcome of Linux on amd64.
var recorded = map[int]struct {
	file  string
	calls int
}{
	3: {"native-seed1.txt", recordedCalls},
	1: {"native-64bit-seed1.txt", emulatedCalls},
}

// batch is a range of calls.
type batch struct {
	first, calls int
	abis         int
}

// args returns the arguments of a test binary that makes the calls.
func (b batch) args() []string {
	return []string{"-outcomes", fmt.Sprintf("-seed=%d", *seed), fmt.Sprintf("-first=%d", b.first), fmt.Sprintf("-calls=%d", b.calls), fmt.Sprintf("-abis=%d", b.abis), fmt.Sprintf("-older=%v", *older)}
}

func TestDifferential(t *testing.T) {
	if *record {
		for n, r := range recorded {
			recordTestdata(t, r.file, batch{calls: r.calls, abis: n})
		}
		return
	}
	whole := batch{first: *first, calls: cmp.Or(*calls, recordedCalls), abis: len(kit.ABIs())}
	for _, platform := range sandbox.Platforms {
		t.Run(platform, func(t *testing.T) {
			compare(t, whole, machine{runtime.GOARCH, platform}, func() (*exec.Cmd, error) {
				bin, err := sandbox.BuildTest(pkg, runtime.GOARCH)
				if err != nil {
					return nil, err
				}
				return sandbox.Do(platform, append([]string{bin}, whole.args()...)...)
			})
		})
	}
	for _, m := range []struct {
		machine
		abis int
	}{
		{machine{"amd64", "kvm"}, 3},
		{machine{"arm64", "systrap"}, 1},
	} {
		t.Run(m.platform+"-"+m.arch+"-emulated", func(t *testing.T) {
			if testing.Short() {
				t.Skip("-short")
			}
			b := batch{first: *first, calls: cmp.Or(*calls, emulatedCalls), abis: m.abis}
			compare(t, b, m.machine, func() (*exec.Cmd, error) { return sandbox.Emulated(m.arch, m.platform, nil, pkg, b.args()...) })
		})
	}
}

// compare runs a command that makes calls on a platform, and compares the outcomes that it
// prints with the outcomes on Linux.
func compare(t *testing.T, b batch, on machine, command func() (*exec.Cmd, error)) {
	t.Helper()
	want := expected(t, b)
	cmd, err := command()
	got := parse(t, b, run(t, cmd, err))
	differences, affected := 0, make([]int, len(knownDifferences))
	for i := range b.calls {
		c := generate(*seed, b.first+i, b.abis)
		w, g := want[i], got[i]
		if w == g {
			continue
		}
		// Count the calls in which a known difference shows.
		for k, known := range knownDifferences {
			if known.affects(c, on) {
				w, g = without(w, known.fields), without(g, known.fields)
				affected[k]++
			}
		}
		if w == g {
			continue
		}
		if differences++; differences <= maxShown {
			t.Errorf("call %d of seed %d: %v\n%s", b.first+i, *seed, c, diff(want[i], got[i]))
		}
	}
	if differences > maxShown {
		t.Errorf("... and %d more calls", differences-maxShown)
	}
	t.Logf("%d calls compared, %d differences", b.calls, differences)
	for k, known := range knownDifferences {
		if affected[k] != 0 {
			t.Logf("known difference in %d calls: %s: %s; not compared: %s", affected[k], known.name, known.why, cmp.Or(strings.Join(known.fields, ", "), "anything"))
		}
	}
}

// diff shows where two outcomes differ.
func diff(want, got string) string {
	w, g := strings.Fields(want), strings.Fields(got)
	if len(w) == len(g) {
		var differ []string
		for i := range w {
			if w[i] != g[i] {
				differ = append(differ, fmt.Sprintf("\tnative: %s\n\tsandbox: %s", w[i], g[i]))
			}
		}
		return strings.Join(differ, "\n")
	}
	return fmt.Sprintf("\tnative: %s\n\tsandbox: %s", want, got)
}

// live are outcomes from the reference kernel, by batch.
var live = make(map[batch][]string)

// expected returns the outcomes of calls on Linux.
func expected(t *testing.T, b batch) []string {
	t.Helper()
	if r := recorded[b.abis]; *seed == recordedSeed && b.first+b.calls <= r.calls && !*older {
		data, err := os.ReadFile(filepath.Join("testdata", r.file))
		if err != nil {
			t.Fatal(err)
		}
		return parse(t, batch{calls: r.calls, abis: b.abis}, data)[b.first : b.first+b.calls]
	}
	if live[b] == nil {
		cmd, err := native(b)
		live[b] = parse(t, b, run(t, cmd, err))
	}
	return live[b]
}

// recordTestdata makes calls on the reference kernel, and writes their outcomes to a file.
func recordTestdata(t *testing.T, file string, b batch) {
	t.Helper()
	if *seed != recordedSeed || *older {
		t.Fatalf("-record works only with seed %d, and without -older", recordedSeed)
	}
	cmd, err := native(b)
	out := run(t, cmd, err)
	parse(t, b, out)
	head := fmt.Sprintf(`# What %d calls of clone4 do on the reference kernel, a Linux with clone4: seed %d.
# Made by: go test ./test/differential -record
# On each line: the number of the call, the call, its outcome. The words are those
# of call.String and of (*recorder).record. Next is the kernel.
`, b.calls, recordedSeed)
	if err := os.WriteFile(filepath.Join("testdata", file), append([]byte(head), bytes.TrimSpace(out)...), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("testdata/%s: %d calls", file, b.calls)
}

// parse returns the outcomes of calls from the output of a run.
func parse(t *testing.T, b batch, out []byte) []string {
	t.Helper()
	var outcomes []string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		number, rest, _ := strings.Cut(line, " ")
		if n, err := strconv.Atoi(number); err != nil || n != b.first+len(outcomes) {
			if line != "" && !strings.HasPrefix(line, "#") {
				t.Logf("not a call: %s", line)
			}
			continue
		}
		call, outcome, ok := strings.Cut(rest, becomes)
		if want := generate(*seed, b.first+len(outcomes), b.abis).String(); !ok || call != want {
			t.Fatalf("call %s is\n\t%s\nwant\n\t%s\nIf you have changed the generator: go test ./test/differential -record", number, call, want)
		}
		outcomes = append(outcomes, outcome)
	}
	if len(outcomes) != b.calls {
		t.Fatalf("got the outcomes of %d calls, want %d; the next call is: %v", len(outcomes), b.calls, generate(*seed, b.first+len(outcomes), b.abis))
	}
	return outcomes
}

// run runs a command and returns its output. It has a time limit, because a call that hangs also
// hangs the sandbox or the machine.
func run(t *testing.T, cmd *exec.Cmd, err error) []byte {
	t.Helper()
	if m := sandbox.Missing(""); errors.As(err, &m) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if d, ok := t.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, d.Add(-20*time.Second))
		defer cancel()
	}
	bounded := exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
	bounded.Env = cmd.Env
	// SIGTERM comes first, so that the command can stop a machine that it has started.
	bounded.Cancel = func() error { return bounded.Process.Signal(syscall.SIGTERM) }
	bounded.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	bounded.Stdout, bounded.Stderr = &out, &out
	start := time.Now()
	if err := bounded.Run(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, tail(out.Bytes()))
	}
	t.Logf("%s: %.1fs", filepath.Base(cmd.Path), time.Since(start).Seconds())
	return out.Bytes()
}

// tail returns the end of an output.
func tail(out []byte) []byte { return out[max(0, len(out)-2000):] }

const pkg = "runsc-ext/test/differential"

// native returns the command that makes calls on the reference kernel.
func native(b batch) (*exec.Cmd, error) {
	bin, err := sandbox.BuildTest(pkg, runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	return sandbox.Native(bin, b.args()...)
}
