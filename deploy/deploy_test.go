// SPDX-License-Identifier: Apache-2.0

// Package deploy_test checks the contents of the configuration files in this directory.
// test/engines runs containers with most of the files.
package deploy_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"gopkg.in/yaml.v3"

	"runsc-ext/sentry/syscalls/clone4"
)

const (
	name       = "runsc-ext"
	binary     = "/usr/local/bin/runsc-ext"
	shimConfig = "/etc/containerd/runsc-ext.toml"
	annotation = "dev.gvisor.ext.clone4"
)

// runtime is a runtime in containerd's configuration.
type runtime struct {
	Type        string   `toml:"runtime_type"`
	Annotations []string `toml:"pod_annotations"`
	Options     struct{ TypeUrl, ConfigPath string }
}

type cri struct {
	Containerd struct{ Runtimes map[string]runtime }
}

// TestContainerd checks that both versions of containerd's configuration have the runtime,
// start gVisor's shim for the runtime, and pass a pod's annotation on.
func TestContainerd(t *testing.T) {
	for file, version := range map[string]int{"config.toml": 2, "config-v3.toml": 3} {
		var c struct {
			Version int
			Plugins struct {
				V2 cri `toml:"io.containerd.grpc.v1.cri"`
				V3 cri `toml:"io.containerd.cri.v1.runtime"`
			}
		}
		meta, err := toml.DecodeFile(filepath.Join("containerd", file), &c)
		if err != nil || len(meta.Undecoded()) != 0 {
			t.Errorf("%s: %v, unknown keys %v", file, err, meta.Undecoded())
			continue
		}
		r, ok := c.Plugins.V2.Containerd.Runtimes[name]
		if version == 3 {
			r, ok = c.Plugins.V3.Containerd.Runtimes[name]
		}
		if !ok || c.Version != version || r.Type != "io.containerd.runsc.v1" || r.Options.TypeUrl != "io.containerd.runsc.v1.options" || r.Options.ConfigPath != shimConfig {
			t.Errorf("%s: version %d has runtime %+v (%t), want version %d", file, c.Version, r, ok, version)
		}
		passed := false
		for _, pattern := range r.Annotations {
			match, err := filepath.Match(pattern, annotation)
			passed = passed || match && err == nil
		}
		if !passed {
			t.Errorf("%s: %q do not let %s pass", file, r.Annotations, annotation)
		}
	}
}

// TestContainerdReadsIt checks that containerd reads the configuration of its version.
func TestContainerdReadsIt(t *testing.T) {
	if _, err := exec.LookPath("containerd"); err != nil {
		t.Skipf("%v: apt-get install containerd", err)
	}
	version, err := exec.Command("containerd", "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	file := "config.toml"
	if strings.Contains(string(version), " v2.") || strings.Contains(string(version), " 2.") {
		file = "config-v3.toml"
	}
	var stderr bytes.Buffer
	cmd := exec.Command("containerd", "-c", filepath.Join("containerd", file), "config", "dump")
	cmd.Stderr = &stderr
	dump, err := cmd.Output()
	out := strings.ReplaceAll(string(dump), "'", `"`) // containerd 2 prints either kind of quotes.
	for _, want := range []string{".containerd.runtimes." + name + "]", shimConfig, `pod_annotations = ["dev.gvisor.*"]`} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%v: %v: no %q in\n%s%s", cmd, err, want, out, stderr.String())
		}
	}
}

// TestShimConfig checks that the shim starts the binary from the path in docs/containers.md.
func TestShimConfig(t *testing.T) {
	var c struct {
		Binary string            `toml:"binary_name"`
		Flags  map[string]string `toml:"runsc_config"`
	}
	meta, err := toml.DecodeFile("containerd/runsc-ext.toml", &c)
	if err != nil || len(meta.Undecoded()) != 0 || c.Binary != binary || c.Flags["platform"] != "systrap" {
		t.Errorf("got %+v, %v, unknown keys %v", c, err, meta.Undecoded())
	}
}

// TestDocker checks that both runtimes of Docker are named like their binaries.
func TestDocker(t *testing.T) {
	b, err := os.ReadFile("docker/daemon.json")
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Runtimes map[string]struct {
			Path string   `json:"path"`
			Args []string `json:"runtimeArgs"`
		} `json:"runtimes"`
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil || c.Runtimes[name].Path != binary || c.Runtimes[name+"-off"].Path != binary+"-off" {
		t.Errorf("got %+v, %v", c, err)
	}
}

// object has those fields of a RuntimeClass and a Pod that the files use. A field of another
// name, or at another place, is an error, as it is for kubectl.
type object struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   struct {
		Name        string
		Annotations map[string]string
	}
	Handler string
	Spec    struct {
		RuntimeClassName string `yaml:"runtimeClassName"`
		RestartPolicy    string `yaml:"restartPolicy"`
		Containers       []struct {
			Name, Image string
			Command     []string
		}
	}
}

// TestKubernetes checks that the pods use the runtime class, and that one has clone4 off.
func TestKubernetes(t *testing.T) {
	classes := read(t, "kubernetes/runtimeclass.yaml")
	if len(classes) != 1 || classes[0].APIVersion != "node.k8s.io/v1" || classes[0].Kind != "RuntimeClass" || classes[0].Handler != name {
		t.Fatalf("got %+v, want a RuntimeClass", classes)
	}
	pods := read(t, "kubernetes/pods.yaml")
	if len(pods) != 2 {
		t.Fatalf("got %d pods, want one with clone4 and one without", len(pods))
	}
	for i, want := range []string{"", clone4.LevelOff.String()} {
		pod := pods[i]
		if pod.APIVersion != "v1" || pod.Kind != "Pod" || pod.Spec.RuntimeClassName != classes[0].Metadata.Name || len(pod.Spec.Containers) != 1 {
			t.Errorf("got %+v, want a Pod of that class", pod)
		}
		if got := pod.Metadata.Annotations[annotation]; got != want {
			t.Errorf("pod %s has the level %q, want %q", pod.Metadata.Name, got, want)
		}
	}
}

// read returns all objects of a file.
func read(t *testing.T, file string) []object {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := yaml.NewDecoder(f)
	d.KnownFields(true)
	var objects []object
	for {
		var o object
		err := d.Decode(&o)
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		objects = append(objects, o)
	}
}
