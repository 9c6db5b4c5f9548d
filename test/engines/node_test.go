// SPDX-License-Identifier: Apache-2.0

package engines_test

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"runsc-ext/test/sandbox"
)

// node is a node of a cluster without kubelet: a containerd with its CRI plugin.
type node struct {
	*engine
	programs string // directory of the programs that build has built
	pods     int    // number of configured pods
	init     int    // the process that runs containerd
	cgroup   string // control group of all pods
}

// newNode starts containerd with these runtime handlers:
//
//	runsc-ext          deploy/containerd, unchanged
//	runsc-ext-off      the operator's level is off
//	runsc-ext-bare     without pod_annotations
//	runsc-ext-seccomp  with the flag oci-seccomp
//	runsc-ext-network  with the flag network=host
func newNode(t *testing.T) *node {
	t.Helper()
	programs := builtPrograms(t)
	n := &node{engine: newEngine(t, filepath.Join(programs, "containerd"), "containerd"), programs: programs}
	n.cgroup = "/" + filepath.Base(n.dir)
	t.Cleanup(func() { removeCgroups(t, n.cgroup) })

	shim := readDeployed(t, "runsc-ext.toml")
	shimConfig := func(binary, flags string) string {
		return n.write(t, binary+".toml", fmt.Sprintf("root = %q\n", n.path("runsc"))+
			strings.ReplaceAll(shim, "/usr/local/bin/runsc-ext", sandbox.Install(t, n.dir, binary))+flags)
	}
	n.write(t, "runsc-ext-off"+sandbox.LevelSuffix, "off")
	handler := readDeployed(t, "config-v3.toml")
	handlers := map[string]string{
		"runsc-ext":         shimConfig("runsc-ext", ""),
		"runsc-ext-off":     shimConfig("runsc-ext-off", ""),
		"runsc-ext-bare":    shimConfig("runsc-ext-bare", ""),
		"runsc-ext-seccomp": shimConfig("runsc-ext-seccomp", "oci-seccomp = \"true\"\n"),
		"runsc-ext-network": shimConfig("runsc-ext-network", "network = \"host\"\n"),
	}
	if err := os.Mkdir(n.path("cni"), 0o755); err != nil {
		t.Fatal(err)
	}
	n.write(t, "cni/pods.conflist", fmt.Sprintf(`{
		"cniVersion": "0.4.0",
		"name": "pods",
		"plugins": [{
			"type": "ptp",
			"ipMasq": false,
			"ipam": {
				"type": "host-local",
				"dataDir": %q,
				"ranges": [[{"subnet": %q}]],
				"routes": [{"dst": "0.0.0.0/0"}]
			}
		}]
	}`, n.path("addresses"), subnet+"0/24"))
	var imports []string
	for name, options := range handlers {
		text := strings.ReplaceAll(handler, ".runtimes.runsc-ext", ".runtimes."+name)
		text = strings.ReplaceAll(text, "/etc/containerd/runsc-ext.toml", options)
		if name == "runsc-ext-bare" {
			text = strings.ReplaceAll(text, `pod_annotations = ["dev.gvisor.*"]`, "")
		}
		imports = append(imports, strconv.Quote(n.write(t, "containerd-"+name+".toml", text)))
	}
	n.init = n.startContainerd(t, fmt.Sprintf(`
imports = [%s]

[plugins."io.containerd.cri.v1.images"]
snapshotter = "native"
pinned_images.sandbox = %q

[plugins."io.containerd.cri.v1.runtime"]
netns_mounts_under_state_dir = true
restrict_oom_score_adj = true
cni.bin_dirs = [%q]
cni.conf_dir = %q
`, strings.Join(imports, ", "), imageName, pluginDir, n.path("cni")), n.programs, n.cri("Status", "{}")).Process.Pid
	return n
}

// containerdScript is the first process of new namespaces. It runs containerd, again after each stop
// or kill. When it exits, all processes in the namespaces are killed.
const containerdScript = `set -e
$0 mount -t proc proc /proc
# containerd and CNI write there, whatever their configuration says.
$0 mount -t tmpfs tmpfs /run
$0 mount -t tmpfs tmpfs /var/lib
$0 ip link set lo up
trap exit TERM
while :; do "$@" & wait $! || [ $? -gt 128 ] || exit; done
`

