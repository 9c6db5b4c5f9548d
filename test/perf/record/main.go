// SPDX-License-Identifier: Apache-2.0

// Command record runs programs in sandboxes, and records a CPU profile of each sentry. It
// writes the merged profile to runsc-ext/default.pgo, by which the go command optimizes
// runsc-ext.
//
//	go run ./test/perf/record
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/pprof/profile"

	"runsc-ext/test/perf/guest"
	"runsc-ext/test/sandbox"
)

// guests returns the command lines to record, by name. The parameter is the command line
// of the C guest. On a platform, all have the same weight, however long they run.
func guests(c []string) map[string][]string {
	// The guest starts a phase of a measurement when it reads an empty line.
	measure := func(lines ...string) []string {
		script := `printf '` + strings.Join(lines, `\n\n`) + `\n\n' | ` + strings.Join(c, " ")
		return []string{"/bin/sh", "-c", script}
	}
	return map[string][]string{
		"processes":      measure("process/clone3 1500", "process/fork 1000", "process/clone4 1000"),
		"spawn":          measure("spawn/posix_spawn 500", "spawn/clone3 1000", "spawn/clone4 1000"),
		"threads":        measure("thread/clone3 8000", "thread/pthread 8000", "thread/clone4 8000", "threads-8/clone3 1000"),
		"calls":          measure("call/getpid 400000"),
		"pipes":          measure("pipe/round-trip 20000", "pipe/self 100000"),
		"files":          measure("file/stat 20000", "file/open-close 20000", "file/read 50000", "file/write 50000", "file/map 5000"),
		"dd":             {"dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=300000"},
		"a shell script": {"/bin/sh", "-c", "i=0; while [ $i -lt 200 ]; do /bin/true; x=$(echo $i | cat); i=$((i+1)); done"},
		"tar and find":   {"/bin/sh", "-c", "tar cf - /usr/include | wc -c; find /usr/share/doc -size +100k"},
		"a Go build":     {"/bin/sh", "-c", "for i in 1 2 3 4 5 6 7 8; do go build -gcflags=-N -o /tmp/guest runsc-ext/test/perf/large; done"},
	}
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "record:", err)
		os.Exit(1)
	}
}

func run() error {
	gomod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("go env GOMOD: %w", err)
	}
	output := filepath.Join(filepath.Dir(strings.TrimSpace(string(gomod))), "runsc-ext", "default.pgo")
	binary, err := sandbox.Binary()
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "record-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)

	programs, err := guest.Build(tmp)
	if err != nil {
		return err
	}
	var all []*profile.Profile
	for _, platform := range sandbox.Platforms {
		for name, args := range guests(programs.C) {
			fmt.Printf("recording %s on %s\n", name, platform)
			p, err := record(filepath.Join(tmp, "cpu.pprof"), binary, platform, args)
			if err != nil {
				return err
			}
			p.Scale(weights[platform])
			all = append(all, p)
		}
	}
	merged, err := profile.Merge(all)
	if err != nil {
		return err
	}
	trim(merged)
	var b bytes.Buffer
	if err := merged.Write(&b); err != nil {
		return err
	}
	fmt.Printf("writing %d kB to %s\n", b.Len()/1000, output)
	return os.WriteFile(output, b.Bytes(), 0o644)
}

// weights has the weight of each platform in the merged profile. The weight of systrap is
// larger, because systrap is the default. Most code of the sentry runs on both platforms.
var weights = map[string]float64{"systrap": 1, "ptrace": 0.25}

// record runs args in a sandbox, and returns the profile of the sandbox's sentry, scaled to
// a million samples.
func record(path, binary, platform string, args []string) (*profile.Profile, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	flags := append(sandbox.Flags(platform), "--profile", "--profile-cpu="+path, "do")
	cmd := exec.CommandContext(ctx, binary, append(flags, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%v: %w\n%s", cmd, err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p, err := profile.ParseData(b)
	if err != nil {
		return nil, fmt.Errorf("the profile of %v: %w", cmd, err)
	}
	var total int64
	for _, s := range p.Sample {
		total += s.Value[0]
	}
	if total < 50 {
		return nil, fmt.Errorf("%v: the profile has %d samples, want at least 50: give the guest more work", cmd, total)
	}
	p.Scale(1e6 / float64(total))
	return p, nil
}

// trim keeps only what the compiler reads: call stacks, and the number of samples of each.
// It removes the rarest stacks, which together have 1% of the samples.
func trim(p *profile.Profile) {
	const samples = 0 // index of the number of samples; index 1 is the CPU time
	p.SampleType = p.SampleType[:1]
	p.DefaultSampleType = ""
	p.Comments = nil
	var total int64
	for _, s := range p.Sample {
		s.Value = s.Value[:1]
		s.Label, s.NumLabel, s.NumUnit = nil, nil, nil
		total += s.Value[samples]
	}
	slices.SortStableFunc(p.Sample, func(a, b *profile.Sample) int { return int(b.Value[samples] - a.Value[samples]) })
	var sum int64
	for i, s := range p.Sample {
		if sum += s.Value[samples]; sum > total/100*99 {
			p.Sample = p.Sample[:i]
			break
		}
	}
	for _, m := range p.Mapping {
		m.File, m.BuildID = "", ""
	}
	for _, f := range p.Function {
		f.Filename = ""
	}
	*p = *p.Compact()
}
