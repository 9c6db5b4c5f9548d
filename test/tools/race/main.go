// SPDX-License-Identifier: Apache-2.0

// Command race runs the suites test/syscalls and test/clonefd in a sentry with the race
// detector, on each platform. It fails if a stack of a report contains code of this module.
//
//	go run ./test/tools/race
//
// The command needs a C compiler and a static C library (gcc and libc6-dev on Debian), and
// ten minutes or more. CI does not run it.
//
// Three copies of a suite run in one sandbox at the same time. The detector finds no race between
// consecutive calls, because they are ordered. For example, a counter in kernel.Clone without a
// lock gives no report with one copy, and reports with three. With the pinned gVisor there is no
// report, of this module or of gVisor, on systrap and ptrace. KVM has not been tried.
//
// # How to build such a sentry
//
// The race detector needs cgo, and a sentry with cgo needs four changes:
//
//   - With cgo, runsc-ext has no sentry, because main_cgo.go takes the place of main. So
//     -overlay replaces it by another main, testdata/main.go.
//   - The sentry executes itself in an empty root directory without a dynamic linker. The symptoms
//     are "cannot read client sync file: ... EOF", and in the sentry's log "fork/exec
//     /proc/self/exe: no such file or directory". So the binary is static, with
//     -ldflags='-linkmode=external -extldflags=-static'. -tags=netgo,osusergo keeps it from
//     loading shared libraries later.
//   - glibc registers its threads for rseq(2). A platform's stub process inherits the
//     registration and unmaps all memory, and the kernel then kills the process. The sandbox
//     hangs; on ptrace, subprocess.go logs "The thread 17:17 has been interrupted by 11" without
//     end. So main sets GLIBC_TUNABLES=glibc.pthread.rseq=0 and executes itself again. A sentry
//     starts with an empty environment, and keeps the variables that it sets itself.
//   - Reports go to the sentry's standard error, which is closed. So --panic-log=FILE opens a
//     file for them.
//
// gVisor itself supports -race: its seccomp filters then allow the detector's own calls
// (runsc/boot/filter/config/extra_filters_race.go), and systrap does not yield while it waits.
// Both make it a sentry only for tests.
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

// suites are the packages of tests, each with its level of clone4.
var suites = []struct {
	pkg, level string
	copies     []string // flags of each
}{
	// One copy runs the tests with tracers, which take as long as all other tests, and the
	// tests that count the tasks of a user.
	{pkg: "syscalls", level: "on", copies: []string{"-test.skip=" + once, "-test.skip=" + once, "-test.run=" + once}},
	// Three times 10,000 live children take more than half an hour with the detector.
	{pkg: "clonefd", level: "fd", copies: []string{"-test.short", "-test.short", "-test.short"}},
}

const once = "^(TestTrace|TestProcessLimit|TestForkBomb)"

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
	if err := build(tmp); err != nil {
		return false, err
	}
	ok := true
	for i := range suites {
		for _, platform := range sandbox.Platforms {
			ok = try(tmp, i, platform) && ok
		}
	}
	return ok, nil
}

// try runs suite i on a platform, and returns whether it passes without a report of this module.
func try(dir string, i int, platform string) bool {
	start := time.Now()
	name := suites[i].pkg + " on " + platform
	fmt.Printf("=== ON   %s\n", name)
	output, reports, err := inSandbox(dir, i, platform)
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
		outcome = "FAIL"
	}
	fmt.Printf("=== %s %s (%.0fs): %d reports with this module in a stack, %d of gVisor alone\n", outcome, name, time.Since(start).Seconds(), ours, others)
	return outcome != "FAIL"
}

// build builds runsc-ext with the race detector, at the level of each suite, and builds the suites
// without the detector.
func build(dir string) error {
	gomod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("go env GOMOD: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(gomod)))

	// With cgo, which the race detector needs, main_cgo.go takes the place of main.
	overlay := filepath.Join(dir, "overlay.json")
	b, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(root, "runsc-ext/main_cgo.go"): filepath.Join(root, "test/tools/race/testdata/main.go"),
	}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(overlay, b, 0o644); err != nil {
		return err
	}
	run := func(cgo string, args ...string) error {
		cmd := exec.Command("go", args...)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w\n%s", cmd, err, out)
		}
		return nil
	}
	for _, s := range suites {
		bin := filepath.Join(dir, s.level, "runsc-ext")
		// The binary is static, because the sentry executes itself without a dynamic linker.
		if err := run("1", "build", "-race", "-overlay="+overlay, "-tags=netgo,osusergo", "-ldflags=-linkmode=external -extldflags=-static", "-o", bin, "./runsc-ext"); err != nil {
			return err
		}
		if err := os.WriteFile(bin+".clone4", []byte(s.level), 0o644); err != nil {
			return err
		}
		if err := run("0", "test", "-c", "-o", filepath.Join(dir, s.pkg), "./test/"+s.pkg); err != nil {
			return err
		}
	}
	return nil
}

// inSandbox runs the copies of suite i in one sandbox, and returns their output and the reports of
// the race detector.
func inSandbox(dir string, i int, platform string) (output string, reports []string, err error) {
	s := suites[i]
	script := "status=0; pids=\n"
	for _, arg := range s.copies {
		// A signal to the process group of a copy must not reach the shell.
		script += fmt.Sprintf("setsid %s -test.timeout=20m '%s' & pids=\"$pids $!\"\n", filepath.Join(dir, s.pkg), arg)
	}
	script += "for pid in $pids; do wait $pid || status=1; done; exit $status"

	ctx, cancel := context.WithTimeout(context.Background(), 25*time.Minute)
	defer cancel()
	log := filepath.Join(dir, "reports-"+s.pkg+"-"+platform)
	// Reports go to the sentry's standard error, which is closed unless there is a log
	// for panics.
	args := append(sandbox.Flags(platform), "--panic-log="+log, "do", "/bin/sh", "-c", script)
	cmd := exec.CommandContext(ctx, filepath.Join(dir, s.level, "runsc-ext"), args...)
	cmd.Env = append(os.Environ(), "CLONE4_SANDBOX="+platform, "CLONE4_LEVEL="+s.level)
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
