// SPDX-License-Identifier: Apache-2.0

package engines_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"

	"runsc-ext/test/sandbox"
)

// imageName is the name of the image in imageArchive.
const imageName = "docker.io/library/test:latest"

// busybox is the path of Debian's static busybox.
const busybox = "/bin/busybox"

// rootfs returns the file system of the containers as a tar archive. It has busybox, the guest of all
// tests under the name clone4, and the Go example.
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
	guest, err := sandbox.Guest()
	if err != nil {
		return nil, err
	}
	spawn, err := sandbox.Build("runsc-ext/examples/spawn", runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "bin/", Mode: 0o755})
	for _, program := range []struct{ name, file string }{{"busybox", busybox}, {"clone4", guest}, {"spawn", spawn}} {
		b, readErr := os.ReadFile(program.file)
		err = errors.Join(err, readErr, add(w, "bin/"+program.name, b))
	}
	for _, name := range []string{"dd", "dmesg", "echo", "grep", "nc", "sh", "sleep", "true"} {
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

// imageArchive returns an image with the file system of rootfs, in the format of "docker save". The
// command of the image is that of the pause container of a pod.
func imageArchive(t *testing.T) []byte {
	t.Helper()
	layer := rootfs(t)
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       map[string]any{"Env": []string{"PATH=/bin"}, "Cmd": []string{"sleep", "2147483647"}},
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
