// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/perf/benchmath"
)

// report is what a measurement says.
type report struct {
	targets []target
	results map[string]samples
	names   []string // of what was measured
}

func newReport(targets []target, results map[string]samples) *report {
	names := make(map[string]bool)
	for _, s := range results {
		for name := range s {
			names[name] = true
		}
	}
	r := &report{targets: targets, results: results}
	r.names = slices.SortedFunc(maps.Keys(names), compareNames)
	return r
}

// groups are the first parts of names, in the order of the report.
var groups = []string{"entry", "process", "thread", "spawn", "threads", "live", "end", "program", "sandbox", "size", "other"}

var namePattern = regexp.MustCompile(`^([a-z]+)(?:-(\d+))?/(.+)$`)

// nameParts returns the group of what was measured, its number if it has one, and the
// variant.
func nameParts(name string) (group, number, variant string) {
	m := namePattern.FindStringSubmatch(name)
	if m == nil {
		panic(fmt.Sprintf("%q is no name of what this command measures", name))
	}
	return m[1], m[2], m[3]
}

// compareNames sorts by group, then by number, then by name.
func compareNames(a, b string) int {
	groupA, numberA, _ := nameParts(a)
	groupB, numberB, _ := nameParts(b)
	n, _ := strconv.Atoi(numberA)
	m, _ := strconv.Atoi(numberB)
	return cmp.Or(cmp.Compare(slices.Index(groups, groupA), slices.Index(groups, groupB)), cmp.Compare(n, m), cmp.Compare(a, b))
}

// ratio is the median of the ratios of the rounds, and its 95% confidence interval.
type ratio struct {
	Median float64  `json:"median"`
	Low    *float64 `json:"low,omitempty"` // not with less than 6 rounds
	High   *float64 `json:"high,omitempty"`
}

func (r *ratio) String() string {
	switch {
	case r == nil:
		return ""
	case r.Low == nil:
		return fmt.Sprintf("%.2f", r.Median)
	}
	return fmt.Sprintf("%.2f [%.2f, %.2f]", r.Median, *r.Low, *r.High)
}

// ratio returns the ratio of what was measured in two targets, or nil if it was not
// in one of them. It is one of pairs: what the machine did in a round is in both.
func (r *report) ratio(target, name, toTarget, toName string) *ratio {
	var ratios []float64
	to := r.results[toTarget][toName]
	for round, v := range r.results[target][name] {
		if w := to[round]; w > 0 {
			ratios = append(ratios, v/w)
		}
	}
	return newRatio(ratios)
}

// groupRatio returns the ratio of the geometric means of what was measured of a group
// in two targets. It is the better one to see a small difference by, as many things
// that vary by themselves are in it.
func (r *report) groupRatio(target, group, toTarget string) *ratio {
	logs := make(map[int][]float64)
	for _, name := range r.names {
		if g, _, _ := nameParts(name); g != group {
			continue
		}
		to := r.results[toTarget][name]
		for round, v := range r.results[target][name] {
			if w := to[round]; w > 0 && v > 0 {
				logs[round] = append(logs[round], math.Log(v/w))
			}
		}
	}
	var ratios []float64
	for _, l := range logs {
		sum := 0.0
		for _, v := range l {
			sum += v
		}
		ratios = append(ratios, math.Exp(sum/float64(len(l))))
	}
	return newRatio(ratios)
}

// newRatio returns nil if there are none.
func newRatio(ratios []float64) *ratio {
	if len(ratios) == 0 {
		return nil
	}
	s := benchmath.AssumeNothing.Summary(benchmath.NewSample(ratios, &benchmath.DefaultThresholds), 0.95)
	result := &ratio{Median: s.Center}
	if !math.IsInf(s.Lo, 0) && !math.IsInf(s.Hi, 0) {
		result.Low, result.High = &s.Lo, &s.Hi
	}
	return result
}

// value returns the median of what was measured, for people; empty if it was not.
func (r *report) value(target, name string) string {
	values := slices.Collect(maps.Values(r.results[target][name]))
	if len(values) == 0 {
		return ""
	}
	v := median(values)
	units := []string{"ns", "µs", "ms", "s"}
	if isSize(name) {
		units = []string{"B", "kB", "MB", "GB"}
	}
	for v >= 1000 && len(units) > 1 {
		v, units = v/1000, units[1:]
	}
	return fmt.Sprintf("%.3g %s", v, units[0])
}

// isSize returns whether the unit is a byte, not a nanosecond.
func isSize(name string) bool { return strings.HasPrefix(name, "size/") }

// comparison is the ratio of two things that were measured in one target.
type comparison struct {
	in, of, to string
	ratio      *ratio
}

