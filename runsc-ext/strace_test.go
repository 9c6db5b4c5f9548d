package main_test

import (
	"bytes"
	"context"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"runsc-ext/test/sandbox"
)

// strace follows all tasks into all calls, so every child is made in a stop that has
// to end: a stop that is lost ends the sandbox, or hangs it.
func TestStrace(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("no strace here: apt-get install strace")
	}
	if runtime.GOARCH != "amd64" {
		t.Skipf("the program's children are counted for amd64, this is %s", runtime.GOARCH)
	}
	program, err := sandbox.Build("runsc-ext/runsc-ext/testdata/threeabis", runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	for _, platform := range sandbox.Platforms {
		t.Run(platform, func(t *testing.T) {
			t.Parallel()
			do, err := sandbox.Do(platform, strace, "-f", program)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, do.Path, do.Args[1:]...)
			cmd.WaitDelay = 10 * time.Second
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			err = cmd.Run()
			// What the program ends with, and so strace, the sandbox and runsc-ext.
			if status := cmd.ProcessState.ExitCode(); status != 42 {
				t.Errorf("%v: %v, want exit status 42; output:\n%s", cmd, err, out.String())
			}
			if n := strings.Count(out.String(), "+++ exited with 5 +++"); n != 6 {
				t.Errorf("strace saw the end of %d children, want 6; output:\n%s", n, out.String())
			}
		})
	}
}
