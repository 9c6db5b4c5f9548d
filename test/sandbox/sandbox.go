// SPDX-License-Identifier: Apache-2.0

// Package sandbox builds runsc-ext for tests, and runs commands and containers.
package sandbox

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Platforms are the platforms on which every test of a sandbox runs. They work on every
// machine, unlike KVM.
var Platforms = []string{"systrap", "ptrace"}

// Binary returns the path of runsc-ext, built from the source of the test. All packages of one
// `go test` share the binary, and only the first one builds it.
var Binary = sync.OnceValues(func() (string, error) {
	return Build(runscExt, runtime.GOARCH)
})

const runscExt = "runsc-ext/runsc-ext"

// Build builds the main package pkg for an architecture and returns the path of
// the binary, which is static.
func Build(pkg, arch string) (string, error) {
	switch {
	case arch != runtime.GOARCH:
		// The profile would cause a second compilation of gVisor, and an emulator
		// does not need it.
		return build(arch, pkg, "build", "-pgo=off")
	case pkg == runscExt:
		return build(arch, pkg, "build", "-trimpath") // as for a release
	}
	return build(arch, pkg, "build")
}

// BuildTest builds the tests of pkg for an architecture and returns the path of
// the test binary, which is static.
func BuildTest(pkg, arch string) (string, error) {
	return build(arch, pkg, "test", "-c")
}

func build(arch, pkg string, command ...string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	source, err := sourceDir()
	if err != nil {
		return "", err
	}
	// Each copy of the source has its own binaries.
	copyOf := fmt.Sprintf("%x", sha256.Sum256([]byte(source)))[:16]
	name := fmt.Sprintf("%s-%s-%s", strings.ReplaceAll(pkg, "/", "-"), command[0], arch)
	dir := filepath.Join(cache, "runsc-ext", "test", copyOf, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	// The go command tests packages in parallel. One of them builds while the others
	// wait.
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("locking %s: %w", lock.Name(), err)
	}
	bin := filepath.Join(dir, filepath.Base(pkg))
	if _, err := os.Stat(bin); err != nil {
		fmt.Fprintf(os.Stderr, "building %s for %s; this takes a minute or two the first time\n", pkg, arch)
		start := time.Now()
		ticker := time.NewTicker(20 * time.Second)
		defer ticker.Stop()
		go func() {
			for range ticker.C {
				fmt.Fprintf(os.Stderr, "still building %s, for %v\n", pkg, time.Since(start).Round(time.Second))
			}
		}()
	}
	cmd := exec.Command("go", append(command, "-o", bin, pkg)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v: %w\n%s", cmd, err, out)
	}
	return bin, touchSource(source)
}

// sourceDir returns the directory of the module.
func sourceDir() (string, error) {
	gomod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(gomod))), nil
}

// gvisorDir returns the directory of gVisor's source, of the version in go.mod.
var gvisorDir = sync.OnceValues(func() (string, error) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "gvisor.dev/gvisor").Output()
	if err != nil {
		return "", fmt.Errorf("go list -m gvisor.dev/gvisor: %w", err)
	}
	return strings.TrimSpace(string(dir)), nil
})

// GVisorSource returns a file of gVisor's source. It is for tests of what cannot be caused.
func GVisorSource(t testing.TB, file string) string {
	t.Helper()
	dir, err := gvisorDir()
	if err != nil {
		t.Fatal(err)
	}
	src, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(src)
}

// touchSource calls stat for every file of the module. The go command caches the result of a
// test until a file changes that the test has opened or looked at. It does not know which
// files the binary under test is built from.
func touchSource(source string) error {
	return filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == ".git" {
			return filepath.SkipDir
		}
		_, err = os.Stat(path)
		return err
	})
}

// Do returns a command that runs a program in a new sandbox on the given platform. The program
// can read the file system of the machine, and loses its own changes at the end. The output
// must go to a pipe: a sandbox would write to a file from offset 0. exec.Cmd uses a pipe for
// any io.Writer but a file.
func Do(platform string, args ...string) (*exec.Cmd, error) {
	bin, err := Binary()
	if err != nil {
		return nil, err
	}
	return exec.Command(bin, append(append(Flags(platform), "do"), args...)...), nil
}

// DoAt is Do at a level of clone4; "" is the default. It uses a second name of the binary.
func DoAt(level, platform string, args ...string) (*exec.Cmd, error) {
	cmd, err := Do(platform, args...)
	if err != nil || level == "" {
		return cmd, err
	}
	dir := filepath.Join(filepath.Dir(cmd.Path), level)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	name := filepath.Join(dir, filepath.Base(cmd.Path))
	if err := writeLevel(name+LevelSuffix, level); err != nil {
		return nil, err
	}
	// Another test may be about to execute the binary, so it is replaced in one step.
	tmp, err := os.MkdirTemp(dir, "link-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	link := filepath.Join(tmp, filepath.Base(name))
	if err := os.Link(cmd.Path, link); err != nil {
		return nil, err
	}
	cmd.Path, cmd.Args[0] = name, name
	return cmd, os.Rename(link, name)
}

// writeLevel writes a level to a file. It leaves a file that already has the level alone,
// because another test's sandbox may be about to read it.
func writeLevel(name, level string) error {
	if b, err := os.ReadFile(name); err == nil && string(b) == level {
		return nil
	}
	return os.WriteFile(name, []byte(level), 0o644)
}

// Flags returns runsc-ext's global flags for a sandbox without network and cgroup. Without root,
// they include --rootless.
func Flags(platform string) []string {
	flags := []string{"--network=none", "--ignore-cgroups", "--platform=" + platform}
	if os.Geteuid() != 0 {
		flags = append(flags, "--rootless")
	}
	return flags
}
