// SPDX-License-Identifier: Apache-2.0

// Package main_test tests the built runsc-ext, as operators and engines use it.
package main_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"runsc-ext/abi/linux"
	"runsc-ext/test/sandbox"
)

// works and enosys are what the guest prints if it calls clone4 once.
var (
	works  = sandbox.Results("ok", runtime.GOARCH)
	enosys = sandbox.Results("ENOSYS", runtime.GOARCH)
)

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == filteredCommand {
		fmt.Fprintln(os.Stderr, execFiltered(os.Args[2:]))
		os.Exit(1)
	}
	status := m.Run()
	os.Remove(etcDir) // if it is empty
	os.Exit(status)
}

// TestVersion checks that --version prints the versions of runsc-ext and of gVisor. Docker and
// bug reports use the output. A build of runsc without linker flags prints VERSION_MISSING.
func TestVersion(t *testing.T) {
	gvisor := sandbox.Run(t, "go", "list", "-m", "-f", "{{.Version}}", "gvisor.dev/gvisor")
	want := regexp.MustCompile(`^runsc version runsc-ext \d+\.\d+\.\d+ \(gVisor ` + regexp.QuoteMeta(strings.TrimSpace(gvisor.Stdout)) + `\)\nspec: \d+\.\d+\.\d+\S*\n$`)
	if r := sandbox.Run(t, binary(t), "--version"); r.Status != 0 || !want.MatchString(r.Stdout) {
		t.Errorf("got %v\nwant status 0 and %v", r, want)
	}
}

// TestHelpSyscalls checks that "help syscalls" lists clone4 for both architectures and has no
// other change. At level off, it prints gVisor's own list.
func TestHelpSyscalls(t *testing.T) {
	off := install(t)
	sandbox.WriteFile(t, off+sandbox.LevelSuffix, "off")
	for _, tc := range []struct {
		arch   string
		number int
	}{
		{arch: "amd64", number: linux.SYS_CLONE4_AMD64},
		{arch: "arm64", number: linux.SYS_CLONE4_GENERIC},
	} {
		t.Run(tc.arch, func(t *testing.T) {
			number := fmt.Sprint(tc.number)
			with, without := listSyscalls(t, binary(t), tc.arch), listSyscalls(t, off, tc.arch)
			if got, want := with[number], (syscallInfo{"clone4", "Partial Support"}); got != want {
				t.Errorf("on: %s is %v, want %v", number, got, want)
			}
			if got, want := without[number], (syscallInfo{"userfaultfd", "Unimplemented"}); got != want {
				t.Errorf("off: %s is %v, want %v", number, got, want)
			}
			delete(with, number)
			delete(without, number)
			if len(without) < 200 || !reflect.DeepEqual(with, without) {
				t.Errorf("clone4 changed other calls of the %d there are", len(without))
			}
		})
	}
}

// syscallInfo describes a system call in the output of "help syscalls".
type syscallInfo struct{ Name, Support string }

// listSyscalls returns the system calls of an architecture by number, as bin lists them.
func listSyscalls(t *testing.T, bin, arch string) map[string]syscallInfo {
	t.Helper()
	r := sandbox.Run(t, bin, "help", "syscalls", "-arch="+arch, "-format=json")
	var list map[string]map[string]struct {
		Syscalls map[string]syscallInfo
	}
	if err := json.Unmarshal([]byte(r.Stdout), &list); err != nil {
		t.Fatalf("%v: %v", err, r)
	}
	return list["linux"][arch].Syscalls
}

// TestCgo checks that a binary that was built with cgo refuses to run, and prints the command
// that builds a working one.
func TestCgo(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "runsc-ext")
	build := exec.Command("go", "build", "-o", bin, "runsc-ext/runsc-ext")
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	sandbox.Output(t, build).Check(t, 0, "")
	for _, args := range [][]string{nil, {"--version"}, {"probe"}, {"boot"}} {
		sandbox.Run(t, bin, args...).CheckRefused(t, "cgo", "CGO_ENABLED=0 go build ./runsc-ext\n", "CGO_ENABLED=0 go run ./runsc-ext probe\n")
	}
}

