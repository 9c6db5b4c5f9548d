// SPDX-License-Identifier: Apache-2.0

// Package engines_test runs containers that call clone4 under container engines, with the
// configuration in deploy/, as users do.
package engines_test

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"runsc-ext/test/sandbox"
)

// clone4 is the command of a container that calls clone4 through each ABI. clone4Off calls clone4
// through each ABI that is ENOSYS at level off. works and off are the outputs of the commands.
var (
	clone4    = slices.Concat([]string{"clone4"}, sandbox.ABIs())
	clone4Off = slices.Concat([]string{"clone4"}, sandbox.OffABIs())
	works     = sandbox.Results("ok", sandbox.ABIs()...)
	off       = sandbox.Results("ENOSYS", sandbox.OffABIs()...)
)

// levelOff and levelUnknown are arguments of engines that give a container an annotation: "off",
// and a level that does not exist.
const (
	levelOff     = "--annotation=" + sandbox.LevelAnnotation + "=off"
	levelUnknown = "--annotation=" + sandbox.LevelAnnotation + "=sometimes"
)

// TestDocker checks containers, levels, exit statuses, exec and kill under Docker, with the
// configuration that "runsc-ext install" writes.
func TestDocker(t *testing.T) {
	e := newEngine(t, "dockerd", "docker.io")
	config := e.path("daemon.json")
	for _, name := range []string{"runsc-ext", "runsc-ext-off"} {
		bin := sandbox.Install(t, e.dir, name)
		e.must(t, nil, bin, "install", "--config_file="+config, "--runtime="+name, "--", "--network=none")
	}
	e.write(t, "runsc-ext-off"+sandbox.LevelSuffix, "off")
	docker := []string{"docker", "-H", "unix://" + e.path("sock")}
	e.start(t, append(docker, "version"), exec.Command("dockerd", "--config-file="+config,
		"--data-root="+e.path("data"), "--exec-root="+e.path("exec"), "--pidfile="+e.path("pid"), "-H", "unix://"+e.path("sock"),
		"--iptables=false", "--bridge=none", "--ip-forward=false"))
	e.must(t, docker, "import", e.write(t, "image.tar", string(rootfs(t))), "test")

	run := func(runtime string, command ...string) sandbox.Result {
		return e.run(t, docker, slices.Concat([]string{"run", "--rm", "--network=none", "--runtime=" + runtime, "test"}, command)...)
	}
	run("runsc-ext", clone4...).Check(t, 0, works)
	run("runsc-ext-off", clone4Off...).Check(t, 0, off)
	run("runsc-ext", "sh", "-c", "exit 7").Check(t, 7, "")
	run("runsc-ext", "sh", "-c", "dmesg | grep -o -m1 gVisor").Check(t, 0, "gVisor\n")

	e.must(t, docker, "run", "-d", "--name=long", "--network=none", "--runtime=runsc-ext", "test", "sleep", "1000")
	e.run(t, docker, slices.Concat([]string{"exec", "long"}, clone4)...).Check(t, 0, works)
	e.run(t, docker, "kill", "long").Check(t, 0, "long\n")
	e.run(t, docker, "wait", "long").Check(t, 0, "137\n")
	e.run(t, docker, "rm", "long").Check(t, 0, "long\n")
}

// TestPodman checks containers, levels and exit statuses under podman.
func TestPodman(t *testing.T) {
	e := newEngine(t, "podman", "podman")
	bin := sandbox.Install(t, e.dir, "runsc-ext")
	conf, err := os.ReadFile("../../deploy/podman/containers.conf")
	if err != nil {
		t.Fatal(err)
	}
	e.env = append(e.env, "CONTAINERS_CONF="+e.write(t, "containers.conf", strings.ReplaceAll(string(conf), "/usr/local/bin/runsc-ext", bin)))
	podman := []string{"podman", "--root=" + e.path("root"), "--runroot=" + e.path("run"), "--tmpdir=" + e.path("tmp"),
		"--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--events-backend=none",
		"--runtime=runsc-ext", "--runtime-flag=network=none", "--runtime-flag=ignore-cgroups"}
	e.must(t, podman, "import", e.write(t, "image.tar", string(rootfs(t))), "test")

	run := func(annotation string, command ...string) sandbox.Result {
		return e.run(t, podman, slices.Concat([]string{"run", "--rm", "--network=none", annotation, "test"}, command)...)
	}
	run("--annotation=none=", clone4...).Check(t, 0, works)
	run(levelOff, clone4Off...).Check(t, 0, off)
	run("--annotation=none=", "sh", "-c", "exit 7").Check(t, 7, "")
	checkRefused(t, run(levelUnknown, clone4...))
}

// TestContainerd checks containers, levels, exit statuses, exec and kill under Debian's containerd with
// runc's shim. This containerd is too old for gVisor's shim; see TestContainerdShim.
func TestContainerd(t *testing.T) {
	e := newEngine(t, "containerd", "containerd")
	// ctr cannot pass flags on to the runtime.
	wrapper := e.write(t, "wrapper", "#!/bin/sh\nexec "+sandbox.Install(t, e.dir, "runsc-ext")+" --network=none \"$@\"\n")
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
	e.must(t, ctr, "image", "import", "--snapshotter=native", e.write(t, "image.tar", string(imageArchive(t))))
	e.checkTasks(t, ctr, "--runc-binary="+wrapper)
}

// checkTasks checks containers that ctr runs. The flags select the shim.
func (e *engine) checkTasks(t *testing.T, ctr []string, shim ...string) {
	t.Helper()
	fifos := "--fifo-dir=" + e.path("fifos")
	ctrRun := slices.Concat(ctr, []string{"run", "--snapshotter=native", fifos}, shim)
	// gVisor's shim may lose the status of a container that exits at once.
	slow := func(command []string) []string {
		return []string{"sh", "-c", strings.Join(command, " ") + "; sleep 1; exit 7"}
	}
	run := func(annotation, id string, command []string) sandbox.Result {
		return e.run(t, ctrRun, slices.Concat([]string{"--rm", annotation, imageName, id}, slow(command))...)
	}
	run("--annotation=none=", "on", clone4).Check(t, 7, works)
	run(levelOff, "off", clone4Off).Check(t, 7, off)
	checkRefused(t, run(levelUnknown, "refused", clone4))

	e.must(t, ctrRun, "-d", imageName, "long", "sleep", "1000")
	task := slices.Concat(ctr, []string{"task"})
	e.run(t, task, slices.Concat([]string{"exec", fifos, "--exec-id=1", "long"}, slow(clone4))...).Check(t, 7, works)
	e.run(t, task, "exec", fifos, "--exec-id=2", "long", "sh", "-c", "dmesg | grep -o -m1 gVisor; sleep 1").Check(t, 0, "gVisor\n")
	e.run(t, task, "kill", "-s", "KILL", "long").Check(t, 0, "")
	eventually(t, func() error {
		r := e.run(t, task, "delete", "long")
		if r.Status != 0 {
			return fmt.Errorf("got %v, want an exited task, which can be deleted", r)
		}
		r.CheckStderr(t, "exit code 137")
		return nil
	})
	e.run(t, ctr, "container", "rm", "long").Check(t, 0, "")
}

// checkRefused checks that a container with an unknown level does not start, and that the engine
// prints the reason.
func checkRefused(t *testing.T, r sandbox.Result) {
	t.Helper()
	if r.Status == 0 || r.Stdout != "" {
		t.Errorf("got %v\nwant no container", r)
	}
	r.CheckStderr(t, sandbox.LevelAnnotation, "sometimes", "off, on")
}
