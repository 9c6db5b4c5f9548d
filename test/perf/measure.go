// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/perf/benchmath"

	"runsc-ext/test/sandbox"
)

// target is what guests run in.
type target struct {
	name     string
	binary   string // empty: no sandbox
	platform string
}

const (
	native = "native"
	stock  = "stock"
	ours   = "runsc-ext"
	off    = "off"
	fd     = "fd"
)

// parseTarget parses name=path.
func parseTarget(s string) (target, error) {
	name, path, ok := strings.Cut(s, "=")
	if !ok || name == "" || path == "" {
		return target{}, fmt.Errorf("%q is not name=path", s)
	}
	path, err := filepath.Abs(path)
	return target{name: name, binary: path}, err
}

// build builds the targets and the guest.
func build(dir, platform string) (targets []target, guest string, err error) {
	if guest, err = sandbox.Build("runsc-ext/test/perf/guest", runtime.GOARCH); err != nil {
		return nil, "", err
	}
	stockBinary, err := sandbox.Build("gvisor.dev/gvisor/runsc", runtime.GOARCH)
	if err != nil {
		return nil, "", err
	}
	oursBinary, err := sandbox.Binary()
	if err != nil {
		return nil, "", err
	}
	// Copies, side by side: what is measured must not be built again meanwhile, and
	// must not differ by where it is.
	targets = []target{{name: native}, {stock, stockBinary, platform}, {ours, oursBinary, platform}, {off, oursBinary, platform}, {fd, oursBinary, platform}}
	for i, t := range targets {
		if t.binary == "" {
			continue
		}
		to := filepath.Join(dir, t.name, "runsc")
		if err := copyFile(to, t.binary); err != nil {
			return nil, "", err
		}
		targets[i].binary = to
	}
	for _, level := range []string{off, fd} {
		if err := os.WriteFile(filepath.Join(dir, level, "runsc.clone4"), []byte(level+"\n"), 0o644); err != nil {
			return nil, "", err
		}
	}
	return targets, guest, nil
}