// TestPlantedSentry checks that a stock sentry never boots, wherever it is. Installs of gVisor
// have one, and runsc prefers it to itself. A prewarmer in the same directory stays in use.
func TestPlantedSentry(t *testing.T) {
	const sidecars = "gvisor-bin"
	strict := []string{"--sidecar-usage-policy=STRICT"}
	for _, tc := range []struct {
		name  string
		dir   string // of the sidecars, relative to the binary's
		env   string // GVISOR_SIDECAR_BINARIES_DIR; %s is the binary's directory
		flags []string
	}{
		{name: "beside the binary", dir: sidecars},
		{name: "beside the binary, strict", dir: sidecars, flags: strict},
		{name: "absolute path", dir: "elsewhere", env: "%s/elsewhere"},
		{name: "absolute path, strict", dir: "elsewhere", env: "%s/elsewhere", flags: strict},
		{name: "relative path", dir: "else/where", env: "where"},
		{name: "relative path from beside the binary", dir: "where", env: "where"},
		{name: "relative path, strict", dir: "else/where", env: "where", flags: strict},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			bin := install(t)
			dir := filepath.Join(filepath.Dir(bin), tc.dir)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			marker := filepath.Join(t.TempDir(), "stock-sentry-ran")
			plant(t, filepath.Join(dir, "gvisor_sentry"), fmt.Sprintf("echo >%q\nexit 1", marker))
			prewarmed := filepath.Join(t.TempDir(), "prewarmed")
			plant(t, filepath.Join(dir, "gvisor-sentry-prewarmer"), fmt.Sprintf("echo >%q\nbin=$1\nshift 2\nexec \"$bin\" \"$@\"", prewarmed))

			cmd := do(t, bin, sandbox.Platforms[0], tc.flags...)
			if tc.env != "" {
				cmd.Dir = filepath.Dir(dir)
				cmd.Env = append(os.Environ(), "GVISOR_SIDECAR_BINARIES_DIR="+strings.ReplaceAll(tc.env, "%s", filepath.Dir(bin)))
			}
			sandbox.Output(t, cmd).Check(t, 0, works)
			if exists(marker) {
				t.Error("runsc booted the planted sentry")
			}
			if !exists(prewarmed) {
				t.Error("runsc did not use the prewarmer: the directory is not the one it looks in")
			}
		})
	}
}

// TestReplacedBinary checks that a running binary starts a sandbox even after an upgrade has
// replaced the file.
func TestReplacedBinary(t *testing.T) {
	t.Parallel()
	bin := install(t)
	f, err := os.Open(bin)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Remove(bin); err != nil {
		t.Fatal(err)
	}
	cmd := do(t, "/proc/self/fd/3", sandbox.Platforms[0])
	cmd.ExtraFiles = []*os.File{f}
	sandbox.Output(t, cmd).Check(t, 0, works)
}

// guest returns the command line of the guest with the steps given.
func guest(t *testing.T, steps ...string) []string {
	t.Helper()
	bin, err := sandbox.Guest()
	if err != nil {
		t.Fatal(err)
	}
	return append([]string{bin}, steps...)
}

// newContainer returns a container in which the guest calls clone4 once. level is its
// annotation, or empty for none.
func newContainer(t *testing.T, bin, platform, level string) *sandbox.Container {
	t.Helper()
	c := sandbox.NewContainer(t, bin, platform, guest(t, runtime.GOARCH)...)
	c.AnnotateLevel(t, level)
	return c
}

// do returns a command that runs the guest in a new sandbox, where it calls clone4 once.
func do(t *testing.T, bin, platform string, flags ...string) *exec.Cmd {
	t.Helper()
	return exec.Command(bin, slices.Concat(sandbox.Flags(platform), flags, []string{"do"}, guest(t, runtime.GOARCH))...)
}

func binary(t *testing.T) string {
	t.Helper()
	bin, err := sandbox.Binary()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// install puts runsc-ext into a directory of its own, where a test can put files beside it,
// and returns its path.
func install(t *testing.T) string {
	t.Helper()
	return sandbox.Install(t, t.TempDir(), "runsc-ext")
}

// nobody is the user and the group of a sentry that needs no privileges.
const nobody = 65534

// dirFor returns a directory that a user may read and write.
func dirFor(t *testing.T, uid int) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "runsc-ext-test-*") // t.TempDir is private.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if os.Geteuid() == 0 {
		if err := errors.Join(os.Chown(dir, uid, uid), os.Chmod(dir, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// installFor is install, into a directory that a user may read and write.
func installFor(t *testing.T, uid int) string {
	t.Helper()
	return sandbox.Install(t, dirFor(t, uid), "runsc-ext")
}

// plant writes an executable shell script.
func plant(t *testing.T, name, script string) {
	t.Helper()
	sandbox.WriteFile(t, name, "#!/bin/sh\n"+script+"\n")
	if err := os.Chmod(name, 0o755); err != nil {
		t.Fatal(err)
	}
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}
