// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"runsc-ext/test/perf/guest"
	"runsc-ext/test/sandbox"
)

// The names of the targets. docs/performance.md describes them.
const (
	native = "native"
	stock  = "stock"
	ours   = "runsc-ext"
	off    = "off"
	fd     = "fd" // level fd; the C guest uses CLONE_FD before its first case: see guestIn
)

// parseTarget parses the value name=path of -with.
func parseTarget(s string) (target, error) {
	name, path, ok := strings.Cut(s, "=")
	if !ok || name == "" || path == "" {
		return target{}, fmt.Errorf("%q is not name=path", s)
	}
	path, err := filepath.Abs(path)
	return target{name: name, binary: path}, err
}

// kind returns the name of the target whose cases are measured in t. A target of -with has
// the cases of fd if its name begins with fd, and otherwise those of runsc-ext.
func (t target) kind() string {
	switch {
	case strings.HasPrefix(t.name, fd):
		return fd
	case slices.Contains([]string{native, stock, off}, t.name):
		return t.name
	}
	return ours
}

// build builds the binaries of all targets, and copies them to dir.
func build(dir, platform string) ([]target, error) {
	stockBinary, err := sandbox.Build("gvisor.dev/gvisor/runsc", runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	oursBinary, err := sandbox.Binary()
	if err != nil {
		return nil, err
	}
	// Each sandbox runs a copy of its binary, which no build replaces during the run. All
	// copies are in dir, so that no difference comes from the file system of a binary.
	targets := []target{{name: native}, {stock, stockBinary, platform}, {ours, oursBinary, platform}, {off, oursBinary, platform}, {fd, oursBinary, platform}}
	for i, t := range targets {
		if t.binary == "" {
			continue
		}
		to := filepath.Join(dir, t.name, "runsc")
		if err := copyFile(to, t.binary); err != nil {
			return nil, err
		}
		targets[i].binary = to
	}
	// The file NAME.clone4 beside a binary sets the level of the binary: see docs/levels.md.
	for _, level := range []string{off, fd} {
		if err := os.WriteFile(filepath.Join(dir, level, "runsc.clone4"), []byte(level+"\n"), 0o644); err != nil {
			return nil, err
		}
	}
	return targets, nil
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

// The units of samples.
const (
	cpuTime  = "cpu-ns"
	wallTime = "wall-ns"
	size     = "B"
)

// key is the case and the unit of a sample.
type key struct{ name, unit string }

// samples has the measured values of one target, by case and unit and by round.
type samples map[key]map[int]float64

// measurement measures one case. If it has several phases, each phase is a case,
// such as many-100/wait-kill.
type measurement struct {
	name  string
	n     int      // repetitions or children: enough for 100 ms or more in a sandbox
	args  string   // the command of group program
	every int      // 1 is every round, 2 every second round, and so on
	in    []string // kinds of targets; nil is all
}

// measurements returns all measurements.
func measurements() []measurement {
	var all []measurement
	add := func(n, every int, in []string, names ...string) {
		for _, name := range names {
			all = append(all, measurement{name: name, n: n, every: every, in: in})
		}
	}
	add(1, 1, nil, "sandbox/do-true")
	add(300, 1, nil, "process/fork", "process/clone3", "process/clone4", "process/clone4-x32", "process/clone4-i386")
	add(300, 1, nil, "spawn/posix_spawn", "spawn/clone3", "spawn/clone4", "spawn/clone4-x32", "spawn/clone4-i386")
	add(1500, 1, nil, "thread/pthread", "thread/clone3", "thread/clone4", "thread/clone4-x32", "thread/clone4-i386")
	add(20, 1, nil, "large/clone3", "large/clone4")
	add(200000, 1, nil, "call/getpid")
	add(5000, 1, nil, "pipe/round-trip")
	add(20000, 1, nil, "pipe/self", "file/stat", "file/open-close", "file/read", "file/write")
	add(2000, 1, nil, "file/map")
	add(20000, 1, nil, "refused/unknown", "refused/clone3", "refused/clone4", "refused/clone4-x32", "refused/clone4-i386")
	for _, threads := range []int{1, 2, 8, 32} {
		for _, method := range []string{"clone3", "clone4"} {
			add(64, 2, []string{native, stock, ours}, fmt.Sprintf("threads-%d/%s", threads, method))
		}
		add(64, 2, []string{fd}, fmt.Sprintf("threads-%d/clone3", threads), fmt.Sprintf("threads-%d/pidfd", threads), fmt.Sprintf("threads-%d/clonefd", threads))
	}
	for _, way := range []string{"wait", "sigchld", "pidfd", "waitid", "clonefd", "read"} {
		add(300, 1, []string{native, fd}, "end/fork-"+way, "end/spawn-"+way)
		add(2000, 1, []string{native, fd}, "end/vm-"+way)
	}
	for _, children := range []int{1, 100, 1000, 10000} {
		every := 2
		if children == 10000 {
			every = 4
		}
		if children > 1 {
			for _, way := range []string{"wait", "pidfd", "pidfd-epoll", "clonefd", "clonefd-epoll"} {
				add(children, every, []string{fd}, fmt.Sprintf("many-%d/%s", children, way))
			}
		}
		for _, pair := range []string{"wait-wait", "pidfd-pidfd", "clonefd-clonefd"} {
			add(100, every, []string{fd}, fmt.Sprintf("live-%d/%s", children, pair))
		}
	}
	add(0, 1, nil, "memory/sandbox")
	add(100, 3, nil, "memory/process")
	add(10000, 3, []string{fd}, "memory/wait", "memory/pidfd", "memory/clonefd", "memory/exited-pidfd", "memory/exited-clonefd")
	for name, command := range map[string]string{
		"shell":    "i=0; while [ $i -lt 20 ]; do /bin/true; x=$(echo $i | cat); i=$((i+1)); done",
		"dd":       "exec dd if=/dev/zero of=/dev/null bs=1 count=20000 2>/dev/null",
		"find":     "exec find /usr/share/doc -size +100k >/dev/null",
		"go-build": "exec go build -gcflags=-N -o /tmp/perf-guest-build runsc-ext/test/perf/large",
	} {
		all = append(all, measurement{name: "program/" + name, n: 1, args: command, every: 2, in: []string{native, stock, ours, off}})
	}
	return all
}

// rounds has the guests and the targets of a run of this command, and the results.
type rounds struct {
	guests  guest.Programs
	targets []target
	results map[string]samples // by target
}

// run measures n rounds, or until ctx is done, and adds them to the results. The targets take
// turns for each measurement, in random order, so that other work of the machine slows all
// targets alike.
func (r *rounds) run(ctx context.Context, n int, match *regexp.Regexp) error {
	first := 0
	for _, t := range r.targets {
		if r.results[t.name] == nil {
			r.results[t.name] = make(samples)
		}
		for _, values := range r.results[t.name] {
			for round := range values {
				first = max(first, round+1)
			}
		}
	}
	byGroup := make(map[string][]measurement)
	for _, m := range measurements() {
		if match.MatchString(m.name) {
			group, _, _ := nameParts(m.name)
			byGroup[group] = append(byGroup[group], m)
		}
	}
	all := slices.Collect(maps.Values(byGroup))
	for round := range n {
		fmt.Fprintf(os.Stderr, "\rround %d of %d", round+1, n)
		err := r.round(ctx, first+round, round, all)
		if ctx.Err() != nil {
			fmt.Fprintln(os.Stderr, "\nstopped: the results have what was measured so far")
			return nil
		}
		if err != nil {
			return err
		}
	}
	fmt.Fprintln(os.Stderr)
	return nil
}

// round measures one round of this run. The samples of the round are stored under id.
func (r *rounds) round(ctx context.Context, id, round int, all [][]measurement) error {
	for _, i := range rand.Perm(len(all)) {
		if err := r.group(ctx, id, round, all[i]); err != nil {
			return err
		}
	}
	return nil
}

// guestKey identifies a guest of a group.
type guestKey struct{ target, way string }

// way returns the way in which a case learns of a child's exit, if the case needs a guest that
// knows no other way. A program uses one way for all its children.
func way(name string) string {
	group, _, variant := nameParts(name)
	if group != "end" && group != "live" {
		return ""
	}
	_, way, _ := strings.Cut(variant, "-")
	return way
}

// group measures the cases of one group. Each group has new guests, because the earlier work
// of a sandbox changes its speed: systrap, for example, keeps its threads.
func (r *rounds) group(ctx context.Context, id, round int, all []measurement) (err error) {
	sessions := make(map[guestKey]*session)
	defer func() {
		for _, s := range sessions {
			err = errors.Join(err, s.close())
		}
	}()
	group, _, _ := nameParts(all[0].name)
	for _, i := range rand.Perm(len(all)) {
		m := all[i]
		if round%m.every != 0 {
			continue
		}
		for _, j := range rand.Perm(len(r.targets)) {
			t := r.targets[j]
			if m.in != nil && !slices.Contains(m.in, t.kind()) {
				continue
			}
			add := func(name, unit string, value float64) { r.add(t, id, key{name, unit}, value) }
			var err error
			switch group {
			case "sandbox":
				err = r.empty(ctx, t, m.name, add)
			case "memory":
				err = r.memory(ctx, t, m, add)
			default:
				k := guestKey{t.name, way(m.name)}
				if sessions[k] == nil {
					if sessions[k], err = r.guestIn(ctx, t, r.program(group)); err != nil {
						break
					}
				}
				err = r.times(ctx, t, sessions[k], m, add)
			}
			if err != nil {
				return fmt.Errorf("in %s: %w", t.name, err)
			}
		}
	}
	// The memory of each target after all cases of a group.
	for _, t := range r.targets {
		if s := sessions[guestKey{target: t.name}]; s != nil && s.cgroup.memory != "" && slices.Contains(judged, group) {
			held, err := s.held()
			if err != nil {
				return err
			}
			r.add(t, id, key{"memory/after-" + group, size}, held)
		}
	}
	return nil
}

// add adds a value to the results. It ignores 0, which means that nothing was measured.
func (r *rounds) add(t target, round int, k key, value float64) {
	if r.results[t.name][k] == nil {
		r.results[t.name][k] = make(map[int]float64)
	}
	if value != 0 {
		r.results[t.name][k][round] = value
	}
}

// program returns the command line of the guest that measures a group.
func (r *rounds) program(group string) []string {
	if group == "large" {
		return r.guests.Large
	}
	return r.guests.C
}

// guestIn starts a guest in t. If t is of kind fd, the C guest creates a child with
// CLONE_FD before the first measurement.
func (r *rounds) guestIn(ctx context.Context, t target, program []string) (*session, error) {
	s, err := t.start(ctx, program...)
	if err == nil && t.kind() == fd && len(program) == len(r.guests.C) {
		_, err = s.measure("end/vm-clonefd", 1, "")
	}
	return s, err
}

// times measures the CPU time and the wall time of each phase of a measurement.
func (r *rounds) times(ctx context.Context, t target, s *session, m measurement, add func(name, unit string, value float64)) error {
	phases, err := s.measure(m.name, m.n, m.args)
	if err != nil {
		return err
	}
	for _, p := range phases {
		name := m.name
		if p.name != "" {
			name += "-" + p.name
		}
		add(name, wallTime, p.wall/float64(m.n))
		add(name, cpuTime, p.cpu/float64(m.n))
	}
	if len(phases) != 1 || s.cpu != "" {
		return nil
	}
	// Without a cgroup, the CPU time is that of an additional sandbox, from start to exit.
	group, _, _ := nameParts(m.name)
	alone, err := r.guestIn(ctx, t, r.program(group))
	if err != nil {
		return err
	}
	_, err = alone.measure(m.name, m.n, m.args)
	if err := errors.Join(err, alone.close()); err != nil {
		return err
	}
	add(m.name, cpuTime, alone.rusage()/float64(m.n))
	return nil
}

// empty measures a run of true(1) in t, from start to exit, and the size of the binary of t.
func (r *rounds) empty(ctx context.Context, t target, name string, add func(name, unit string, value float64)) error {
	start := time.Now()
	s, err := t.start(ctx, "true")
	if err != nil {
		return err
	}
	s.stdin.Close()
	_, err = io.Copy(io.Discard, s.stdout)
	if err := errors.Join(err, s.cmd.Wait()); err != nil {
		return fmt.Errorf("%v: %w\n%s", s.cmd, err, s.stderr.Bytes())
	}
	add(name, wallTime, float64(time.Since(start).Nanoseconds()))
	cpu := s.rusage()
	if s.cpu != "" {
		if cpu, err = s.cpuTime(); err != nil {
			return err
		}
	}
	add(name, cpuTime, cpu)
	if t.binary != "" {
		fi, err := os.Stat(t.binary)
		if err != nil {
			return err
		}
		add("memory/binary", size, float64(fi.Size()))
	}
	return s.remove()
}

// memory measures the memory of a target with an idle guest, or the additional memory for
// each of n children or descriptors. Each measurement has a new session, because a session
// reuses the memory of its earlier measurements.
func (r *rounds) memory(ctx context.Context, t target, m measurement, add func(name, unit string, value float64)) error {
	s, err := r.guestIn(ctx, t, r.guests.C)
	if err != nil {
		return err
	}
	if s.cgroup.memory == "" {
		fmt.Fprintln(os.Stderr, "\rmemory is not measured: this user cannot create a cgroup of the memory controller in /sys/fs/cgroup")
		return s.close()
	}
	// An answer shows that the guest has started.
	if _, err := s.measure("call/getpid", 1, ""); err != nil {
		return err
	}
	time.Sleep(200 * time.Millisecond)
	if m.n == 0 {
		held, err := s.held()
		if err != nil {
			return err
		}
		add(m.name, size, held)
		return s.close()
	}
	phases, err := s.measure(strings.Replace(m.name, "memory/", "hold/", 1), m.n, "")
	if err := errors.Join(err, s.close()); err != nil {
		return err
	}
	for _, p := range phases {
		add(m.name, size, p.held/float64(m.n))
	}
	return nil
}
