// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/perf/benchfmt"
)

// One round must run, and must say what it measured in each form: the figures are for
// whoever asks, and nothing here looks at them.
func TestOneRound(t *testing.T) {
	dir := t.TempDir()
	var table bytes.Buffer
	if err := run(t.Context(), &table, []string{"-rounds=1", "-run=^(start|calls|children|ends)$", "-out=" + dir}); err != nil {
		t.Fatal(err)
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}

	var results []result
	if err := json.Unmarshal(read("results.json"), &results); err != nil {
		t.Fatal(err)
	}
	// clone4 is where it should be, so that what is compared is what it is called.
	measured := make(map[string]bool)
	for _, r := range results {
		for target, samples := range r.Samples {
			measured[target+" "+r.Name] = true
			if len(samples) != 1 || samples[0] <= 0 {
				t.Errorf("%s in %s: samples %v, want one, above 0", r.Name, target, samples)
			}
		}
	}
	for _, name := range []string{"process/clone3", "thread/clone3", "spawn/clone3", "threads-32/clone3", "other/read", "sandbox/do-true"} {
		for _, target := range []string{native, stock, ours, off} {
			if !measured[target+" "+name] {
				t.Errorf("%s was not measured in %s", name, target)
			}
		}
		if strings.HasSuffix(name, "/clone3") {
			name = strings.TrimSuffix(name, "3") + "4"
			if !measured[ours+" "+name] || measured[stock+" "+name] || measured[off+" "+name] {
				t.Errorf("%s: measured in %s: %t, %s: %t, %s: %t; want it in the first alone", name, ours, measured[ours+" "+name], stock, measured[stock+" "+name], off, measured[off+" "+name])
			}
		}
		if !strings.Contains(table.String(), "| "+name+" |") {
			t.Errorf("the table has no %s:\n%s", name, table.String())
		}
	}

	if !measured[fd+" end/clonefd"] || measured[ours+" end/clonefd"] || !measured[ours+" end/sigchld"] || !measured[ours+" end/pidfd"] {
		t.Errorf("end: measured are %v, want clonefd at level fd alone, and the others in %s as well", measured, ours)
	}

	benchmarks := benchfmt.NewReader(bytes.NewReader(read(ours+".txt")), "")
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
		t.Errorf("%d benchmarks, error %v", n, benchmarks.Err())
	}

	svg := xml.NewDecoder(bytes.NewReader(read("ratios.svg")))
	for {
		if _, err := svg.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
