// SPDX-License-Identifier: Apache-2.0

package engines_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"runsc-ext/test/sandbox"
)

// object is a message of the Container Runtime Interface, as JSON.
type object = map[string]any

// edit changes a message before it is sent.
type edit func(config object)

// TestCRI checks levels and exit statuses of pods that run through the Container Runtime
// Interface, as kubelet runs them, with gVisor's shim and the files of deploy/containerd.
func TestCRI(t *testing.T) {
	n := newNode(t)
	for _, tc := range []struct {
		name    string
		handler string
		level   string // annotation of the pod
		edit    edit   // edit of the container
		command []string
		stdout  string
		spawn   string // the line of the Go example that names its call
	}{
		{name: "on", handler: "runsc-ext", command: clone4, stdout: works, spawn: "spawn: using clone4\n"},
		{name: "off", handler: "runsc-ext", level: "off", command: clone4Off, stdout: off, spawn: "spawn: using clone, as this kernel has no clone4\n"},
		{name: "unprivileged", handler: "runsc-ext", edit: unprivileged, command: clone4, stdout: works},
		{name: "container's annotation", handler: "runsc-ext", level: "off", edit: annotate("on"), command: clone4Off, stdout: off},
		{name: "operator's off", handler: "runsc-ext-off", command: clone4Off, stdout: off},
		// deploy/containerd and docs/containers.md warn about this.
		{name: "no pod_annotations", handler: "runsc-ext-bare", level: "off", command: clone4, stdout: works},
		{name: "no pod_annotations, unknown level", handler: "runsc-ext-bare", level: "sometimes", command: clone4, stdout: works},

		{name: "profile not applied", handler: "runsc-ext", edit: seccomp("RuntimeDefault", ""), command: clone4, stdout: works},
		{name: "runtime's profile", handler: "runsc-ext-seccomp", edit: seccomp("RuntimeDefault", ""), command: clone4, stdout: sandbox.Results("EPERM", sandbox.ABIs()...)},
		{name: "runtime's profile, off", handler: "runsc-ext-seccomp", level: "off", edit: seccomp("RuntimeDefault", ""), command: clone4Off, stdout: sandbox.Results("EPERM", sandbox.OffABIs()...)},
		{
			name:    "profile that allows all",
			handler: "runsc-ext-seccomp",
			edit:    seccomp("Localhost", n.write(t, "allow.json", `{"defaultAction": "SCMP_ACT_ALLOW"}`)),
			command: clone4,
			stdout:  byABI("ok", "ok", "ENOSYS"),
		},
		{
			name:    "profile that refuses clone4",
			handler: "runsc-ext-seccomp",
			edit: seccomp("Localhost", n.write(t, "refuse.json", `{
				"defaultAction": "SCMP_ACT_ALLOW",
				"syscalls": [{"names": ["clone4"], "action": "SCMP_ACT_ERRNO"}]
			}`)),
			command: clone4,
			stdout:  byABI("EPERM", "ENOSYS", "ENOSYS"),
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := n.runPod(t, tc.handler, tc.level)
			p.check(t, 0, tc.stdout, tc.command, tc.edit)
			if tc.spawn == "" {
				return
			}
			c := p.check(t, 0, "hello\n", []string{"spawn", "echo", "hello"}, tc.edit)
			if got := c.log(t, "stderr"); got != tc.spawn {
				t.Errorf("%v: standard error is %q, want %q", c, got, tc.spawn)
			}
		})
	}
}

