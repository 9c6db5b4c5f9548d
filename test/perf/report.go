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
	"text/tabwriter"

	"golang.org/x/perf/benchmath"
)

// report has the samples of all targets, and computes the ratios between targets.
type report struct {
	targets []target
	results map[string]samples
	names   []string // of the cases, sorted
}

func newReport(targets []target, results map[string]samples) *report {
	names := make(map[string]bool)
	for _, s := range results {
		for k := range s {
			names[k.name] = true
		}
	}
	r := &report{targets: targets, results: results}
	r.names = slices.SortedFunc(maps.Keys(names), compareNames)
	return r
}

// groups lists the groups of cases, in the order of the report. A group is the first part of
// a case's name.
var groups = []string{"process", "spawn", "thread", "call", "pipe", "file", "large", "threads", "refused", "program", "sandbox", "end", "live", "many", "memory"}

// judged lists the groups whose mean is the overall ratio.
var judged = groups[:6]

var namePattern = regexp.MustCompile(`^([a-z]+)(?:-(\d+))?/(.+)$`)

// nameParts splits the name of a case, which is GROUP/VARIANT or GROUP-NUMBER/VARIANT. The
// result number is empty if the name has none.
func nameParts(name string) (group, number, variant string) {
	m := namePattern.FindStringSubmatch(name)
	if m == nil {
		panic(fmt.Sprintf("%q is not the name of a case: want GROUP/VARIANT or GROUP-NUMBER/VARIANT", name))
	}
	return m[1], m[2], m[3]
}

// compareNames orders names by group, then by number, then by variant.
func compareNames(a, b string) int {
	groupA, numberA, _ := nameParts(a)
	groupB, numberB, _ := nameParts(b)
	n, _ := strconv.Atoi(numberA)
	m, _ := strconv.Atoi(numberB)
	return cmp.Or(cmp.Compare(slices.Index(groups, groupA), slices.Index(groups, groupB)), cmp.Compare(n, m), cmp.Compare(a, b))
}

