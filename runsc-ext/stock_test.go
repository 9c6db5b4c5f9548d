// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"runsc-ext/test/sandbox"
)

// TestOlderCallsAsInStock checks that fork, vfork, clone and clone3 behave as in stock runsc of
// the same gVisor version. TestOlderCalls of test/syscalls logs what it sees under either
// runtime, and the logs must be equal.
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
				r := sandbox.Output(t, cmd)
				if r.Status != 0 {
					t.Fatal(r)
				}
				return regexp.MustCompile(`(?m)^ +older_test.go.*`).FindAllString(r.Stdout, -1)
			}
			want, got := seen(stock), seen(binary(t))
			if len(want) < 8 || strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("runsc-ext:\n%s\nstock runsc:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}