// startContainerd starts containerd with a configuration, imports the test's image, and
// waits until the command ready succeeds.
//
// gVisor's shim sets its OOM score, which needs CAP_SYS_RESOURCE except in a user namespace. The other
// new namespaces keep the mounts, processes and interfaces of pods away from the machine.
func (e *engine) startContainerd(t *testing.T, config, programs string, ready []string) *exec.Cmd {
	t.Helper()
	file := e.write(t, "config.toml", fmt.Sprintf(`version = 3
root = %q
state = %q
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]
grpc.address = %q
`, e.path("root"), e.path("state"), e.path("sock"))+config)
	cmd := exec.Command(busybox, "sh", "-c", containerdScript, busybox, filepath.Join(programs, "containerd"), "-c", file)
	cmd.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"))
	ids := []syscall.SysProcIDMap{{Size: 1 << 16}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:                 syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET,
		UidMappings:                ids,
		GidMappings:                ids,
		GidMappingsEnableSetgroups: true,
	}
	e.start(t, ready, cmd)
	image := e.write(t, "image.tar", string(imageArchive(t)))
	e.must(t, nil, filepath.Join(programs, "ctr"), "-a", e.path("sock"), "-n", "k8s.io", "image", "import", "--local", "--snapshotter=native", image)
	return cmd
}

// builtPrograms returns the directory of the programs that testdata/containerd/build has built. It
// skips the test if the programs are missing or were built from other sources.
func builtPrograms(t *testing.T) string {
	t.Helper()
	const build = "test/engines/testdata/containerd/build"
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "runsc-ext", "containerd")
	built, err := os.ReadFile(filepath.Join(dir, "sources"))
	if err != nil {
		t.Skipf("%v: run %s, which takes six minutes of CPU time", err, build)
	}
	sum := sha256.New()
	for _, name := range []string{"build", "go.mod", "go.sum", "cri/main.go", "../shim/go.mod", "../shim/go.sum"} {
		b, err := os.ReadFile(filepath.Join("testdata/containerd", name))
		if err != nil {
			t.Fatal(err)
		}
		sum.Write(b)
	}
	if fmt.Sprintf("%x\n", sum.Sum(nil)) != string(built) {
		t.Skipf("the programs in %s are built from other sources: run %s again", dir, build)
	}
	bin, err := sandbox.Binary()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := gvisorOf(t, filepath.Join(dir, "containerd-shim-runsc-v1")), gvisorOf(t, bin); got != want {
		t.Fatalf("the shim is of gVisor %s, runsc-ext is of %s: set that version in test/engines/testdata/shim/go.mod, and run %s", got, want, build)
	}
	return dir
}

// gvisorOf returns the version of gVisor from which a program is built.
func gvisorOf(t *testing.T, program string) string {
	t.Helper()
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
		if m.Path == "gvisor.dev/gvisor" {
			return m.Version
		}
	}
	t.Fatalf("%s is not built from gVisor", program)
	return ""
}

