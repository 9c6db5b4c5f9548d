// SPDX-License-Identifier: Apache-2.0

// Package guest builds the guests of test/perf: the programs that run in every target.
// c/guest.c describes how test/perf asks a guest for a measurement.
package guest

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"runsc-ext/test/sandbox"
)

// Programs has the command line of each guest.
type Programs struct {
	C     []string // the C guest, and the program that the C guest spawns
	Large []string // the Go program of test/perf/large
}

// Build builds the guests. It writes the C programs to dir.
func Build(dir string) (Programs, error) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		return Programs{}, fmt.Errorf("no compiler for the guests, which are C programs: %w: apt-get install gcc libc6-dev", err)
	}
	large, err := sandbox.Build("runsc-ext/test/perf/large", runtime.GOARCH)
	if err != nil {
		return Programs{}, err
	}
	gomod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return Programs{}, fmt.Errorf("go env GOMOD: %w", err)
	}
	module := filepath.Dir(strings.TrimSpace(string(gomod)))
	source := filepath.Join(module, "test", "perf", "guest", "c")
	guest, exit := filepath.Join(dir, "guest"), filepath.Join(dir, "exit")
	for _, args := range [][]string{
		{"-O2", "-Wall", "-Wextra", "-Werror", "-static", "-I", filepath.Join(module, "include"), "-o", guest, filepath.Join(source, "guest.c")},
		{"-O2", "-Wall", "-Wextra", "-Werror", "-static", "-nostdlib", "-o", exit, filepath.Join(source, "exit.c")},
	} {
		cmd := exec.Command(gcc, args...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return Programs{}, fmt.Errorf("%v: %w\n%s", cmd, err, out)
		}
	}
	return Programs{C: []string{guest, exit}, Large: []string{large}}, nil
}
