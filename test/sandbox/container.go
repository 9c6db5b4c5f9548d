// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// LevelAnnotation is the OCI annotation with the level of clone4. LevelSuffix is the end of the
// name of the operator's file. The tests repeat them, because users depend on these names.
const (
	LevelAnnotation = "dev.gvisor.ext.clone4"
	LevelSuffix     = ".clone4"
)

// Container is an OCI container, with the arguments for commands of runsc-ext on it.
type Container struct {
	Bin    string   // runsc-ext
	Flags  []string // global flags, --root among them
	ID     string
	Bundle string

	state string // the directory of --root
}

// NewContainer creates a bundle for a container in a new sandbox. The container runs args, and
// can read the file system of the machine. It is deleted at the end of the test.
func NewContainer(t testing.TB, bin, platform string, args ...string) *Container {
	t.Helper()
	bundle := t.TempDir()
	state := filepath.Join(bundle, "state")
	c := &Container{Bin: bin, ID: "guest", Bundle: bundle, Flags: append(Flags(platform), "--root="+state), state: state}
	t.Cleanup(func() {
		// runsc leaves a mount there for the next sandbox without network.
		unix.Unmount(filepath.Join(state, "null-netns"), unix.MNT_DETACH)
	})
	c.init(t, args)
	return c
}

// Annotations of containerd's CRI plugin, by which runsc finds the sandbox of a container.
const (
	containerType = "io.kubernetes.cri.container-type"
	sandboxID     = "io.kubernetes.cri.sandbox-id"
)

// NewPod is NewContainer for the first container of a pod, which starts the sandbox.
func NewPod(t testing.TB, bin, platform string, args ...string) *Container {
	t.Helper()
	c := NewContainer(t, bin, platform, args...)
	c.Annotate(t, containerType, "sandbox")
	return c
}

// NewContainer creates a bundle for one more container in the sandbox of pod.
func (pod *Container) NewContainer(t testing.TB, id string, args ...string) *Container {
	t.Helper()
	c := &Container{Bin: pod.Bin, ID: id, Bundle: t.TempDir(), Flags: slices.Clone(pod.Flags), state: pod.state}
	c.init(t, args)
	c.Annotate(t, containerType, "container")
	c.Annotate(t, sandboxID, pod.ID)
	return c
}

// init creates the bundle. The container is deleted at the end of the test.
func (c *Container) init(t testing.TB, args []string) {
	t.Helper()
	t.Cleanup(func() {
		// Even a container that a test did not expect must not outlive the test.
		if c.files() != nil {
			exec.Command(c.Bin, c.global("delete", "-force", c.ID)...).Run()
		}
	})
	Run(t, c.Bin, slices.Concat([]string{"spec", "-bundle=" + c.Bundle, "--"}, args)...).Check(t, 0, "")
	c.Edit(t, func(spec *specs.Spec) {
		spec.Root = &specs.Root{Path: "/", Readonly: true}
		spec.Process.Terminal = false
	})
}

// Edit changes the spec in the bundle.
func (c *Container) Edit(t testing.TB, change func(spec *specs.Spec)) {
	t.Helper()
	config := filepath.Join(c.Bundle, "config.json")
	b, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(b, &spec); err != nil {
		t.Fatal(err)
	}
	change(&spec)
	if b, err = json.Marshal(&spec); err != nil {
		t.Fatal(err)
	}
	WriteFile(t, config, string(b))
}

// Annotate adds an annotation to the bundle of the container.
func (c *Container) Annotate(t testing.TB, key, value string) {
	t.Helper()
	c.Edit(t, func(spec *specs.Spec) {
		if spec.Annotations == nil {
			spec.Annotations = make(map[string]string)
		}
		spec.Annotations[key] = value
	})
}

// AnnotateLevel adds an annotation with a level of clone4, or none if level is empty.
func (c *Container) AnnotateLevel(t testing.TB, level string) {
	t.Helper()
	if level != "" {
		c.Annotate(t, LevelAnnotation, level)
	}
}

// Args returns the arguments of a command that reads the bundle: create, run, restore.
func (c *Container) Args(command string, flags ...string) []string {
	return c.global(slices.Concat([]string{command, "-bundle=" + c.Bundle}, flags, []string{c.ID})...)
}

// global returns args after the global flags.
func (c *Container) global(args ...string) []string {
	return slices.Concat(c.Flags, args)
}

// Runsc runs runsc-ext with args after the global flags.
func (c *Container) Runsc(t testing.TB, args ...string) Result {
	t.Helper()
	return Run(t, c.Bin, c.global(args...)...)
}

// Run runs the container until it exits.
func (c *Container) Run(t testing.TB, flags ...string) Result {
	t.Helper()
	return Run(t, c.Bin, c.Args("run", flags...)...)
}

// Begin starts a command that runs the container in the foreground: run, restore.
func (c *Container) Begin(t testing.TB, command string, flags ...string) *Session {
	t.Helper()
	return Start(t, exec.Command(c.Bin, c.Args(command, flags...)...))
}

// Create creates the container.
func (c *Container) Create(t testing.TB) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "stderr")
	stderr, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	cmd := exec.Command(c.Bin, c.Args("create")...)
	// The container inherits standard error. A pipe would stay open, and Wait would
	// wait for its end.
	cmd.Stderr = stderr
	start(t, cmd)(t)
	if !cmd.ProcessState.Success() {
		b, _ := os.ReadFile(name)
		t.Fatalf("%v: %v\n%s", cmd, cmd.ProcessState, b)
	}
}

// Start starts the container, which Create has created.
func (c *Container) Start(t testing.TB) {
	t.Helper()
	c.do(t, "start", c.ID)
}

// Exec runs a program in the container.
func (c *Container) Exec(t testing.TB, args ...string) Result {
	t.Helper()
	return c.Runsc(t, slices.Concat([]string{"exec", c.ID}, args)...)
}

// Kill sends a signal, such as "KILL", to all processes of the container.
func (c *Container) Kill(t testing.TB, signal string) {
	t.Helper()
	c.do(t, "kill", "-all", c.ID, signal)
}

// Delete deletes the container, which has exited. While the sandbox exits too, gVisor can refuse to
// delete a container that gVisor has reported as stopped: see docs/upstream.md.
func (c *Container) Delete(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		r := c.Runsc(t, "delete", c.ID)
		if r.Status == 0 {
			return
		}
		if !strings.Contains(r.Stderr, "not stopped") || time.Now().After(deadline) {
			t.Fatal(r)
		}
	}
}

func (c *Container) do(t testing.TB, args ...string) {
	t.Helper()
	if r := c.Runsc(t, args...); r.Status != 0 {
		t.Fatal(r)
	}
}

// CheckGone reports an error if runsc-ext lists a container or has files of one.
func (c *Container) CheckGone(t testing.TB) {
	t.Helper()
	c.Runsc(t, "list", "-quiet").Check(t, 0, "")
	if left := c.files(); left != nil {
		t.Errorf("the container has left %q", left)
	}
}

// files returns the state files of the container.
func (c *Container) files() []string {
	files, _ := filepath.Glob(filepath.Join(c.state, c.ID+"*"))
	return files
}

// WaitStatus waits until the container has a status, such as "stopped".
func (c *Container) WaitStatus(t testing.TB, want string) {
	t.Helper()
	var r Result
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		r = c.Runsc(t, "state", c.ID)
		var state specs.State
		if json.Unmarshal([]byte(r.Stdout), &state) == nil && string(state.Status) == want {
			return
		}
	}
	t.Fatalf("got %v\nwant status %q", r, want)
}