// readDeployed returns a file of deploy/containerd.
func readDeployed(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../deploy/containerd", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// containerd returns the ID of containerd's process, or 0 if it does not run.
func (n *node) containerd(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", n.init))
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range strings.Fields(string(b)) {
		if exe, err := os.Readlink("/proc/" + field + "/exe"); err == nil && exe == filepath.Join(n.programs, "containerd") {
			pid, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	return 0
}

// cri returns a command that makes a call of the Container Runtime Interface.
func (n *node) cri(method, request string) []string {
	return []string{filepath.Join(n.programs, "cri"), n.path("sock"), method, request}
}

// call makes a call.
func (n *node) call(t *testing.T, method string, request object) sandbox.Result {
	t.Helper()
	b, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	return n.run(t, n.cri(method, string(b)))
}

// must makes a call, and fails the test if the call fails. The response can be nil.
func (n *node) must(t *testing.T, method string, request object, response any) {
	t.Helper()
	r := n.call(t, method, request)
	if r.Status != 0 {
		t.Fatal(r)
	}
	if response == nil {
		return
	}
	if err := json.Unmarshal([]byte(r.Stdout), response); err != nil {
		t.Fatalf("%v: %v", r, err)
	}
}

// wantNoPods checks that containerd knows no pod.
func (n *node) wantNoPods(t *testing.T) {
	t.Helper()
	var got struct{ Items []object }
	n.must(t, "ListPodSandbox", object{}, &got)
	if len(got.Items) != 0 {
		t.Errorf("pods are left: %v", got.Items)
	}
}

// pod is a running pod.
type pod struct {
	*node
	id         string
	config     object
	containers int // number of started containers
}

// podConfig returns the configuration of a new pod on the host's network.
func (n *node) podConfig(t *testing.T) object {
	t.Helper()
	n.pods++
	name := fmt.Sprintf("pod-%d", n.pods)
	return object{
		"metadata":      object{"name": name, "uid": name, "namespace": "default"},
		"log_directory": n.path(name),
		"linux": object{
			"cgroup_parent": n.cgroup + "/" + name,
			"security_context": object{
				"namespace_options": object{"network": "NODE", "pid": "CONTAINER"},
				"seccomp":           object{"profile_type": "RuntimeDefault"},
			},
		},
	}
}

// runPod runs a pod until the end of the test. level is the pod's annotation, or empty for none.
func (n *node) runPod(t *testing.T, handler, level string, edits ...edit) *pod {
	t.Helper()
	p := &pod{node: n, config: n.podConfig(t)}
	if level != "" {
		annotate(level)(p.config)
	}
	for _, edit := range edits {
		if edit != nil {
			edit(p.config)
		}
	}
	var response struct{ PodSandboxID string }
	n.must(t, "RunPodSandbox", object{"config": p.config, "runtime_handler": handler}, &response)
	p.id = response.PodSandboxID
	t.Cleanup(func() { p.remove(t) })
	return p
}

// remove stops and removes a pod. The calls also succeed if the pod does not exist any more.
func (p *pod) remove(t *testing.T) {
	t.Helper()
	p.must(t, "StopPodSandbox", object{"pod_sandbox_id": p.id}, nil)
	p.must(t, "RemovePodSandbox", object{"pod_sandbox_id": p.id}, nil)
}

// processes returns the processes in a pod's control group, which is removed with the pod.
func (p *pod) processes(t *testing.T) []int {
	t.Helper()
	var pids []int
	root := filepath.Join(cgroupRoot(), at(p.config, "linux")["cgroup_parent"].(string))
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.Name() != "cgroup.procs" {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
			return err
		}
		for _, field := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(field)
			if err != nil || pid == 0 {
				return fmt.Errorf("%s has the process %q: %v", path, field, err)
			}
			pids = append(pids, pid)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return pids
}

// container is a container of a pod.
type container struct {
	*pod
	id, logPath string
	command     []string
}

// String implements fmt.Stringer.String.
func (c *container) String() string { return fmt.Sprintf("container %q", c.command) }

// start creates a container for a command and starts it.
func (p *pod) start(t *testing.T, command []string, edits ...edit) *container {
	t.Helper()
	p.containers++
	name := fmt.Sprintf("container-%d", p.containers)
	c := &container{pod: p, command: command, logPath: name + ".log"}
	config := object{
		"metadata": object{"name": name},
		"image":    object{"image": imageName},
		"command":  command,
		"log_path": c.logPath,
		"linux":    object{"security_context": object{"namespace_options": p.config["linux"].(object)["security_context"].(object)["namespace_options"]}},
	}
	for _, edit := range edits {
		if edit != nil {
			edit(config)
		}
	}
	var response struct{ ContainerID string }
	p.must(t, "CreateContainer", object{"pod_sandbox_id": p.id, "config": config, "sandbox_config": p.config}, &response)
	c.id = response.ContainerID
	p.must(t, "StartContainer", object{"container_id": c.id}, nil)
	return c
}

// check runs a container to its exit and checks its exit status and standard output.
func (p *pod) check(t *testing.T, status int, stdout string, command []string, edits ...edit) *container {
	t.Helper()
	c := p.start(t, command, edits...)
	if got := c.wait(t); got.ExitCode != status {
		t.Errorf("%v: got %+v, want exit status %d", c, got, status)
	}
	if got := c.log(t, "stdout"); got != stdout {
		t.Errorf("%v: standard output is %q, want %q; standard error is %q", c, got, stdout, c.log(t, "stderr"))
	}
	return c
}

// containerStatus has the fields of ContainerStatus that kubelet uses.
type containerStatus struct {
	State    string
	ExitCode int
	Reason   string
	Message  string
}

func (c *container) status(t *testing.T) containerStatus {
	t.Helper()
	var response struct{ Status containerStatus }
	c.must(t, "ContainerStatus", object{"container_id": c.id}, &response)
	return response.Status
}

// wait waits until a container has exited.
func (c *container) wait(t *testing.T) containerStatus {
	t.Helper()
	var got containerStatus
	eventually(t, func() error {
		if got = c.status(t); got.State != "CONTAINER_EXITED" {
			return fmt.Errorf("%v: got %+v, want an exited container", c, got)
		}
		return nil
	})
	return got
}

// checkExec executes a command in a container and checks its exit status and standard
// output.
func (c *container) checkExec(t *testing.T, status int, stdout string, command []string) {
	t.Helper()
	var got struct {
		Stdout, Stderr []byte
		ExitCode       int
	}
	c.must(t, "ExecSync", object{"container_id": c.id, "cmd": command, "timeout": 60}, &got)
	if got.ExitCode != status || string(got.Stdout) != stdout {
		t.Errorf("%q in %v: exit status %d, %q and %q, want status %d and %q", command, c, got.ExitCode, got.Stdout, got.Stderr, status, stdout)
	}
}

// log returns the output of a container to a stream, from its log.
func (c *container) log(t *testing.T, stream string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.config["log_directory"].(string), c.logPath))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for line := range strings.Lines(string(b)) {
		// A line has a time, a stream, F or P for a full or a partial line, and the text.
		fields := strings.SplitN(line, " ", 4)
		if len(fields) != 4 {
			t.Fatalf("the log of %v has the line %q", c, line)
		}
		if fields[1] != stream {
			continue
		}
		if fields[2] == "P" {
			fields[3] = strings.TrimSuffix(fields[3], "\n")
		}
		text.WriteString(fields[3])
	}
	return text.String()
}

// cgroupRoot returns the root of the hierarchy of control groups that limits memory.
func cgroupRoot() string {
	const root = "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/memory"); err == nil {
		return root + "/memory" // cgroup version 1
	}
	return root
}

