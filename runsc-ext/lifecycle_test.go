package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"runsc-ext/test/sandbox"
)

// What an engine does with a container must work while a child of clone4 is alive and
// its parent waits in the call, by each ABI: the task is in a stop that is the
// extension's doing.
func TestLifecycle(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("without root, runsc runs containers, but does not create them")
	}
	abis := []string{runtime.GOARCH}
	if runtime.GOARCH == "amd64" {
		abis = append(abis, "x32", "i386")
	}
	for _, abi := range abis {
		for _, platform := range sandbox.Platforms {
			t.Run(abi+","+platform, func(t *testing.T) {
				t.Parallel()
				vfork := abi + ",vfork"
				c := newCheckpointed(t, binary(t), platform, vfork, abi)
				program := c.program(t)
				s := c.begin(t, "run")
				if line, err := s.stdout.ReadString('\n'); line != pausing {
					t.Fatalf("the program printed %q, %v: %v", line, err, s.end(t))
				}

				ok := func(want string, args ...string) {
					t.Helper()
					if r := run(t, c.bin, append(c.flags, args...)...); r.status != 0 || r.stdout != want {
						t.Fatalf("got %v, want status 0 and %q", r, want)
					}
				}
				c.wantStatus(t, "running")
				var processes []int
				if r := run(t, c.bin, append(c.flags, "ps", "-format=json", c.id)...); json.Unmarshal([]byte(r.stdout), &processes) != nil || len(processes) != 2 {
					t.Errorf("got %v, want two processes", r)
				}
				ok(abi+": ok\n", "exec", c.id, program, abi)
				ok("", "pause", c.id)
				c.wantStatus(t, "paused")
				ok("", "resume", c.id)
				c.wantStatus(t, "running")
				ok("", "checkpoint", "-leave-running", "-image-path="+c.image(), c.id)
				c.wantStatus(t, "running")

				s.stdin.Write([]byte("\n"))
				want := vfork + ": ok\n" + abi + ": ok\n"
				if r := s.end(t); r.status != 0 || r.stdout != want {
					t.Fatalf("got %v, want status 0 and %q", r, want)
				}
				if r := c.restore(t); r.status != 0 || r.stdout != want {
					t.Fatalf("restored: got %v, want status 0 and %q", r, want)
				}
			})
		}
	}
}

// A container can be ended while a parent waits for its vfork child, and nothing of it
// is left.
func TestKillAndDelete(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("without root, runsc runs containers, but does not create them")
	}
	for _, platform := range sandbox.Platforms {
		t.Run(platform, func(t *testing.T) {
			t.Parallel()
			c := newCheckpointed(t, binary(t), platform, runtime.GOARCH+",vfork")
			c.edit(t, func(spec map[string]any) {
				// Its child pauses until somebody writes to this.
				process := spec["process"].(map[string]any)
				process["args"] = append([]string{"/bin/sh", "-c", `sleep 1000 | exec "$@"`, "sh"}, c.program(t), runtime.GOARCH+",vfork")
			})
			c.create(t)
			c.wantStatus(t, "created")
			for _, args := range [][]string{{"start", c.id}, {"kill", "-all", c.id, "KILL"}} {
				if r := run(t, c.bin, append(c.flags, args...)...); r.status != 0 {
					t.Fatal(r)
				}
			}
			c.wantStatus(t, "stopped")
			if r := run(t, c.bin, append(c.flags, "delete", c.id)...); r.status != 0 {
				t.Fatal(r)
			}
			if r := run(t, c.bin, append(c.flags, "list", "-quiet")...); r.stdout != "" {
				t.Errorf("after delete, there is still %q", r.stdout)
			}
			if left, _ := filepath.Glob(filepath.Join(c.bundle, "state", c.id+"*")); left != nil {
				t.Errorf("after delete, there are still %q", left)
			}
		})
	}
}

// wantStatus checks the state of the container. It is reached with a delay.
func (c *container) wantStatus(t *testing.T, want string) {
	t.Helper()
	var r result
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		r = run(t, c.bin, append(c.flags, "state", c.id)...)
		var state struct{ Status string }
		if json.Unmarshal([]byte(r.stdout), &state) == nil && state.Status == want {
			return
		}
	}
	t.Fatalf("got %s, want status %q", strings.TrimSpace(r.String()), want)
}
