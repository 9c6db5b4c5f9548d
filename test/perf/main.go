// SPDX-License-Identifier: Apache-2.0

// Command perf compares the speed and memory of runsc-ext with those of stock runsc of the
// same gVisor version.
//
//	go run ./test/perf
//
// The command builds both binaries. It runs the same guests in every target: stock runsc,
// runsc-ext at the levels on, off and fd, and no sandbox. It prints the ratios of CPU time
// and wall time. The folder of -out gets all samples (results.json, and a file for benchstat
// for each target), every case (results.txt) and a plot of the ratios (ratios.svg). See
// docs/performance.md.
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
	n := flag.Int("rounds", 30, "number of rounds to measure; a case with fewer than 6 rounds has no confidence interval")
	out := flag.String("out", "perf-results", "folder for the results; a further run adds its rounds to the results there")
	platform := flag.String("platform", "systrap", "gVisor platform of every sandbox")
	only := flag.String("run", "", "measure only cases whose name matches this regular expression")
	in := flag.String("in", "", "measure only in targets whose name matches this regular expression")
	var others []target
	flag.Func("with", "`name=path` of another runsc binary to measure; may be repeated", func(s string) error {
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