// limitMemory creates a control group with a limit in bytes.
func limitMemory(t *testing.T, cgroup string, limit int) {
	t.Helper()
	dir, file := filepath.Join(cgroupRoot(), cgroup), "memory.limit_in_bytes"
	err := os.MkdirAll(dir, 0o755)
	if err == nil && strings.HasSuffix(cgroupRoot(), "/cgroup") {
		file = "memory.max"
		for parent := filepath.Dir(dir); err == nil && strings.HasPrefix(parent, cgroupRoot()); parent = filepath.Dir(parent) {
			err = os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+memory"), 0)
		}
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, file), []byte(strconv.Itoa(limit)), 0)
	}
	if err != nil {
		t.Skipf("cannot create a control group with a limit: %v", err)
	}
}

// removeCgroups removes a control group, and all groups in it, from all hierarchies.
func removeCgroups(t *testing.T, cgroup string) {
	roots, err := filepath.Glob("/sys/fs/cgroup/*" + cgroup)
	if err != nil {
		t.Error(err)
	}
	for _, root := range append(roots, "/sys/fs/cgroup"+cgroup) {
		var dirs []string
		filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for i := len(dirs) - 1; i >= 0; i-- {
			if err := os.Remove(dirs[i]); err != nil {
				t.Error(err)
			}
		}
	}
}