// TestCRIRefused checks that RunPodSandbox fails with a message that a pod's owner can
// act on, and leaves nothing behind. kubelet shows the message as an event of the pod.
func TestCRIRefused(t *testing.T) {
	n := newNode(t)
	for _, tc := range []struct {
		name    string
		handler string
		level   string
		want    []string // parts of the message
	}{
		{"unknown", "runsc-ext", "sometimes", []string{sandbox.LevelAnnotation, `"sometimes"`, "off, on"}},
		{"empty", "runsc-ext", "", []string{sandbox.LevelAnnotation, `""`, "off, on"}},
		{"above the default", "runsc-ext", "fd", []string{sandbox.LevelAnnotation, `"fd"`, "operator"}},
		{"above the operator's", "runsc-ext-off", "on", []string{sandbox.LevelAnnotation, `"on"`, "operator"}},
		{"no such handler", "runsc-ext-missing", "on", []string{"runsc-ext-missing"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			config := n.podConfig(t)
			annotate(tc.level)(config)
			r := n.call(t, "RunPodSandbox", object{"config": config, "runtime_handler": tc.handler})
			if r.Status == 0 {
				t.Fatalf("%v: the pod runs", r)
			}
			r.CheckStderr(t, tc.want...)
			n.wantNoPods(t)
		})
	}
}

// TestCRIPod checks the statuses and the logs of several containers in a pod, and commands that are
// executed in them.
func TestCRIPod(t *testing.T) {
	n := newNode(t)
	p := n.runPod(t, "runsc-ext", "")
	long := p.start(t, []string{"sleep", "1000"})
	stubborn := p.start(t, []string{"sh", "-c", `trap "" TERM; while :; do sleep 1; done`})

	for _, tc := range []struct {
		name    string
		command []string
		edit    edit
		status  int
		stdout  string
	}{
		{name: "clone4", command: clone4, stdout: works},
		{name: "annotation", command: clone4, edit: annotate("off"), stdout: works},
		{name: "unknown level", command: clone4, edit: annotate("sometimes"), stdout: works},
		{name: "status", command: []string{"sh", "-c", "echo seven; exit 7"}, status: 7, stdout: "seven\n"},
		{name: "status of a child", command: []string{"spawn", "sh", "-c", "exit 8"}, status: 8},
		{name: "signal", command: []string{"sh", "-c", "kill -9 $$"}, status: 128 + 9},
		{name: "short", command: []string{"true"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p.check(t, tc.status, tc.stdout, tc.command, tc.edit)
		})
		t.Run("exec "+tc.name, func(t *testing.T) {
			long.checkExec(t, tc.status, tc.stdout, tc.command)
		})
	}

	for _, c := range []*container{long, stubborn} {
		if got := c.status(t); got.State != "CONTAINER_RUNNING" {
			t.Errorf("%v: got %+v, want a running container", c, got)
		}
	}
	for c, status := range map[*container]int{long: 128 + 15, stubborn: 128 + 9} {
		n.must(t, "StopContainer", object{"container_id": c.id, "timeout": 2}, nil)
		if got := c.status(t); got.State != "CONTAINER_EXITED" || got.ExitCode != status {
			t.Errorf("%v, stopped: got %+v, want exit status %d", c, got, status)
		}
	}
	p.remove(t)
	n.wantNoPods(t)
}

