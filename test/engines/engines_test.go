// Package engines_test runs containers that call clone4 under container engines, as
// their users do, with the configuration in deploy/.
package engines_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/test/sandbox"
)

const annotation = "dev.gvisor.ext.clone4"

// abis are the arguments of the program in the containers; works and off are what it
// prints.
var abis = func() []string {
	if runtime.GOARCH == "amd64" {
		return []string{"amd64", "x32", "i386"}
	}
	return []string{runtime.GOARCH}
}()

func each(result string) string {
	return strings.Join(abis, ": "+result+"\n") + ": " + result + "\n"
}

var works, off = each("ok"), each("ENOSYS")

func TestDocker(t *testing.T) {
	e := newEngine(t, "dockerd", "docker.io")
	e.copyBinary(t, "runsc-ext")
	e.copyBinary(t, "runsc-ext-off")
	e.write(t, "runsc-ext-off.clone4", "off")
	// What users run; it must leave a configuration that Docker starts with.
	config := e.path("daemon.json")
	for _, name := range []string{"runsc-ext", "runsc-ext-off"} {
		if r := e.run(t, e.path(name), "install", "--config_file="+config, "--runtime="+name, "--", "--network=none"); r.status != 0 {
			t.Fatal(r)
		}
	}
	docker := []string{"docker", "-H", "unix://" + e.path("sock")}
	e.start(t, append(docker, "version"), exec.Command("dockerd", "--config-file="+config,
		"--data-root="+e.path("data"), "--exec-root="+e.path("exec"), "--pidfile="+e.path("pid"), "-H", "unix://"+e.path("sock"),
		"--iptables=false", "--bridge=none", "--ip-forward=false"))
	image := e.write(t, "image.tar", string(rootfs(t)))
	if r := e.run(t, append(docker, "import", image, "test")...); r.status != 0 {
		t.Fatal(r)
	}

	container := func(args ...string) []string {
		return append(append(docker, "run", "--rm", "--network=none"), args...)
	}
	e.check(t, "on", 0, works, append(container("--runtime=runsc-ext", "test", "clone4"), abis...)...)
	e.check(t, "off", 0, off, append(container("--runtime=runsc-ext-off", "test", "clone4"), abis...)...)
	e.check(t, "status", 7, "", container("--runtime=runsc-ext", "test", "sh", "-c", "exit 7")...)
	e.check(t, "gVisor", 0, "gVisor\n", container("--runtime=runsc-ext", "test", "sh", "-c", "dmesg | grep -o -m1 gVisor")...)

	if r := e.run(t, append(docker, "run", "-d", "--name=long", "--network=none", "--runtime=runsc-ext", "test", "sleep", "1000")...); r.status != 0 {
		t.Fatal(r)
	}
	e.check(t, "exec", 0, works, append(append(docker, "exec", "long", "clone4"), abis...)...)
	e.check(t, "kill", 0, "long\n", append(docker, "kill", "long")...)
	e.check(t, "wait", 0, "137\n", append(docker, "wait", "long")...)
	e.check(t, "rm", 0, "long\n", append(docker, "rm", "long")...)
}

func TestPodman(t *testing.T) {
	e := newEngine(t, "podman", "podman")
	bin := e.copyBinary(t, "runsc-ext")
	conf, err := os.ReadFile("../../deploy/podman/containers.conf")
	if err != nil {
		t.Fatal(err)
	}
	e.env = append(e.env, "CONTAINERS_CONF="+e.write(t, "containers.conf", strings.ReplaceAll(string(conf), "/usr/local/bin/runsc-ext", bin)))
	podman := []string{"podman", "--root=" + e.path("root"), "--runroot=" + e.path("run"), "--tmpdir=" + e.path("tmp"),
		"--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--events-backend=none",
		"--runtime=runsc-ext", "--runtime-flag=network=none", "--runtime-flag=ignore-cgroups"}
	image := e.write(t, "image.tar", string(rootfs(t)))
	if r := e.run(t, append(podman, "import", image, "test")...); r.status != 0 {
		t.Fatal(r)
	}

	container := func(args ...string) []string {
		return append(append(podman, "run", "--rm", "--network=none"), args...)
	}
	e.check(t, "on", 0, works, append(container("test", "clone4"), abis...)...)
	e.check(t, "off", 0, off, append(container("--annotation="+annotation+"=off", "test", "clone4"), abis...)...)
	e.check(t, "status", 7, "", container("test", "sh", "-c", "exit 7")...)
	e.checkRefused(t, container("--annotation="+annotation+"=sometimes", "test", "clone4")...)
}

