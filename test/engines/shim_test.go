package engines_test

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"runsc-ext/test/sandbox"
)

// gVisor's shim, which Kubernetes uses, passes a container's annotations on to
// runsc-ext, and its messages back.
func TestContainerdShim(t *testing.T) {
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "runsc-ext", "containerd")
	containerd, shim := filepath.Join(dir, "containerd"), filepath.Join(dir, "containerd-shim-runsc-v1")
	const build = "test/engines/testdata/containerd/build"
	for _, bin := range []string{containerd, shim, filepath.Join(dir, "ctr")} {
		if _, err := os.Stat(bin); err != nil {
			t.Logf("left out, as building it takes long: %v: run %s", err, build)
			return
		}
	}
	bin, err := sandbox.Binary()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := gvisorOf(t, shim), gvisorOf(t, bin); got != want {
		t.Fatalf("the shim is of gVisor %s, runsc-ext of %s: set that in go.mod beside %s, and run it", got, want, build)
	}

	e := newEngine(t, containerd, "containerd")
	deployed, err := os.ReadFile("../../deploy/containerd/runsc-ext.toml")
	if err != nil {
		t.Fatal(err)
	}
	options := e.write(t, "runsc-ext.toml", fmt.Sprintf("root = %q\n", e.path("runsc"))+
		strings.ReplaceAll(string(deployed), "/usr/local/bin/runsc-ext", e.copyBinary(t, "runsc-ext"))+
		"network = \"none\"\nignore-cgroups = \"true\"\n")
	config := e.write(t, "config.toml", fmt.Sprintf(`version = 3
root = %q
state = %q
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]
[grpc]
address = %q
`, e.path("root"), e.path("state"), e.path("sock")))
	// The shim gives itself an OOM score that takes CAP_SYS_RESOURCE, and goes without it
	// in a user namespace. All that containerd starts ends with its PID namespace.
	cmd := exec.Command("sh", "-c", `mount -t proc proc /proc && exec "$@"`, "sh", containerd, "-c", config)
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	ids := []syscall.SysProcIDMap{{Size: 1 << 16}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:                 syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		UidMappings:                ids,
		GidMappings:                ids,
		GidMappingsEnableSetgroups: true,
	}
	ctr := []string{filepath.Join(dir, "ctr"), "-a", e.path("sock")}
	e.start(t, append(ctr, "version"), cmd)
	image := e.write(t, "image.tar", string(imageArchive(t)))
	if r := e.run(t, append(ctr, "image", "import", "--local", "--snapshotter=native", image)...); r.status != 0 {
		t.Fatal(r)
	}

	// The annotation is what containerd's CRI plugin gives a pod; without it, this hangs.
	run := append(ctr, "run", "--snapshotter=native", "--runtime=io.containerd.runsc.v1", "--runtime-config-path="+options,
		"--annotation=io.kubernetes.cri.container-type=sandbox")
	container := func(args ...string) []string {
		return append(append(run[:len(run):len(run)], "--rm"), args...)
	}
	// The shim may miss the status of a container that ends at once.
	program := "clone4 " + strings.Join(abis, " ") + "; sleep 1; exit 7"
	e.check(t, "on", 7, works, container(imageName, "on", "sh", "-c", program)...)
	e.check(t, "off", 7, off, container("--annotation="+annotation+"=off", imageName, "off", "sh", "-c", program)...)
	e.checkRefused(t, container("--annotation="+annotation+"=sometimes", imageName, "refused", "sh", "-c", program)...)

	if r := e.run(t, append(run[:len(run):len(run)], "-d", imageName, "long", "sleep", "1000")...); r.status != 0 {
		t.Fatal(r)
	}
	e.check(t, "exec", 7, works, append(ctr, "task", "exec", "--exec-id=e", "long", "sh", "-c", program)...)
	e.check(t, "gVisor", 0, "gVisor\n", append(ctr, "task", "exec", "--exec-id=f", "long", "sh", "-c", "dmesg | grep -o -m1 gVisor; sleep 1")...)
	e.check(t, "kill", 0, "", append(ctr, "task", "kill", "-s", "KILL", "long")...)
	e.remove(t, ctr, "long")
}

// gvisorOf returns the version of gVisor that a program is built from.
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
