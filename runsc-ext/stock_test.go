package main_test

import (
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"runsc-ext/test/sandbox"
)

// The system calls that make children without clone4 must behave as in stock
// runsc, of the very version that runsc-ext is built from: the suite's test of
// them logs what it sees, and sees the same.
func TestOlderCallsAsInStock(t *testing.T) {
	stock, err := sandbox.Build("gvisor.dev/gvisor/runsc", runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	suite, err := sandbox.BuildTest("runsc-ext/test/syscalls", runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	for _, platform := range sandbox.Platforms {
		t.Run(platform, func(t *testing.T) {
			t.Parallel()
			seen := func(bin string) []string {
				cmd := exec.Command(bin, append(sandbox.Flags(platform), "do", suite, "-test.v", "-test.run=^TestOlderCalls$")...)
				cmd.Env = append(cmd.Environ(), "CLONE4_SANDBOX="+platform)
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("%v: %v\n%s", cmd, err, out)
				}
				return regexp.MustCompile(`(?m)^ +older_test.go.*`).FindAllString(string(out), -1)
			}
			want, got := seen(stock), seen(binary(t))
			if len(want) < 8 || strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("runsc-ext:\n%s\nstock runsc:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}
