package main_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
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

// The sentry's own strace must name clone4 where it used to say userfaultfd, or a
// number, and print each call once: entry and exit, though one that is made from a
// slot is entered twice. That of an ABI is not traced by name: gVisor traces what its
// table does not have always, or not at all.
func TestSentryStrace(t *testing.T) {
	program, err := sandbox.Build("runsc-ext/runsc-ext/testdata/threeabis", runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	const (
		addr   = `0x[0-9a-f]+`
		native = `8, ` + addr + ` {ptid: ` + addr + `}`
		compat = `8, ` + addr + ` {ptid: ` + addr + `, ctid: 0x0}`
	)
	structs := []string{native}
	if runtime.GOARCH == "amd64" {
		structs = append(structs, compat, compat)
	}
	var want []string
	for _, s := range structs {
		for _, flags := range []string{`SIGCHLD`, `CLONE_VFORK\|CLONE_PARENT_SETTID\|SIGCHLD`} {
			call := `clone4\(` + flags + `, ` + s + `\)`
			want = append(want, `E `+call, `X `+call+` = \d+ \(`+addr+`\) \(.*\)`)
		}
	}
	for _, platform := range sandbox.Platforms {
		for _, flags := range []string{"", "clone4", "exit_group"} {
			t.Run(fmt.Sprintf("%s,%q", platform, flags), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				bin := binary(t)
				args := append(sandbox.Flags(platform), "--strace", "--strace-syscalls="+flags, "--debug-log="+dir+"/", "do", program)
				if r := run(t, bin, args...); r.status != 42 {
					t.Fatalf("%v, want status 42", r)
				}
				logs, err := filepath.Glob(filepath.Join(dir, "*.boot*"))
				if err != nil || len(logs) != 1 {
					t.Fatalf("the sandbox has %d logs, %v, want 1", len(logs), err)
				}
				log, err := os.ReadFile(logs[0])
				if err != nil {
					t.Fatal(err)
				}
				line := regexp.MustCompile(`(?m)^.*\] (\[.*)? threeabis ([EX] .*)$`)
				var got []string
				for _, m := range line.FindAllStringSubmatch(string(log), -1) {
					call := m[2]
					if strings.Contains(call, "exit_group") || flags == "" && !regexp.MustCompile(`clone4|userfaultfd|sys_\d|slot_`).MatchString(call) {
						continue
					}
					got = append(got, call)
				}
				want := want
				if flags == "exit_group" {
					want = want[4:]
				}
				ok := slices.EqualFunc(got, want, func(got, want string) bool {
					return regexp.MustCompile("^" + want + "$").MatchString(got)
				})
				if !ok {
					t.Errorf("strace printed\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			})
		}
	}
}