// TestCRINetwork checks that programs created by clone4 can serve and connect to each other over the
// network of pods.
func TestCRINetwork(t *testing.T) {
	n := newNode(t)
	for _, plugin := range []string{"ptp", "host-local"} {
		if _, err := os.Stat(filepath.Join(pluginDir, plugin)); err != nil {
			t.Skipf("%v: apt-get install containernetworking-plugins", err)
		}
	}
	// A server answers with the results of clone4 in its pod.
	server := func(command []string) []string {
		return slices.Concat([]string{"spawn", "nc", "-ll", "-p", "8080", "-e"}, command)
	}
	client := func(address string) []string {
		return []string{"spawn", "sh", "-c", "until nc " + address + " 8080 </dev/null; do sleep 0.1; done"}
	}
	t.Run("host", func(t *testing.T) {
		a, b := n.runPod(t, "runsc-ext-network", ""), n.runPod(t, "runsc-ext-network", "off")
		a.start(t, server(clone4))
		a.check(t, 0, works, client("127.0.0.1"))
		b.check(t, 0, works, client("127.0.0.1"))
	})
	// gVisor gives no network to a pod on the host's network, not even a loopback interface.
	t.Run("host without the flag", func(t *testing.T) {
		p := n.runPod(t, "runsc-ext", "")
		c := p.start(t, []string{"nc", "127.0.0.1", "8080"})
		if got, stderr := c.wait(t), c.log(t, "stderr"); got.ExitCode != 1 || !strings.Contains(stderr, "Network is unreachable") {
			t.Errorf("got %+v and %q, want status 1: no network", got, stderr)
		}
	})
	t.Run("CNI", func(t *testing.T) {
		a, b := n.runPod(t, "runsc-ext", "", withCNI), n.runPod(t, "runsc-ext", "off", withCNI)
		a.start(t, server(clone4))
		b.start(t, server(clone4Off))
		address := map[*pod]string{}
		for _, p := range []*pod{a, b} {
			var got struct {
				Status struct{ Network struct{ IP string } }
			}
			n.must(t, "PodSandboxStatus", object{"pod_sandbox_id": p.id}, &got)
			address[p] = got.Status.Network.IP
			if !strings.HasPrefix(address[p], subnet) {
				t.Errorf("the pod has the address %q, want one of %s0/24", address[p], subnet)
			}
		}
		a.check(t, 0, works, client(address[a]))
		a.check(t, 0, off, client(address[b]))
		b.check(t, 0, works, client(address[a]))
	})
}

// TestCRIMemory checks that the memory limit of a pod's control group holds for all processes of the
// pod, and that the limit of a container has no effect, as with stock runsc.
func TestCRIMemory(t *testing.T) {
	n := newNode(t)
	use := func(memory string) []string {
		return []string{"spawn", "dd", "if=/dev/zero", "of=/dev/null", "bs=" + memory, "count=1"}
	}
	other := n.runPod(t, "runsc-ext", "")
	bystander := other.start(t, []string{"sleep", "1000"})

	t.Run("container", func(t *testing.T) {
		p := n.runPod(t, "runsc-ext", "")
		p.check(t, 0, "", use("64M"), func(config object) {
			at(config, "linux", "resources")["memory_limit_in_bytes"] = 16 << 20
		})
	})
	t.Run("pod", func(t *testing.T) {
		// kubelet creates the control group of a pod, with the pod's limit, before the pod.
		p := n.runPod(t, "runsc-ext", "", func(config object) {
			limitMemory(t, at(config, "linux")["cgroup_parent"].(string), 200<<20)
		})
		idle := p.start(t, []string{"sleep", "1000"})
		eater := p.start(t, use("1G"))
		for _, c := range []*container{eater, idle} {
			// The kernel kills the sandbox, so the shim does not know a status and reports 128.
			if got := c.wait(t); got.ExitCode != 128 || got.Reason != "OOMKilled" {
				t.Errorf("%v: got %+v, want status 128 and OOMKilled", c, got)
			}
		}
		p.remove(t)
	})
	if got := bystander.status(t); got.State != "CONTAINER_RUNNING" {
		t.Errorf("the container of another pod: got %+v, want a running one", got)
	}
	other.check(t, 0, works, clone4)
}

// TestCRIKill checks that a pod leaves no process behind if it is killed while parents wait in clone4
// for their children.
func TestCRIKill(t *testing.T) {
	n := newNode(t)
	for _, tc := range []struct {
		name   string
		status int
		kill   func(t *testing.T, p *pod)
	}{
		{"StopPodSandbox", 128 + 9, func(t *testing.T, p *pod) {
			n.must(t, "StopPodSandbox", object{"pod_sandbox_id": p.id}, nil)
		}},
		// The process that knows the status is killed too, so the shim reports 128.
		{"SIGKILL", 128, func(t *testing.T, p *pod) {
			for _, pid := range p.processes(t) {
				if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
					t.Error(err)
				}
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := n.runPod(t, "runsc-ext", "")
			// A child that pauses prints a line, and waits for input that never comes.
			script := "exec 3<&0; "
			for _, abi := range sandbox.ABIs() {
				script += "clone4 " + abi + ",vfork,pause <&3 & "
			}
			c := p.start(t, []string{"sh", "-c", script + "spawn sleep 1000 & wait"}, func(config object) { config["stdin"] = true })
			want := strings.Repeat(sandbox.Pausing, len(sandbox.ABIs()))
			eventually(t, func() error {
				if got := c.log(t, "stdout"); got != want {
					return fmt.Errorf("the container has printed %q, want %q", got, want)
				}
				return nil
			})
			if len(p.processes(t)) == 0 {
				t.Fatal("the pod's control group has no process")
			}
			tc.kill(t, p)
			if got := c.wait(t); got.ExitCode != tc.status {
				t.Errorf("got %+v, want exit status %d", got, tc.status)
			}
			eventually(t, func() error {
				if left := p.processes(t); len(left) != 0 {
					return fmt.Errorf("processes %v are left", left)
				}
				return nil
			})
			p.remove(t)
			n.wantNoPods(t)
		})
	}
}

