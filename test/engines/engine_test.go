// SPDX-License-Identifier: Apache-2.0

package engines_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/test/sandbox"
)

// engine is an engine under test, with a directory for its files.
type engine struct {
	dir string
	env []string
}

// newEngine returns an engine, and skips the test if the engine cannot run.
func newEngine(t *testing.T, command, pkg string) *engine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("%s needs root", command)
	}
	if _, err := exec.LookPath(command); err != nil {
		t.Skipf("%v: apt-get install %s", err, pkg)
	}
	rootfs(t)                                        // may skip the test too
	dir, err := os.MkdirTemp("", "runsc-ext-test-*") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// podman cleans up in the background, and may still write to the directory.
		eventually(t, func() error {
			unmountBelow(dir)
			return os.RemoveAll(dir)
		})
	})
	return &engine{dir: dir}
}

// unmountBelow unmounts the mounts that an engine leaves below a directory.
func unmountBelow(dir string) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return
	}
	defer f.Close()
	var below []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 1 && strings.HasPrefix(fields[1], dir+"/") {
			below = append(below, fields[1])
		}
	}
	for _, mount := range slices.Backward(below) {
		unix.Unmount(mount, unix.MNT_DETACH)
	}
}

// path returns the path of a file in the engine's directory.
func (e *engine) path(name string) string { return filepath.Join(e.dir, name) }

// write writes a file and returns its path.
func (e *engine) write(t *testing.T, name, contents string) string {
	t.Helper()
	sandbox.WriteFile(t, e.path(name), contents)
	return e.path(name)
}

// start starts a daemon, which runs until the end of the test, and waits until the command ready
// succeeds. If an installed daemon does not start, start skips the test.
func (e *engine) start(t *testing.T, ready []string, cmd *exec.Cmd) {
	t.Helper()
	log, err := os.Create(e.path("log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Skipf("%s does not start: %v", cmd, err)
	}
	exited := make(chan struct{})
	go func() {
		cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(unix.SIGTERM)
		select {
		case <-exited:
		case <-time.After(20 * time.Second):
			cmd.Process.Kill()
			<-exited
		}
	})
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		select {
		case <-exited:
			deadline = time.Now()
		default:
			if exec.Command(ready[0], ready[1:]...).Run() == nil {
				return
			}
		}
	}
	b, _ := os.ReadFile(log.Name())
	t.Skipf("%s does not start:\n%s", cmd, b[max(0, len(b)-2000):])
}

// run runs a command with more arguments.
func (e *engine) run(t *testing.T, command []string, args ...string) sandbox.Result {
	t.Helper()
	command = slices.Concat(command, args)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), e.env...)
	return sandbox.Output(t, cmd)
}

// must runs a command, and fails the test if the command fails.
func (e *engine) must(t *testing.T, command []string, args ...string) sandbox.Result {
	t.Helper()
	r := e.run(t, command, args...)
	if r.Status != 0 {
		t.Fatal(r)
	}
	return r
}

// eventually waits until a condition holds.
func eventually(t *testing.T, condition func() error) {
	t.Helper()
	err := condition()
	for deadline := time.Now().Add(time.Minute); err != nil; err = condition() {
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