// containerd has the annotation of a container in its spec, with any shim: this is
// with that of runc, as Debian's containerd is too old for gVisor's. For that, see
// TestContainerdShim.
func TestContainerd(t *testing.T) {
	e := newEngine(t, "containerd", "containerd")
	bin := e.copyBinary(t, "runsc-ext")
	// ctr has no way to pass flags on.
	wrapper := e.write(t, "wrapper", "#!/bin/sh\nexec "+bin+" --network=none \"$@\"\n")
	if err := os.Chmod(wrapper, 0o755); err != nil {
		t.Fatal(err)
	}
	config := e.write(t, "config.toml", fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = %q
`, e.path("root"), e.path("state"), e.path("sock")))
	ctr := []string{"ctr", "-a", e.path("sock")}
	e.start(t, append(ctr, "version"), exec.Command("containerd", "-c", config))
	image := e.write(t, "image.tar", string(imageArchive(t)))
	if r := e.run(t, append(ctr, "image", "import", "--snapshotter=native", image)...); r.status != 0 {
		t.Fatal(r)
	}

	container := func(args ...string) []string {
		return append(append(ctr, "run", "--rm", "--snapshotter=native", "--runc-binary="+wrapper), args...)
	}
	e.check(t, "on", 0, works, append(container(imageName, "on", "clone4"), abis...)...)
	e.check(t, "off", 0, off, append(container("--annotation="+annotation+"=off", imageName, "off", "clone4"), abis...)...)
	e.check(t, "status", 7, "", container(imageName, "status", "sh", "-c", "exit 7")...)
	e.checkRefused(t, container("--annotation="+annotation+"=sometimes", imageName, "refused", "clone4")...)

	if r := e.run(t, append(ctr, "run", "-d", "--snapshotter=native", "--runc-binary="+wrapper, imageName, "long", "sleep", "1000")...); r.status != 0 {
		t.Fatal(r)
	}
	e.check(t, "exec", 0, works, append(append(ctr, "task", "exec", "--exec-id=e", "long", "clone4"), abis...)...)
	e.check(t, "kill", 0, "", append(ctr, "task", "kill", "-s", "KILL", "long")...)
	e.remove(t, ctr, "long")
}

// engine is an engine under test, with a directory for all that it needs.
type engine struct {
	dir string
	env []string
}

// newEngine skips the test where the engine cannot be.
func newEngine(t *testing.T, command, pkg string) *engine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("%s needs root here", command)
	}
	if _, err := exec.LookPath(command); err != nil {
		t.Skipf("%v: apt-get install %s", err, pkg)
	}
	rootfs(t)                                        // skips as well
	dir, err := os.MkdirTemp("", "runsc-ext-test-*") // A socket's path must be short.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// podman cleans up in the background, and may still write there.
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			unmountBelow(dir)
			err := os.RemoveAll(dir)
			if err == nil {
				return
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	})
	return &engine{dir: dir}
}

// unmountBelow unmounts what an engine leaves in a directory.
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
	for i := len(below) - 1; i >= 0; i-- {
		unix.Unmount(below[i], unix.MNT_DETACH)
	}
}

func (e *engine) path(name string) string { return filepath.Join(e.dir, name) }

// write writes a file and returns its path.
func (e *engine) write(t *testing.T, name, contents string) string {
	t.Helper()
	if err := os.WriteFile(e.path(name), []byte(contents), 0o644); err != nil {
		t.Fatal(err)
	}
	return e.path(name)
}

// copyBinary installs runsc-ext by a name, and returns its path.
func (e *engine) copyBinary(t *testing.T, name string) string {
	t.Helper()
	bin, err := sandbox.Binary()
	if err != nil {
		t.Fatal(err)
	}
	if os.Link(bin, e.path(name)) != nil {
		b, err := os.ReadFile(bin) // Another file system.
		if err != nil {
			t.Fatal(err)
		}
		e.write(t, name, string(b))
		if err := os.Chmod(e.path(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return e.path(name)
}

// start starts a daemon, for as long as the test runs, and waits until ready succeeds.
// It skips the test if that never is: the engine is there, and does not run here.
func (e *engine) start(t *testing.T, ready []string, cmd *exec.Cmd) {
	t.Helper()
	log, err := os.Create(e.path("log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Skipf("%s does not start here: %v", cmd, err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(unix.SIGTERM)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			cmd.Process.Kill()
			<-ended
		}
	})
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		select {
		case <-ended:
			deadline = time.Now()
		default:
			if exec.Command(ready[0], ready[1:]...).Run() == nil {
				return
			}
		}
	}
	b, _ := os.ReadFile(log.Name())
	t.Skipf("%s does not start here:\n%s", cmd, b[max(0, len(b)-2000):])
}

// result is what came of a command.
type result struct {
	command        string
	status         int
	stdout, stderr string
}

// String implements fmt.Stringer.String.
func (r result) String() string {
	return fmt.Sprintf("%s: status %d, standard output %q, standard error %q", r.command, r.status, r.stdout, r.stderr)
}

func (e *engine) run(t *testing.T, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = append(os.Environ(), e.env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", cmd, err)
	}
	return result{cmd.String(), cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// check runs a command of the engine and checks what comes of it.
func (e *engine) check(t *testing.T, what string, status int, stdout string, args ...string) {
	t.Helper()
	if r := e.run(t, args...); r.status != status || r.stdout != stdout {
		t.Errorf("%s: got %v, want status %d and %q", what, r, status, stdout)
	}
}

// checkRefused runs a container that asks for an unknown level. The engine's user has
// to be told why it does not start.
func (e *engine) checkRefused(t *testing.T, args ...string) {
	t.Helper()
	r := e.run(t, args...)
	if r.status == 0 || r.stdout != "" {
		t.Errorf("got %v, want no container", r)
	}
	for _, want := range []string{annotation, "sometimes", "off, on"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("%v: the message does not say %q", r, want)
		}
	}
}

// remove removes a container of containerd that was killed, once it has ended.
func (e *engine) remove(t *testing.T, ctr []string, id string) {
	t.Helper()
	remove := append(ctr, "task", "delete", id)
	r := e.run(t, remove...)
	for deadline := time.Now().Add(20 * time.Second); r.status != 0; r = e.run(t, remove...) {
		if time.Now().After(deadline) {
			t.Fatal(r)
		}
		time.Sleep(100 * time.Millisecond)
	}
	if !strings.Contains(r.stderr, "exit code 137") {
		t.Errorf("%v does not say that it was killed", r)
	}
	e.check(t, "rm", 0, "", append(ctr, "container", "rm", id)...)
}

// imageName is the name of the image in imageArchive.
const imageName = "docker.io/library/test:latest"

// busybox is where Debian has a static one.
const busybox = "/bin/busybox"

// rootfs returns the file system of the containers, as a tar archive: busybox, and the
// program that calls clone4.
func rootfs(t *testing.T) []byte {
	t.Helper()
	b, err := makeRootfs()
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("%v: apt-get install busybox-static", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var makeRootfs = sync.OnceValues(func() ([]byte, error) {
	shell, err := os.ReadFile(busybox)
	if err != nil {
		return nil, err
	}
	bin, err := sandbox.Guest()
	if err != nil {
		return nil, err
	}
	program, err := os.ReadFile(bin)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	err = errors.Join(
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "bin/", Mode: 0o755}),
		add(w, "bin/busybox", shell),
		add(w, "bin/clone4", program),
	)
	for _, name := range []string{"dmesg", "grep", "sh", "sleep"} {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox"}))
	}
	return buf.Bytes(), errors.Join(err, w.Close())
})

func add(w *tar.Writer, name string, contents []byte) error {
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(contents))}); err != nil {
		return err
	}
	_, err := w.Write(contents)
	return err
}

// imageArchive returns an image with that file system, as "docker save" writes it.
func imageArchive(t *testing.T) []byte {
	t.Helper()
	layer := rootfs(t)
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       map[string]any{"Env": []string{"PATH=/bin"}},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	})
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{imageName}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := errors.Join(add(w, "config.json", config), add(w, "layer.tar", layer), add(w, "manifest.json", manifest), w.Close()); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}