// ratio is the median of the ratios of all rounds, and the 95% confidence interval of the
// median.
type ratio struct {
	Median float64  `json:"median"`
	Low    *float64 `json:"low,omitempty"` // nil with fewer than 6 rounds
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

// width returns the upper end of the interval divided by the lower end.
func (r *ratio) width() float64 {
	if r == nil || r.Low == nil {
		return math.Inf(1)
	}
	return *r.High / *r.Low
}

// byRound returns a divided by b, for each round that both have.
func byRound(a, b map[int]float64) map[int]float64 {
	ratios := make(map[int]float64)
	for round, v := range a {
		if w := b[round]; w > 0 {
			ratios[round] = v / w
		}
	}
	return ratios
}

// ratio returns the ratio of a case in target to a case in toTarget, or nil if no round has
// both. ratio divides within each round, because other work of the machine
// during a round slows both targets.
func (r *report) ratio(unit, target, name, toTarget, toName string) *ratio {
	return newRatio(byRound(r.results[target][key{name, unit}], r.results[toTarget][key{toName, unit}]))
}

// geomeans returns, for each round, the geometric mean of all ratios of the round.
func geomeans(all []map[int]float64) map[int]float64 {
	logs := make(map[int][]float64)
	for _, ratios := range all {
		for round, v := range ratios {
			logs[round] = append(logs[round], math.Log(v))
		}
	}
	means := make(map[int]float64)
	for round, l := range logs {
		sum := 0.0
		for _, v := range l {
			sum += v
		}
		means[round] = math.Exp(sum / float64(len(l)))
	}
	return means
}

// groupRatios returns, for each round, the geometric mean of the ratios of a group's cases.
// The mean varies less than the cases, so the mean shows smaller differences.
func (r *report) groupRatios(unit, target, group, toTarget string) map[int]float64 {
	var all []map[int]float64
	for _, name := range r.names {
		if g, _, _ := nameParts(name); g == group {
			all = append(all, byRound(r.results[target][key{name, unit}], r.results[toTarget][key{name, unit}]))
		}
	}
	return geomeans(all)
}

// overall returns the geometric mean of the judged groups. Each group has the same weight.
func (r *report) overall(unit, target, toTarget string) *ratio {
	var all []map[int]float64
	for _, g := range judged {
		all = append(all, r.groupRatios(unit, target, g, toTarget))
	}
	return newRatio(geomeans(all))
}

// newRatio returns the median of the ratios of all rounds, with its interval. Without
// any ratio, the result is nil.
func newRatio(ratios map[int]float64) *ratio {
	if len(ratios) == 0 {
		return nil
	}
	s := benchmath.AssumeNothing.Summary(benchmath.NewSample(slices.Collect(maps.Values(ratios)), &benchmath.DefaultThresholds), 0.95)
	result := &ratio{Median: s.Center}
	if !math.IsInf(s.Lo, 0) && !math.IsInf(s.Hi, 0) {
		result.Low, result.High = &s.Lo, &s.Hi
	}
	return result
}

// times returns the two units of time. The first is the leading unit: the unit in which the
// overall ratio of runsc-ext to stock has the narrower interval.
func (r *report) times() [2]string {
	if r.overall(wallTime, ours, stock).width() < r.overall(cpuTime, ours, stock).width() {
		return [2]string{wallTime, cpuTime}
	}
	return [2]string{cpuTime, wallTime}
}

func unitName(unit string) string {
	return map[string]string{cpuTime: "CPU time", wallTime: "wall time", size: "memory"}[unit]
}

func median(values []float64) float64 {
	return benchmath.AssumeNothing.Summary(benchmath.NewSample(values, &benchmath.DefaultThresholds), 0).Center
}

// value returns the median of a case as text for people, such as "1.23 ms". The text is
// empty if the case was not measured.
func (r *report) value(unit, target, name string) string {
	values := slices.Collect(maps.Values(r.results[target][key{name, unit}]))
	if len(values) == 0 {
		return ""
	}
	v := median(values)
	units := []string{"ns", "µs", "ms", "s"}
	if unit == size {
		units = []string{"B", "kB", "MB", "GB"}
	}
	for math.Abs(v) >= 1000 && len(units) > 1 {
		v, units = v/1000, units[1:]
	}
	return fmt.Sprintf("%.3g %s", v, units[0])
}

// compared returns the names of the targets that the report compares with stock: all
// except native and stock itself.
func (r *report) compared() []string {
	var names []string
	for _, t := range r.targets {
		if t.name != native && t.name != stock {
			names = append(names, t.name)
		}
	}
	return names
}

// comparison is the ratio of one case to another.
type comparison struct {
	in, of     string // target and case
	toIn, to   string // target and case to compare with
	lead, next *ratio // in the first and the second unit of times
}

// fewest has the smallest number of live children that each group measures.
var fewest = map[string]string{"many": "100", "live": "1"}

// comparisons compares these cases, if they were measured:
//   - clone4, through each ABI, with clone3 in the same sandbox;
//   - clone4, through the 64-bit ABI, with clone3 in stock runsc;
//   - the other ways to learn of a child's exit with the way of a SIGCHLD handler;
//   - CLONE_FD, and a wait without any descriptor, with a pidfd;
//   - 10,000 live children with the fewest.
func (r *report) comparisons() []comparison {
	var all []comparison
	units := r.times()
	add := func(in, of, toIn, to string) {
		if lead := r.ratio(units[0], in, of, toIn, to); lead != nil {
			all = append(all, comparison{in, of, toIn, to, lead, r.ratio(units[1], in, of, toIn, to)})
		}
	}
	for _, name := range r.names {
		group, number, _ := nameParts(name)
		path, method, _ := strings.Cut(name, "/")
		clone3 := path + "/clone3"
		switch {
		case group == "end":
			kind, way, _ := strings.Cut(method, "-")
			for _, t := range r.targets {
				if t.kind() != fd || way == "sigchld" {
					continue
				}
				add(t.name, name, t.name, path+"/"+kind+"-sigchld")
				for _, to := range map[string][]string{"wait": {"pidfd"}, "clonefd": {"pidfd"}, "read": {"pidfd", "waitid"}}[way] {
					add(t.name, name, t.name, path+"/"+kind+"-"+to)
				}
			}
		case group != "refused" && strings.HasPrefix(method, "clone4"):
			add(ours, name, ours, clone3)
			if method == "clone4" {
				add(ours, name, stock, clone3)
			}
		case group == "threads" && method == "clonefd":
			add(fd, name, fd, path+"/pidfd")
		case group == "many" || group == "live":
			if strings.HasPrefix(method, "clonefd") {
				add(fd, name, fd, path+"/"+strings.ReplaceAll(method, "clonefd", "pidfd"))
			}
			if number == "10000" {
				add(fd, name, fd, group+"-"+fewest[group]+"/"+method)
			}
		}
	}
	return all
}

// table collects the lines of a table in Markdown.
type table struct{ strings.Builder }

func (b *table) line(cells ...string) { fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | ")) }

func (b *table) head(cells ...string) {
	b.line(cells...)
	fmt.Fprintf(b, "|%s\n", strings.Repeat("---|", len(cells)))
}

// summary returns a table of the ratios to stock and a table of the comparisons, in Markdown.
func (r *report) summary() string {
	var b table
	units := r.times()
	others := r.compared()
	cells := []string{""}
	// The first target has a column for each unit of time. Every other target has one column,
	// for the leading unit.
	shown := func(i int) []string { return units[:max(1, 2-i)] }
	for i, o := range others {
		for _, u := range shown(i) {
			cells = append(cells, o+" / "+stock+", "+unitName(u))
		}
	}
	b.head(cells...)
	row := func(name string, get func(unit, target string) *ratio) {
		cells, measured := []string{name}, false
		for i, o := range others {
			for _, u := range shown(i) {
				c := get(u, o)
				measured = measured || c != nil
				cells = append(cells, c.String())
			}
		}
		if measured {
			b.line(cells...)
		}
	}
	row("**"+strings.Join(judged, ", ")+"**", func(u, t string) *ratio { return r.overall(u, t, stock) })
	for _, g := range groups {
		row(g, func(u, t string) *ratio { return newRatio(r.groupRatios(u, t, g, stock)) })
	}
	if all := r.comparisons(); len(all) > 0 {
		b.WriteString("\n")
		b.head("", "to", unitName(units[0]), unitName(units[1]))
		for _, c := range all {
			b.line(c.of+" in "+c.in, c.to+" in "+c.toIn, c.lead.String(), c.next.String())
		}
	}
	return b.String()
}

func (r *report) writeSummary(path string) error {
	return os.WriteFile(path, []byte(r.summary()), 0o644)
}

// writeCases writes one line for each case and unit: the median in each target, and the
// ratios to stock.
func (r *report) writeCases(path string) error {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "case\tunit")
	for _, t := range r.targets {
		fmt.Fprintf(w, "\t%s", t.name)
	}
	for _, o := range r.compared() {
		fmt.Fprintf(w, "\t%s/%s", o, stock)
	}
	fmt.Fprintln(w)
	for _, unit := range []string{cpuTime, wallTime, size} {
		for _, name := range r.names {
			line, measured := name+"\t"+unitName(unit), false
			for _, t := range r.targets {
				v := r.value(unit, t.name, name)
				measured = measured || v != ""
				line += "\t" + cmp.Or(v, "-")
			}
			for _, o := range r.compared() {
				line += "\t" + cmp.Or(r.ratio(unit, o, name, stock, name).String(), "-")
			}
			if measured {
				fmt.Fprintln(w, line)
			}
		}
	}
	w.Flush()
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

// resultsFile is the name of the file with all samples.
const resultsFile = "results.json"

// result has the ratios and samples of one case in one unit, as they are in resultsFile.
type result struct {
	Name    string                     `json:"name"`
	Unit    string                     `json:"unit"`
	ToStock map[string]*ratio          `json:"to_stock"` // by target
	Samples map[string]map[int]float64 `json:"samples"`  // by target and round
}

func (r *report) writeJSON(path string) error {
	var all []result
	for _, name := range r.names {
		for _, unit := range []string{cpuTime, wallTime, size} {
			res := result{name, unit, make(map[string]*ratio), make(map[string]map[int]float64)}
			for target, samples := range r.results {
				if rounds := samples[key{name, unit}]; len(rounds) > 0 {
					res.Samples[target] = rounds
				}
				if ratio := r.ratio(unit, target, name, stock, name); ratio != nil && target != stock {
					res.ToStock[target] = ratio
				}
			}
			if len(res.Samples) > 0 {
				all = append(all, res)
			}
		}
	}
	b, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// readJSON reads the samples of earlier runs from the file that writeJSON wrote. If there is
// no such file, readJSON returns no samples.
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
			results[target][key{res.Name, res.Unit}] = rounds
		}
	}
	return results, nil
}

// writeBenchmarks writes the samples of each target to a file in the format of benchstat.
func (r *report) writeBenchmarks(dir string) error {
	for _, t := range r.targets {
		var b strings.Builder
		fmt.Fprintf(&b, "goos: %s\ngoarch: %s\npkg: runsc-ext/test/perf\n", runtime.GOOS, runtime.GOARCH)
		for _, name := range r.names {
			for _, unit := range []string{cpuTime, wallTime, size} {
				as := map[string]string{cpuTime: "cpu-ns/op", wallTime: "ns/op", size: "B"}[unit]
				rounds := r.results[t.name][key{name, unit}]
				for _, round := range slices.Sorted(maps.Keys(rounds)) {
					fmt.Fprintf(&b, "Benchmark%s%s 1 %.1f %s\n", strings.ToUpper(name[:1]), name[1:], rounds[round], as)
				}
			}
		}
		if err := os.WriteFile(filepath.Join(dir, t.name+".txt"), []byte(b.String()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
