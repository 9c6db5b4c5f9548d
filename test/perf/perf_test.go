// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/perf/benchfmt"
)

// TestOneRound checks that one round measures each case in exactly the targets that have the
// case, and that the output files have the results. The test ignores the values.
func TestOneRound(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skipf("%v: apt-get install gcc", err)
	}
	dir := t.TempDir()
	var summary bytes.Buffer
	// All cases would take minutes, and the others differ little from these.
	const some = `^sandbox/|/clone3$|^process/clone4|^(spawn|thread|large|threads-8)/(clone4|clonefd)$|posix_spawn|pthread|^call/|^pipe/self|^file/stat|^end/vm-(sigchld|clonefd)$|^many-100/clonefd-epoll$|^live-100/clonefd|^memory/clonefd$`
	if err := run(t.Context(), &summary, []string{"-rounds=1", "-run=" + some, "-out=" + dir}); err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}

	var results []result
	if err := json.Unmarshal([]byte(read("results.json")), &results); err != nil {
		t.Fatal(err)
	}
	measured := make(map[string]bool)
	for _, r := range results {
		for target, samples := range r.Samples {
			measured[target+" "+r.Name] = true
			if len(samples) != 1 {
				t.Errorf("%s in %s: samples %v, want one sample", r.Name, target, samples)
			}
		}
	}
	sandboxes := []string{stock, ours, off, fd}
	everywhere := append([]string{native}, sandboxes...)
	for _, tc := range []struct {
		name string
		in   []string
	}{
		{"sandbox/do-true", everywhere},
		{"process/clone3", everywhere},
		{"process/clone4", []string{ours, fd}},
		{"process/clone4-x32", []string{ours, fd}},
		{"spawn/posix_spawn", everywhere},
		{"spawn/clone4", []string{ours, fd}},
		{"thread/pthread", everywhere},
		{"thread/clone4", []string{ours, fd}},
		{"large/clone3", everywhere},
		{"large/clone4", []string{ours, fd}},
		{"call/getpid", everywhere},
		{"pipe/self", everywhere},
		{"file/stat", everywhere},
		{"refused/clone3", everywhere},
		{"threads-8/clone3", []string{native, stock, ours, fd}},
		{"threads-8/clone4", []string{ours}},
		{"threads-8/clonefd", []string{fd}},
		{"end/vm-sigchld", []string{native, fd}},
		{"end/vm-clonefd", []string{fd}},
		{"many-100/clonefd-epoll-collect", []string{fd}},
		{"live-100/clonefd-clonefd", []string{fd}},
	} {
		for _, target := range everywhere {
			if got, want := measured[target+" "+tc.name], slices.Contains(tc.in, target); got != want {
				t.Errorf("%s was measured in %s: %t, want %t", tc.name, target, got, want)
			}
		}
		if !strings.Contains(read("results.txt"), "\n"+tc.name+" ") {
			t.Errorf("results.txt has no line for %s", tc.name)
		}
	}
	for _, want := range []string{"| process |", "| end/vm-clonefd in fd | end/vm-sigchld in fd |", "| process/clone4 in runsc-ext | process/clone3 in stock |"} {
		if !strings.Contains(summary.String(), want) {
			t.Errorf("the summary has no line with %q:\n%s", want, summary.String())
		}
	}

	benchmarks := benchfmt.NewReader(strings.NewReader(read(ours+".txt")), "")
	n := 0
	for benchmarks.Scan() {
		switch r := benchmarks.Result().(type) {
		case *benchfmt.SyntaxError:
			t.Error(r)
		case *benchfmt.Result:
			n++
		}
	}
	if n == 0 || benchmarks.Err() != nil {
		t.Errorf("the file for benchstat has %d benchmarks, error %v, want at least one and no error", n, benchmarks.Err())
	}

	svg := xml.NewDecoder(strings.NewReader(read("ratios.svg")))
	for {
		if _, err := svg.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
