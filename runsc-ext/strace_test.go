// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"runsc-ext/test/sandbox"
)

// straceSteps returns two calls through each ABI: one that cannot stop its caller, and one that
// waits for its child. The last step exits, so the exit status shows that all steps ran.
func straceSteps() (steps []string) {
	for _, abi := range sandbox.ABIs() {
		steps = append(steps, abi+",settid", abi+",settid,vfork")
	}
	return append(steps, "exit=7")
}

// TestStrace checks that strace(1) in a sandbox follows the children of every call. Under a
// tracer, each call stops its task. If the sentry loses such a stop, it panics or hangs.
func TestStrace(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed: apt-get install strace")
	}
	for _, platform := range sandbox.Platforms {
		t.Run(platform, func(t *testing.T) {
			t.Parallel()
			cmd, err := sandbox.Do(platform, append([]string{strace, "-f"}, guest(t, straceSteps()...)...)...)
			if err != nil {
				t.Fatal(err)
			}
			r := sandbox.Output(t, cmd)
			if r.Status != 7 {
				t.Errorf("got %v\nwant status 7", r)
			}
			if n, want := strings.Count(r.Stderr, "+++ exited with 42 +++"), 2*len(sandbox.ABIs()); n != want {
				t.Errorf("strace saw %d children exit, want %d; output:\n%s", n, want, r.Stderr)
			}
		})
	}
}

// TestSentryStrace checks that gVisor's strace prints each call once, under the name clone4,
// even if the call is made again from the slot. x32 and i386 calls are printed whatever
// --strace-syscalls names: gVisor traces all calls that its table lacks, or none.
func TestSentryStrace(t *testing.T) {
	const (
		addr   = `0x[0-9a-f]+`
		native = `8, ` + addr + ` {ptid: ` + addr + `}`
		compat = `8, ` + addr + ` {ptid: ` + addr + `, ctid: 0x0}`
	)
	var want []string
	for i := range sandbox.ABIs() {
		args := native
		if i > 0 {
			args = compat
		}
		for _, flags := range []string{`CLONE_PARENT_SETTID\|SIGCHLD`, `CLONE_VM\|CLONE_VFORK\|CLONE_PARENT_SETTID\|SIGCHLD`} {
			call := `clone4\(` + flags + `, ` + args + `\)`
			want = append(want, `E `+call, `X `+call+` = \d+ \(`+addr+`\) \(.*\)`)
		}
	}
	for _, tc := range []struct {
		syscalls string // --strace-syscalls
		want     []string
	}{
		{syscalls: "", want: want},
		{syscalls: "clone4", want: want},
		{syscalls: "exit_group", want: want[4:]},
	} {
		for _, platform := range sandbox.Platforms {
			t.Run(fmt.Sprintf("%q,%s", tc.syscalls, platform), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				flags := append(sandbox.Flags(platform), "--strace", "--strace-syscalls="+tc.syscalls, "--debug-log="+dir+"/", "do")
				if r := sandbox.Run(t, binary(t), append(flags, guest(t, straceSteps()...)...)...); r.Status != 7 {
					t.Fatalf("got %v\nwant status 7", r)
				}
				logs, err := filepath.Glob(filepath.Join(dir, "*.boot*"))
				if err != nil || len(logs) != 1 {
					t.Fatalf("the sandbox has %d logs, %v, want 1", len(logs), err)
				}
				log, err := os.ReadFile(logs[0])
				if err != nil {
					t.Fatal(err)
				}
				line := regexp.MustCompile(`(?m)^.*\] (\[.*)? guest ([EX] .*)$`)
				ours := regexp.MustCompile(`clone4|userfaultfd|sys_\d|slot_`)
				var got []string
				for _, m := range line.FindAllStringSubmatch(string(log), -1) {
					call := m[2]
					if strings.Contains(call, "exit_group") || tc.syscalls == "" && !ours.MatchString(call) {
						continue
					}
					got = append(got, call)
				}
				ok := slices.EqualFunc(got, tc.want, func(got, want string) bool {
					return regexp.MustCompile("^" + want + "$").MatchString(got)
				})
				if !ok {
					t.Errorf("strace printed\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
				}
			})
		}
	}
}
