// SPDX-License-Identifier: Apache-2.0

// Command race runs the suite in a sentry with the race detector, on each platform,
// and fails if there is a report that has this module in one of its stacks.
//
//	go run ./test/race
//
// It needs a C compiler and a static C library (gcc and libc6-dev on Debian). See
// docs/testing.md for how such a sentry differs.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"runsc-ext/test/sandbox"
)

// copies are the parts of the suite that run at the same time in one sandbox: what
// comes one after the other does not race. The tests with tracers take as long as
// all else, and of TestProcessLimit there can be only one, which has a user of its
// own.
var copies = []string{
	"-test.skip=" + once,
	"-test.skip=" + once,
	"-test.run=" + once,
}

const once = "^(TestTrace|TestProcessLimit)"

func main() {
	ok, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "race:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

func run() (bool, error) {
	tmp, err := os.MkdirTemp("", "race-*")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(tmp)
	fmt.Println("building with the race detector; this takes a minute or two the first time")
	runscExt, suite, err := build(tmp)
	if err != nil {
		return false, err
	}
	ok := true
	for _, platform := range sandbox.Platforms {
		start := time.Now()
		fmt.Printf("=== ON   %s\n", platform)
		output, reports, err := inSandbox(tmp, runscExt, suite, platform)
		if err != nil {
			fmt.Printf("%s\n%v\n", output, err)
		}
		ours, others := 0, 0
		for _, report := range reports {
			fmt.Println(report)
			if strings.Contains(report, "\n  runsc-ext/") {
				ours++
			} else {
				others++
			}
		}
		outcome := "OK  "
		if err != nil || ours > 0 {
			outcome, ok = "FAIL", false
		}
		fmt.Printf("=== %s %s (%.0fs): %d reports with this module in a stack, %d of gVisor alone\n", outcome, platform, time.Since(start).Seconds(), ours, others)
	}
	return ok, nil
}

// build builds runsc-ext with the race detector, and the suite without.
func build(dir string) (runscExt, suite string, err error) {
	gomod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", "", fmt.Errorf("go env GOMOD: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(gomod)))

	// With cgo, which the race detector needs, runsc-ext is a program that builds
	// itself without. It stays so for everyone else.
	overlay := filepath.Join(dir, "overlay.json")
	b, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(root, "runsc-ext/main_cgo.go"): filepath.Join(root, "test/race/testdata/main.go"),
	}})
	if err != nil {
		return "", "", err
	}
	if err := os.WriteFile(overlay, b, 0o644); err != nil {
		return "", "", err
	}
	runscExt, suite = filepath.Join(dir, "runsc-ext"), filepath.Join(dir, "suite")
	for _, c := range []struct {
		cgo  string
		args []string
	}{
		// Static: the sentry executes itself where there is no dynamic linker.
		{"1", []string{"build", "-race", "-overlay=" + overlay, "-tags=netgo,osusergo", "-ldflags=-linkmode=external -extldflags=-static", "-o", runscExt, "./runsc-ext"}},
		{"0", []string{"test", "-c", "-o", suite, "./test/syscalls"}},
	} {
		cmd := exec.Command("go", c.args...)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+c.cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", "", fmt.Errorf("%v: %w\n%s", cmd, err, out)
		}
	}
	return runscExt, suite, nil
}

// inSandbox runs the copies of the suite in one sandbox, and returns what they
// printed and the reports of the race detector.
func inSandbox(dir, runscExt, suite, platform string) (output string, reports []string, err error) {
	script := "status=0; pids=\n"
	for _, arg := range copies {
		script += fmt.Sprintf("%s -test.timeout=20m '%s' & pids=\"$pids $!\"\n", suite, arg)
	}
	script += "for pid in $pids; do wait $pid || status=1; done; exit $status"

	ctx, cancel := context.WithTimeout(context.Background(), 25*time.Minute)
	defer cancel()
	log := filepath.Join(dir, "reports-"+platform)
	// The sentry's standard error, where reports go, is closed unless there is a
	// log for panics.
	args := append(sandbox.Flags(platform), "--panic-log="+log, "do", "/bin/sh", "-c", script)
	cmd := exec.CommandContext(ctx, runscExt, args...)
	cmd.Env = append(os.Environ(), "CLONE4_SANDBOX="+platform)
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%v: %w", cmd, err)
	}
	b, logErr := os.ReadFile(log)
	if logErr != nil && !errors.Is(logErr, fs.ErrNotExist) || err == nil && logErr != nil {
		return string(out), nil, logErr
	}
	const separator = "=================="
	for part := range strings.SplitSeq(string(b), separator) {
		switch part = strings.TrimSpace(part); {
		case strings.HasPrefix(part, "WARNING: DATA RACE"):
			reports = append(reports, part)
		case part != "" && err == nil:
			err = fmt.Errorf("the sentry wrote to standard error: %s", part)
		case part != "":
			err = fmt.Errorf("%w\nthe sentry wrote to standard error: %s", err, part)
		}
	}
	return string(out), reports, err
}
