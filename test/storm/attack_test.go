// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"runsc-ext/test/sandbox"
)

// TestOtherContainers protects the other containers of a sandbox, while one of them
// storms, is killed in the middle of it, and is made anew.
func TestOtherContainers(t *testing.T) {
	needRoot(t)
	bin := runscExt(t)
	for _, p := range sandbox.Platforms {
		t.Run(p, func(t *testing.T) {
			// The first container has the other ones' processes in its PID
			// namespace, in gVisor: as in a pod, it does nothing.
			pod := newBox(t, bin, p, nil)
			pod.say("nothing")
			b := newBox(t, bin, p, pod)
			for range 2 {
				attacker := newBox(t, bin, p, pod)
				attacker.say("storm %d %d", *seed, 200)
				if _, err := attacker.stdin.Write([]byte("storm 1 1000000\n")); err != nil {
					t.Fatal(err)
				}
				// Meanwhile this one is used.
				if out := b.say("storm %d %d", *seed, 200); out.Calls < 200 {
					t.Errorf("beside a storm there were %d calls, want 200", out.Calls)
				}
				if out, err := exec.Command(bin, append(slices.Clip(b.flags), "kill", attacker.id, "KILL")...).CombinedOutput(); err != nil {
					t.Fatalf("kill: %v\n%s", err, out)
				}
				if err := attacker.cmd.Wait(); err == nil || attacker.cmd.ProcessState.ExitCode() != 128+9 {
					t.Errorf("the container that was killed: %v, want status 137", err)
				}
				if out, err := exec.Command(bin, append(slices.Clip(b.flags), "delete", "-force", attacker.id)...).CombinedOutput(); err != nil {
					t.Errorf("delete: %v\n%s", err, out)
				}
				b.wantNothingLeft(b.say("nothing"))
			}
			b.stdin.Close()
			if err := b.cmd.Wait(); err != nil {
				t.Errorf("the container that was not attacked: %v: %s", err, b.stderr.String())
			}
			pod.end()
			for _, problem := range append(b.problems, pod.problems...) {
				// gVisor leaks references with each container beside the first,
				// also if it has done nothing.
				if !strings.Contains(problem, "Leak checking detected") {
					t.Error(problem)
				}
			}
		})
	}
}

// TestMemoryLimit protects the machine, and other sandboxes on it, from a fork bomb in
// a sandbox that has a limit: the kernel ends this sandbox, and only this. gVisor has
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

	bin := runscExt(t)
	for _, p := range sandbox.Platforms {
		t.Run(p, func(t *testing.T) {
			other := newBox(t, bin, p, nil)
			other.say("nothing")
			b := newBox(t, bin, p, nil, func(spec map[string]any) {
				l := spec["linux"].(map[string]any)
				l["cgroupsPath"] = "/" + filepath.Base(probe) + "/" + p
				l["resources"] = map[string]any{"memory": map[string]any{"limit": 200 << 20}}
			})
			b.say("nothing")
			b.stdin.Write([]byte("bomb\n"))
			ended := make(chan error)
			go func() { ended <- b.cmd.Wait() }()
			select {
			case err := <-ended:
				if status := b.cmd.ProcessState.ExitCode(); status != 128+9 {
					t.Errorf("the sandbox: %v: %s, want status 137: it was killed", err, b.stderr.String())
				}
				b.lookIntoLogs()
			case <-time.After(time.Minute):
				t.Error("the sandbox goes on, a minute after a bomb")
			}
			other.wantNothingLeft(other.say("storm %d %d", *seed, 200))
			other.end()
			for _, problem := range append(b.problems, other.problems...) {
				t.Error(problem)
			}
		})
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("without root, runsc has no pods and no control groups")
	}
}
