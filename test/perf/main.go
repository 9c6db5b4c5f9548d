// SPDX-License-Identifier: Apache-2.0

// Command perf measures runsc-ext beside stock runsc of the same gVisor version.
//
//	go run ./test/perf
//
// It builds both, runs the same guests in both, in runsc-ext switched off, in runsc-ext at
// level fd and without a sandbox, by turns, and prints the ratios of their CPU times and
// wall times. A folder gets every figure as text and as JSON, in the format of Go's
// benchmarks for benchstat, and the ratios as a plot. See docs/performance.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"

	"runsc-ext/test/perf/guest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "perf:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, stdout io.Writer, args []string) error {
	flag := flag.NewFlagSet("perf", flag.ExitOnError)
	n := flag.Int("rounds", 30, "how often everything is measured; below 6 there is no interval")
	out := flag.String("out", "perf-results", "folder for the results; what is there already is added to")
	platform := flag.String("platform", "systrap", "gVisor platform")
	only := flag.String("run", "", "measure only what has a name that matches this regular expression")
	in := flag.String("in", "", "measure only in targets that have a name which matches this regular expression")
	var others []target
	flag.Func("with", "`name=path` of another runsc to measure; may be repeated", func(s string) error {
		t, err := parseTarget(s)
		others = append(others, t)
		return err
	})
	flag.Parse(args)
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	match, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	inMatch, err := regexp.Compile(*in)
	if err != nil {
		return fmt.Errorf("-in: %w", err)
	}

	tmp, err := os.MkdirTemp("", "perf-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	guests, err := guest.Build(tmp)
	if err != nil {
		return err
	}
	targets, err := build(tmp, *platform)
	if err != nil {
		return err
	}
	for _, t := range others {
		t.platform = *platform
		targets = append(targets, t)
	}
	targets = slices.DeleteFunc(targets, func(t target) bool { return !inMatch.MatchString(t.name) })
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return err
	}
	results, err := readJSON(filepath.Join(*out, resultsFile))
	if err != nil {
		return err
	}
	all := rounds{guests: guests, targets: targets, results: results}
	if err := all.run(ctx, *n, match); err != nil {
		return err
	}
	r := newReport(targets, results)
	fmt.Fprint(stdout, r.summary())
	for name, write := range map[string]func(string) error{
		resultsFile:   r.writeJSON,
		"summary.md":  r.writeSummary,
		"results.txt": r.writeCases,
		"ratios.svg":  r.writePlot,
	} {
		if err := write(filepath.Join(*out, name)); err != nil {
			return err
		}
	}
	return r.writeBenchmarks(*out)
}
