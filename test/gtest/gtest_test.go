// SPDX-License-Identifier: Apache-2.0

// Package gtest_test compiles and runs test/syscalls/linux, the tests in the form of gVisor's own
// suite. It runs them in sandboxes, on the machine's kernel, which does not have clone4, and on
// the reference kernel.
package gtest_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"runsc-ext/test/sandbox"
)

// source is in a directory without Go files, because a Go package with C++ files needs cgo.
const source = "../syscalls/linux/clone4_test.cc"

var (
	passed  = regexp.MustCompile(`(?m)^\[  PASSED  \] (\d+) tests`)
	skipped = regexp.MustCompile(`(?m)^\[  SKIPPED \] (\d+) tests`)
	ran     = regexp.MustCompile(`(?m)^\[==========\] Running (\d+) tests`)
)

func TestGtest(t *testing.T) {
	cxx, err := exec.LookPath("g++")
	if err != nil {
		t.Skipf("%v: apt-get install g++", err)
	}
	// This program needs googletest and no file of this module.
	probe := exec.Command(cxx, "-x", "c++", "-std=c++17", "-static", "-o", os.DevNull, "-", "-lgtest", "-lgtest_main")
	probe.Stdin = strings.NewReader("#include <gtest/gtest.h>\nTEST(A, B) {}\n")
	if out, err := probe.CombinedOutput(); err != nil {
		t.Skipf("g++ cannot link static programs with googletest: apt-get install libgtest-dev: %v\n%s", err, out)
	}
	bin := filepath.Join(t.TempDir(), "clone4_test")
	cc := exec.Command(cxx, "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o", bin, source, "-lgtest", "-lgtest_main")
	if out, err := cc.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cc, err, out)
	}

	check := func(t *testing.T, cmd *exec.Cmd, clone4 bool) {
		t.Helper()
		out, err := cmd.CombinedOutput()
		count := func(re *regexp.Regexp) string {
			if m := re.FindSubmatch(out); m != nil {
				return string(m[1])
			}
			return "0"
		}
		all, want := count(ran), count(passed)
		if !clone4 {
			want = count(skipped)
		}
		if err != nil || all == "0" || all != want {
			t.Errorf("%v: %v: %s tests ran, %s passed, %s were skipped\n%s", cmd, err, all, count(passed), count(skipped), out)
		}
	}
	t.Run("host", func(t *testing.T) { check(t, exec.Command(bin), false) })
	for _, platform := range sandbox.Platforms {
		t.Run(platform, func(t *testing.T) {
			cmd, err := sandbox.Do(platform, bin)
			if err != nil {
				t.Fatal(err)
			}
			check(t, cmd, true)
		})
	}
	t.Run("reference", func(t *testing.T) {
		cmd, err := sandbox.Native(bin)
		if missing := sandbox.Missing(""); errors.As(err, &missing) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		check(t, cmd, true)
	})
}