// TestCRIRestart checks that a pod goes on while containerd is restarted or crashes, and
// that containerd knows the pod afterwards.
func TestCRIRestart(t *testing.T) {
	n := newNode(t)
	p := n.runPod(t, "runsc-ext", "")
	c := p.start(t, []string{"spawn", "sleep", "1000"})
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		t.Run(unix.SignalName(signal), func(t *testing.T) {
			before := n.containerd(t)
			if err := unix.Kill(before, signal); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() error {
				if now := n.containerd(t); now == 0 || now == before {
					return fmt.Errorf("containerd was process %d and is process %d, want another", before, now)
				}
				if r := n.call(t, "Status", object{}); r.Status != 0 {
					return fmt.Errorf("%v", r)
				}
				return nil
			})
			if got := c.status(t); got.State != "CONTAINER_RUNNING" {
				t.Errorf("got %+v, want a running container", got)
			}
			c.checkExec(t, 0, works, clone4)
			p.check(t, 0, works, clone4)
		})
	}
	n.must(t, "StopContainer", object{"container_id": c.id, "timeout": 60}, nil)
	if got := c.status(t); got.ExitCode != 128+15 {
		t.Errorf("stopped: got %+v, want exit status 143", got)
	}
	p.remove(t)
	n.wantNoPods(t)
}

// byABI returns the output of the command clone4 for a result of each ABI.
func byABI(results ...string) string {
	var s string
	for i, abi := range sandbox.ABIs() {
		s += sandbox.Results(results[i], abi)
	}
	return s
}

// at returns an object inside another, and creates it if it is missing.
func at(o object, keys ...string) object {
	for _, key := range keys {
		inner, ok := o[key].(object)
		if !ok {
			inner = object{}
			o[key] = inner
		}
		o = inner
	}
	return o
}

// annotate gives a pod or a container a level of clone4.
func annotate(level string) edit {
	return func(config object) { at(config, "annotations")[sandbox.LevelAnnotation] = level }
}

// unprivileged makes a container follow Kubernetes' "restricted" pod security standard.
func unprivileged(config object) {
	context := at(config, "linux", "security_context")
	context["run_as_user"] = object{"value": 1000}
	context["run_as_group"] = object{"value": 1000}
	context["readonly_rootfs"] = true
	context["no_new_privs"] = true
	context["capabilities"] = object{"drop_capabilities": []string{"ALL"}}
	context["seccomp"] = object{"profile_type": "RuntimeDefault"}
}

// seccomp gives a container a seccomp profile.
func seccomp(kind, file string) edit {
	return func(config object) {
		at(config, "linux", "security_context")["seccomp"] = object{"profile_type": kind, "localhost_ref": file}
	}
}

// withCNI gives a pod its own network instead of the host's.
func withCNI(config object) {
	at(config, "linux", "security_context", "namespace_options")["network"] = "POD"
}

// subnet has the addresses that CNI gives to pods. pluginDir is Debian's directory of CNI programs.
const (
	subnet    = "10.88.0."
	pluginDir = "/usr/lib/cni"
)
