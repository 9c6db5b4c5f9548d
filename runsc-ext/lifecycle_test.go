// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"runsc-ext/test/sandbox"
)

// TestLifecycle checks that the commands of an engine work while a parent waits in clone4 for
// its child, through each ABI.
func TestLifecycle(t *testing.T) {
	needRoot(t)
	for _, abi := range sandbox.ABIs() {
		for _, platform := range sandbox.Platforms {
			t.Run(abi+","+platform, func(t *testing.T) {
				t.Parallel()
				vfork := abi + ",vfork,pause"
				c := sandbox.NewContainer(t, binary(t), platform, guest(t, vfork, abi)...)
				s := c.Begin(t, "run")
				s.ReadTo(t, sandbox.Pausing)

				check := func(args ...string) {
					t.Helper()
					c.Runsc(t, args...).Check(t, 0, "")
				}
				c.WaitStatus(t, "running")
				var processes []int
				if r := c.Runsc(t, "ps", "-format=json", c.ID); json.Unmarshal([]byte(r.Stdout), &processes) != nil || len(processes) != 2 {
					t.Errorf("got %v, want two processes", r)
				}
				c.Exec(t, guest(t, abi)...).Check(t, 0, abi+": ok\n")
				check("pause", c.ID)
				c.WaitStatus(t, "paused")
				check("resume", c.ID)
				c.WaitStatus(t, "running")
				check("checkpoint", "-leave-running", "-image-path="+image(c), c.ID)
				c.WaitStatus(t, "running")

				s.Say("")
				want := sandbox.Results("ok", vfork, abi)
				s.Wait(t).Check(t, 0, want)
				restore(t, c).Check(t, 0, want)
			})
		}
	}
}

// TestKillAndDelete checks that a container can be killed and deleted while a parent waits in
// clone4 for its child, and that nothing is left behind.
func TestKillAndDelete(t *testing.T) {
	needRoot(t)
	for _, platform := range sandbox.Platforms {
		t.Run(platform, func(t *testing.T) {
			t.Parallel()
			// The child pauses until its standard input has data, which is after the test.
			script := []string{"/bin/sh", "-c", `sleep 1000 | exec "$@"`, "sh"}
			c := sandbox.NewContainer(t, binary(t), platform, slices.Concat(script, guest(t, vforkStep()))...)
			c.Create(t)
			c.WaitStatus(t, string(specs.StateCreated))
			c.Start(t)
			c.Kill(t, "KILL")
			c.WaitStatus(t, string(specs.StateStopped))
			c.Delete(t)
			c.CheckGone(t)
		})
	}
}
