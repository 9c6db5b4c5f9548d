// SPDX-License-Identifier: Apache-2.0

// Command record records runsc-ext/default.pgo, by which the go command optimizes
// runsc-ext, from sentries at work.
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
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/pprof/profile"

	"runsc-ext/test/sandbox"
)

// guests are what sentries are recorded with. Each counts as much as any other,
// however long it takes.
func guests(measure string) map[string][]string {
	return map[string][]string{
		"children, threads and single calls":          {"/bin/sh", "-c", measure + " children 30; " + measure + " calls 3"},
		"a program that does little but system calls": {"dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=1000000"},
		"a shell script": {"/bin/sh", "-c", "i=0; while [ $i -lt 1000 ]; do /bin/true; x=$(echo $i | cat); i=$((i+1)); done"},
		"files":          {"/bin/sh", "-c", "tar cf - /usr/include | wc -c; find /usr/share/doc -size +100k"},
		"a Go build":     {"/bin/sh", "-c", "for i in 1 2 3 4 5; do go build -gcflags=-N -o /tmp/guest runsc-ext/test/perf/guest; done"},
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
	measure, err := sandbox.Build("runsc-ext/test/perf/guest", runtime.GOARCH)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "record-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)

	var all []*profile.Profile
	for name, args := range guests(measure) {
		fmt.Println("recording", name)
		p, err := record(filepath.Join(tmp, "cpu.pprof"), binary, args)
		if err != nil {
			return err
		}
		all = append(all, p)
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

// record runs args in a sandbox and returns the profile of its sentry.
func record(path, binary string, args []string) (*profile.Profile, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	flags := append(sandbox.Flags("systrap"), "--profile", "--profile-cpu="+path, "do")
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
	if total < 100 {
		return nil, fmt.Errorf("%v: %d samples in the profile, which is too few", cmd, total)
	}
	p.Scale(1e6 / float64(total))
	return p, nil
}

// trim leaves what the compiler looks at, which is the number of samples of each
// call, and of that the most frequent stacks, which are 99% of the samples.
func trim(p *profile.Profile) {
	const samples = 0 // of the two values of a CPU profile
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