// methods compares clone4, by each ABI, with clone3 in the same sandbox, and ways to
// see the end of a child with the oldest.
func (r *report) methods() []comparison {
	var all []comparison
	for _, name := range r.names {
		group, method, _ := strings.Cut(name, "/")
		in, to := ours, group+"/clone3"
		switch {
		case group == "end" && method != "sigchld":
			in, to = fd, "end/sigchld"
		case group == "entry" || !strings.HasPrefix(method, "clone4"):
			continue
		}
		if ratio := r.ratio(in, name, in, to); ratio != nil {
			all = append(all, comparison{in, name, to, ratio})
		}
	}
	return all
}

// table returns the report in Markdown.
func (r *report) table() string {
	var b strings.Builder
	line := func(cells ...string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	head := func(cells ...string) {
		line(cells...)
		fmt.Fprintf(&b, "|%s\n", strings.Repeat("---|", len(cells)))
	}
	var others []string // compared with stock
	var all []string
	for _, t := range r.targets {
		all = append(all, t.name)
		if t.name != native && t.name != stock && t.name != fd {
			others = append(others, t.name)
		}
	}
	cells := []string{""}
	for _, o := range others {
		cells = append(cells, o+" / "+stock)
	}
	head(append(append(cells, ours+" / "+native), all...)...)
	for _, name := range r.names {
		cells := []string{name}
		for _, o := range others {
			cells = append(cells, r.ratio(o, name, stock, name).String())
		}
		cells = append(cells, r.ratio(ours, name, native, name).String())
		for _, t := range all {
			cells = append(cells, r.value(t, name))
		}
		line(cells...)
	}
	fmt.Fprint(&b, "\nGeometric means:\n\n")
	cells = []string{""}
	for _, o := range others {
		cells = append(cells, o+" / "+stock)
	}
	head(cells...)
	for _, g := range groups {
		cells := []string{g}
		measured := false
		for _, o := range others {
			c := r.groupRatio(o, g, stock)
			measured = measured || c != nil
			cells = append(cells, c.String())
		}
		if measured && g != "size" {
			line(cells...)
		}
	}
	if methods := r.methods(); len(methods) > 0 {
		fmt.Fprint(&b, "\nIn one sandbox:\n\n")
		head("", "to", "in", "ratio")
		for _, c := range methods {
			line(c.of, c.to, c.in, c.ratio.String())
		}
	}
	return b.String()
}

func (r *report) writeTable(path string) error {
	return os.WriteFile(path, []byte(r.table()), 0o644)
}

// resultsFile is the name of the file with every sample.
const resultsFile = "results.json"

// result is what was measured of one thing, as JSON.
type result struct {
	Name    string                     `json:"name"`
	Unit    string                     `json:"unit"`
	ToStock map[string]*ratio          `json:"to_stock"` // by target
	Samples map[string]map[int]float64 `json:"samples"`  // by target and round
}

func (r *report) writeJSON(path string) error {
	var all []result
	for _, name := range r.names {
		res := result{name, "ns", make(map[string]*ratio), make(map[string]map[int]float64)}
		if isSize(name) {
			res.Unit = "B"
		}
		for _, t := range r.targets {
			if ratio := r.ratio(t.name, name, stock, name); ratio != nil && t.name != stock {
				res.ToStock[t.name] = ratio
			}
			if rounds := r.results[t.name][name]; len(rounds) > 0 {
				res.Samples[t.name] = rounds
			}
		}
		all = append(all, res)
	}
	b, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// readJSON reads what writeJSON has written, if it has.
func readJSON(path string) (map[string]samples, error) {
	results := make(map[string]samples)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return results, nil
	}
	if err != nil {
		return nil, err
	}
	var all []result
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, res := range all {
		for target, rounds := range res.Samples {
			if results[target] == nil {
				results[target] = make(samples)
			}
			results[target][res.Name] = rounds
		}
	}
	return results, nil
}

// writeBenchmarks writes a file for each target that benchstat can read.
func (r *report) writeBenchmarks(dir string) error {
	for _, t := range r.targets {
		var b strings.Builder
		fmt.Fprintf(&b, "goos: %s\ngoarch: %s\npkg: runsc-ext/test/perf\n", runtime.GOOS, runtime.GOARCH)
		for _, name := range r.names {
			unit := "ns/op"
			if isSize(name) {
				unit = "B"
			}
			rounds := r.results[t.name][name]
			for _, round := range slices.Sorted(maps.Keys(rounds)) {
				fmt.Fprintf(&b, "Benchmark%s%s 1 %.1f %s\n", strings.ToUpper(name[:1]), name[1:], rounds[round], unit)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, t.name+".txt"), []byte(b.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
