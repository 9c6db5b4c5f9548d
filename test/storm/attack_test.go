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

// TestOtherContainers checks that the other containers of a sandbox stay what they are
// while one of them storms, is killed in the middle of the storm, and is created anew.
func TestOtherContainers(t *testing.T) {
	needRoot(t)
	for _, p := range box.Platforms() {
		t.Run(p, func(t *testing.T) {
			// The first container has the other ones' processes in its PID
			// namespace, in gVisor: as in a pod, it does nothing.
			pod := box.New(t, box.Options{Platform: p})
			say(pod, "nothing")
			b := box.New(t, box.Options{Platform: p, In: pod})
			for range 2 {
				attacker := box.New(t, box.Options{Platform: p, In: pod})
				say(attacker, fmt.Sprintf("storm wild on %d 300", *seed))
				attacker.Send("storm wild on 1 10000000")
				// Meanwhile this one is used.
				runStorm(t, b, "wild", "on", *seed, 300)
				if out, err := b.Run("kill", attacker.ID, "KILL"); err != nil {
					t.Fatalf("kill: %v\n%s", err, out)
				}
				if status := attacker.Wait(); status != 128+9 {
					t.Errorf("the container that was killed: status %d, want 137", status)
				}
				if out, err := b.Run("delete", "-force", attacker.ID); err != nil {
					t.Errorf("delete: %v\n%s", err, out)
				}
				say(b, "nothing")
				b.WantAnswer()
			}
			b.CloseInput()
			if status := b.Wait(); status != 0 {
				t.Errorf("the container that was not attacked: status %d, want 0", status)
			}
			pod.End()
			for _, problem := range append(b.Problems, pod.Problems...) {
				// gVisor leaks references with each container beside the first,
				// also if it has done nothing.
				if !strings.Contains(problem, "Leak checking detected") {
					t.Error(problem)
				}
			}
		})
	}
}

// TestMemoryLimit checks that a fork bomb in a sandbox with a limit harms neither the
// machine nor other sandboxes: the kernel kills this sandbox, and only this. gVisor has
// no limit of its own for the memory of a sandbox: it is the control group's.
func TestMemoryLimit(t *testing.T) {
	needRoot(t)
	// A file system of control groups that is there and may be written.
	parent := "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(parent, "cgroup.controllers")); err != nil {
		parent = "/sys/fs/cgroup/memory"
	}
	probe, err := os.MkdirTemp(parent, "runsc-ext-test-*")
	if err != nil {
		t.Skipf("no control group for memory can be made here: %v", err)
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
					t.Errorf("the sandbox: status %d, want 137: it was killed", status)
				}
				b.LookIntoLogs()
			case <-time.After(time.Minute):
				t.Error("the sandbox goes on, a minute after a bomb")
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
		t.Skip("without root, runsc has no pods and no control groups")
	}
}