func copyFile(to, from string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

// command returns the command that runs args in t.
func (t target) command(ctx context.Context, args ...string) *exec.Cmd {
	if t.binary != "" {
		args = append(append(append([]string{t.binary}, sandbox.Flags(t.platform)...), "do"), args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// output runs args in t and returns what they print.
func (t target) output(ctx context.Context, args ...string) (string, error) {
	// Longer than anything takes, so that a sandbox that hangs ends the run.
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cmd := t.command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%v: %w\n%s%s", cmd, err, stdout.Bytes(), stderr.Bytes())
	}
	return stdout.String(), nil
}

// samples are the measured values of one target, one of each round, by what was
// measured.
type samples map[string]map[int]float64

// measurement is one run of this command.
type measurement struct {
	guest   string
	targets []target
}

// part is something to measure.
type part struct {
	name  string
	every int // measured in one of so many rounds
	run   func(ctx context.Context, t target) (map[string]float64, error)
}

// rounds measures everything in every target, in so many rounds, or until it is
// stopped, and adds that to the results. The order of the targets is another one each
// time.
func (m *measurement) rounds(ctx context.Context, n int, match *regexp.Regexp, results map[string]samples) (map[string]samples, error) {
	first := 0
	for _, t := range m.targets {
		if results[t.name] == nil {
			results[t.name] = make(samples)
		}
		for _, values := range results[t.name] {
			for round := range values {
				first = max(first, round+1)
			}
		}
	}
	for round := range n {
		fmt.Fprintf(os.Stderr, "\rround %d of %d", round+1, n)
		for _, p := range m.parts() {
			if round%p.every != 0 || !match.MatchString(p.name) {
				continue
			}
			for _, i := range rand.Perm(len(m.targets)) {
				t := m.targets[i]
				if t.name == fd && p.name != "ends" {
					continue // what there is at level fd alone
				}
				values, err := p.run(ctx, t)
				if ctx.Err() != nil {
					fmt.Fprintln(os.Stderr, "\nstopped")
					return results, nil
				}
				if err != nil {
					return nil, fmt.Errorf("%s in %s: %w", p.name, t.name, err)
				}
				for name, v := range values {
					if results[t.name][name] == nil {
						results[t.name][name] = make(map[int]float64)
					}
					results[t.name][name][first+round] = v
				}
			}
		}
	}
	fmt.Fprintln(os.Stderr)
	return results, nil
}

func (m *measurement) parts() []part {
	parts := []part{
		{"start", 1, m.start},
		{"calls", 1, func(ctx context.Context, t target) (map[string]float64, error) {
			return m.inGuest(ctx, t, "calls", "2")
		}},
		{"children", 1, func(ctx context.Context, t target) (map[string]float64, error) {
			return m.inGuest(ctx, t, "children", "2")
		}},
		{"ends", 1, func(ctx context.Context, t target) (map[string]float64, error) {
			return m.inGuest(ctx, t, "ends", "2")
		}},
		m.program("shell", 1, "/bin/sh", "-c", "i=0; while [ $i -lt 20 ]; do /bin/true; x=$(echo $i | cat); i=$((i+1)); done"),
		m.program("dd", 1, "dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=20000"),
		m.program("find", 1, "find", "/usr/share/doc", "-size", "+100k"),
		m.program("go-build", 2, "go", "build", "-gcflags=-N", "-o", "/tmp/guest", "runsc-ext/test/perf/guest"),
		{"memory", 3, m.memory},
	}
	for _, n := range []int{1, 100, 1000, 10000} {
		parts = append(parts, part{"live", 3, func(ctx context.Context, t target) (map[string]float64, error) {
			return m.inGuest(ctx, t, "live", strconv.Itoa(n))
		}})
	}
	return parts
}

// inGuest runs the guest, and returns the median of each thing that it has measured.
func (m *measurement) inGuest(ctx context.Context, t target, args ...string) (map[string]float64, error) {
	out, err := t.output(ctx, append([]string{m.guest}, args...)...)
	if err != nil {
		return nil, err
	}
	all := make(map[string][]float64)
	for line := range strings.Lines(out) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		ns, err := strconv.ParseFloat(value, 64)
		if !ok || err != nil {
			return nil, fmt.Errorf("the guest printed %q, which is no name with a number", line)
		}
		all[name] = append(all[name], ns)
	}
	medians := make(map[string]float64)
	for name, values := range all {
		medians[name] = median(values)
	}
	return medians, nil
}

func median(values []float64) float64 {
	return benchmath.AssumeNothing.Summary(benchmath.NewSample(values, &benchmath.DefaultThresholds), 0).Center
}

// start measures how long a sandbox takes that runs a program which does nothing,
// and the size of the binary.
func (m *measurement) start(ctx context.Context, t target) (map[string]float64, error) {
	start := time.Now()
	if _, err := t.output(ctx, "true"); err != nil {
		return nil, err
	}
	values := map[string]float64{"sandbox/do-true": float64(time.Since(start).Nanoseconds())}
	if t.binary != "" {
		fi, err := os.Stat(t.binary)
		if err != nil {
			return nil, err
		}
		values["size/binary"] = float64(fi.Size())
	}
	return values, nil
}

// program measures a program that is on the machine.
func (m *measurement) program(name string, every int, args ...string) part {
	return part{name, every, func(ctx context.Context, t target) (map[string]float64, error) {
		if _, err := exec.LookPath(args[0]); err != nil {
			return nil, nil
		}
		values, err := m.inGuest(ctx, t, append([]string{"time"}, args...)...)
		return map[string]float64{"program/" + name: values["time"]}, err
	}}
}

// memory measures what a sandbox with one idle program takes of the machine's memory,
// and what it takes more for each idle child.
func (m *measurement) memory(ctx context.Context, t target) (map[string]float64, error) {
	const children = 100
	one, err := m.held(ctx, t, 0)
	if errors.Is(err, errNoCgroup) {
		fmt.Fprintf(os.Stderr, "\rmemory is not measured: %v\n", err)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	more, err := m.held(ctx, t, children)
	return map[string]float64{"size/memory": one, "size/memory-per-child": (more - one) / children}, err
}

var errNoCgroup = errors.New("there is no memory cgroup that this user may make one in")

// cgroup makes a memory cgroup, of version 1 or 2.
func cgroup() (dir, usage string, err error) {
	for _, v := range []struct{ parent, usage string }{
		{"/sys/fs/cgroup/memory", "memory.usage_in_bytes"},
		{"/sys/fs/cgroup", "memory.current"},
	} {
		dir, err := os.MkdirTemp(v.parent, "runsc-ext-perf-*")
		if err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, v.usage)); err == nil {
			return dir, v.usage, nil
		}
		os.Remove(dir)
	}
	return "", "", errNoCgroup
}

// held returns the memory of a target with so many idle children, with the kernel's
// for its processes and without what is cached of files.
func (m *measurement) held(ctx context.Context, t target, children int) (float64, error) {
	dir, usage, err := cgroup()
	if err != nil {
		return 0, err
	}
	defer os.Remove(dir)

	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := t.command(ctx, m.guest, "hold", strconv.Itoa(children))
	// The shell enters the cgroup and becomes the command.
	shell := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(dir, "cgroup.procs")}, cmd.Args...)...)
	stdin, err := shell.StdinPipe()
	if err != nil {
		return 0, err
	}
	stdout, err := shell.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := shell.Start(); err != nil {
		return 0, err
	}
	ready := make([]byte, len("ready\n"))
	_, err = io.ReadFull(stdout, ready)
	if err != nil {
		err = fmt.Errorf("%v did not get ready: %w", shell, err)
	}
	var bytes float64
	if err == nil {
		time.Sleep(200 * time.Millisecond)
		bytes, err = charged(dir, usage)
	}
	stdin.Close()
	return bytes, errors.Join(err, shell.Wait())
}

func charged(dir, usage string) (float64, error) {
	b, err := os.ReadFile(filepath.Join(dir, usage))
	if err != nil {
		return 0, err
	}
	bytes, err := strconv.ParseFloat(strings.TrimSpace(string(b)), 64)
	if err != nil {
		return 0, err
	}
	stat, err := os.ReadFile(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return 0, err
	}
	for _, m := range regexp.MustCompile(`(?m)^(?:in)?active_file (\d+)$`).FindAllSubmatch(stat, -1) {
		cached, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			return 0, err
		}
		bytes -= cached
	}
	return bytes, nil
}
