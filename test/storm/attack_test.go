// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"runsc-ext/test/box"
)

// TestOtherContainers checks that a storm in one container does no harm to the other containers of
// the sandbox, even if the container is killed during the storm, deleted and created again.
func TestOtherContainers(t *testing.T) {
	needRoot(t)
	for _, p := range box.Platforms() {
		t.Run(p, func(t *testing.T) {
			// In gVisor, the PID namespace of the first container includes the
			// processes of the other containers. killAll would kill these, so
			// the first container only idles, as in a Kubernetes pod.
			pod := box.New(t, box.Options{Platform: p})
			say(pod, "nothing")
			b := box.New(t, box.Options{Platform: p, In: pod})
			for range 2 {
				attacker := box.New(t, box.Options{Platform: p, In: pod})
				say(attacker, fmt.Sprintf("storm wild on %d 300", *seed))
				attacker.Send("storm wild on 1 10000000")
				// b has a storm of its own at the same time.
				runStorm(t, b, "wild", "on", *seed, 300)
				if out, err := b.Run("kill", attacker.ID, "KILL"); err != nil {
					t.Fatalf("kill: %v\n%s", err, out)
				}
				if status := attacker.Wait(); status != 128+9 {
					t.Errorf("exit status of the killed container: %d, want 137", status)
				}
				if out, err := b.Run("delete", "-force", attacker.ID); err != nil {
					t.Errorf("delete: %v\n%s", err, out)
				}
				say(b, "nothing")
				b.WantAnswer()
			}
			b.CloseInput()
			if status := b.Wait(); status != 0 {
				t.Errorf("exit status of the other container: %d, want 0", status)
			}
			pod.End()
			for _, problem := range append(b.Problems, pod.Problems...) {
				// gVisor leaks references for every container but the first of a
				// sandbox, even for an idle container.
				if !strings.Contains(problem, "Leak checking detected") {
					t.Error(problem)
				}
			}
		})
	}
}

// TestMemoryLimit checks that a fork bomb in a sandbox with a memory limit harms neither the host
// nor other sandboxes: the host kernel kills only this sandbox. The limit is that of a control
// group, because gVisor itself does not limit the memory of a sandbox.
func TestMemoryLimit(t *testing.T) {
	needRoot(t)
	// The hierarchy of cgroup v2, or else the memory hierarchy of cgroup v1.
	parent := "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(parent, "cgroup.controllers")); err != nil {
		parent = "/sys/fs/cgroup/memory"
	}
	probe, err := os.MkdirTemp(parent, "runsc-ext-test-*")
	if err != nil {
		t.Skipf("cannot create a control group with a memory limit: %v", err)
	}
	defer os.Remove(probe)

	for _, p := range box.Platforms() {
		t.Run(p, func(t *testing.T) {
			other := box.New(t, box.Options{Platform: p})
			say(other, "nothing")
			b := box.New(t, box.Options{
				Platform:    p,
				CgroupsPath: "/" + filepath.Base(probe) + "/" + p,
				Edit: func(spec map[string]any) {
					spec["linux"].(map[string]any)["resources"] = map[string]any{"memory": map[string]any{"limit": 200 << 20}}
				},
			})
			say(b, "nothing")
			b.Send("bomb")
			exited := make(chan int)
			go func() { exited <- b.Wait() }()
			select {
			case status := <-exited:
				if status != 128+9 {
					t.Errorf("exit status of the sandbox with the fork bomb: %d, want 137 (killed)", status)
				}
				b.LookIntoLogs()
			case <-time.After(time.Minute):
				t.Error("the sandbox still runs a minute after the start of the fork bomb")
			}
			runStorm(t, other, "wild", "on", *seed, 300)
			other.WantAnswer()
			other.End()
			other.Report()
			b.Report()
		})
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("runsc needs root for a second container in a sandbox and for control groups")
	}
}
