// SPDX-License-Identifier: Apache-2.0

// Package examples tests the example programs that use clone4: in sandboxes, on the
// machine's kernel, which does not have clone4, and on the reference kernel.
package examples

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"runsc-ext/abi/linux"
	"runsc-ext/test/sandbox"
)

// place is a kernel to run a program on.
type place struct {
	name   string
	clone4 bool
	run    func(args ...string) (*exec.Cmd, error)
}

// places returns the kernels on which the machine's programs can run.
func places() []place {
	ps := []place{{
		name: "host",
		run:  func(args ...string) (*exec.Cmd, error) { return exec.Command(args[0], args[1:]...), nil },
	}}
	for _, platform := range sandbox.Platforms {
		ps = append(ps, place{
			name:   platform,
			clone4: true,
			run:    func(args ...string) (*exec.Cmd, error) { return sandbox.Do(platform, args...) },
		})
	}
	return ps
}

// fdPlaces returns the kernels that have CLONE_FD.
func fdPlaces() []place {
	var ps []place
	for _, platform := range sandbox.Platforms {
		ps = append(ps, place{
			name:   platform + ",fd",
			clone4: true,
			run:    func(args ...string) (*exec.Cmd, error) { return sandbox.DoAt("fd", platform, args...) },
		})
	}
	return ps
}

// reference returns the reference kernel, which has no file but the program.
func reference(t *testing.T) place {
	t.Helper()
	_, err := sandbox.Native("program")
	sandbox.Need(t, err)
	return place{
		name:   "reference",
		clone4: true,
		run:    func(args ...string) (*exec.Cmd, error) { return sandbox.Native(args[0], args[1:]...) },
	}
}

// result is the result of a program.
type result struct {
	status         int
	stdout, stderr string
}

func (p place) do(t *testing.T, args ...string) result {
	t.Helper()
	cmd, err := p.run(args...)
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Env = append(os.Environ(), "EXAMPLE=from outside")
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

var spawn = sync.OnceValues(func() (string, error) {
	return sandbox.Build("runsc-ext/examples/spawn", runtime.GOARCH)
})

// using returns the line of spawn that names the call that it uses on p.
func using(p place) string {
	if p.clone4 {
		return "spawn: using clone4\n"
	}
	return "spawn: using clone, as this kernel has no clone4\n"
}

func TestSpawn(t *testing.T) {
	t.Parallel()
	bin, err := spawn()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for _, tc := range []struct {
		name    string
		args    []string
		status  int
		stdout  string
		problem string // part of the error of spawn
		early   bool   // the error comes before a child is created
	}{
		{name: "success", args: []string{"/bin/true"}},
		{name: "status", args: []string{"/bin/sh", "-c", "exit 7"}, status: 7},
		{name: "arguments", args: []string{"sh", "-c", `echo "$EXAMPLE: $0, $1"`, "a b", ""}, stdout: "from outside: a b, \n"},
		// spawn leaves no signal blocked or ignored in the child.
		{name: "signal", args: []string{"sh", "-c", "kill -TERM $$"}, status: 128 + 15},
		{name: "no program", args: []string{file("noexec", "junk", 0o755)}, status: 126, problem: "noexec: exec format error; the file must begin with #!"},
		{name: "no interpreter", args: []string{file("nointerp", "#!/no/such/file\n", 0o755)}, status: 126, problem: "nointerp: no such file or directory; the file is there, its interpreter is not"},
		{name: "not executable", args: []string{file("data", "", 0o644)}, status: 126, problem: "chmod +x", early: true},
		{name: "not in PATH", args: []string{"no-such-command"}, status: 127, problem: `"no-such-command": executable file not found in $PATH; install it`, early: true},
		{name: "no file", args: []string{"/no/such/file"}, status: 127, problem: "/no/such/file: no such file", early: true},
		{name: "no command", status: 125, problem: "usage: spawn CMD", early: true},
	} {
		for _, p := range places() {
			t.Run(tc.name+"/"+p.name, func(t *testing.T) {
				t.Parallel()
				got := p.do(t, append([]string{bin}, tc.args...)...)
				if got.status != tc.status || got.stdout != tc.stdout {
					t.Errorf("got status %d and stdout %q, want %d and %q", got.status, got.stdout, tc.status, tc.stdout)
				}
				rest := got.stderr
				if !tc.early {
					var ok bool
					if rest, ok = strings.CutPrefix(got.stderr, using(p)); !ok {
						t.Errorf("stderr is %q, want first %q", got.stderr, using(p))
					}
				}
				if tc.problem == "" && rest != "" || !strings.Contains(rest, tc.problem) {
					t.Errorf("stderr is %q, want a problem %q", got.stderr, tc.problem)
				}
			})
		}
	}
}

// TestSpawnOnReference checks that spawn uses clone4 on the reference kernel. The only command
// there is spawn itself, as /test.
func TestSpawnOnReference(t *testing.T) {
	t.Parallel()
	p := reference(t)
	bin, err := spawn()
	if err != nil {
		t.Fatal(err)
	}
	got := p.do(t, bin, "/test")
	if got.status != 125 || !strings.Contains(got.stdout, using(p)) || !strings.Contains(got.stdout, "usage: spawn CMD") {
		t.Errorf("got status %d and output %q, want 125, %q, and the usage of spawn", got.status, got.stdout, using(p))
	}
}

// cABI is an ABI of clone4 that a C compiler can compile for.
type cABI struct {
	name   string
	flags  []string
	number int
	size   int
}

// cABIs returns the ABIs of this machine; the first is that of its Go programs.
func cABIs() []cABI {
	if runtime.GOARCH == "arm64" {
		return []cABI{{name: "arm64", number: linux.SYS_CLONE4_GENERIC, size: linux.SizeOfClone4Args}}
	}
	// Debian has the headers that all ABIs of x86 share in this directory.
	const shared = "-idirafter/usr/include/x86_64-linux-gnu"
	return []cABI{
		{name: "amd64", number: linux.SYS_CLONE4_AMD64, size: linux.SizeOfClone4Args},
		{name: "x32", flags: []string{"-mx32", shared}, number: linux.SYS_CLONE4_X32, size: linux.SizeOfCompatClone4Args},
		{name: "i386", flags: []string{"-m32", shared}, number: linux.SYS_CLONE4_I386, size: linux.SizeOfCompatClone4Args},
	}
}

// compilers are the compilers that the header supports, each with versions of its language.
var compilers = []struct {
	command  string
	language string
	stds     []string
}{
	{"cc", "c", []string{"gnu89", "c99"}},
	{"clang", "c", []string{"c99"}},
	{"g++", "c++", []string{"c++98", "c++11"}},
	{"clang++", "c++", []string{"c++17"}},
}

// compile compiles C source, from a file or from stdin if file is "-", into a static
// program. It skips the test if the compiler is missing, or cannot create even a minimal
// static program.
func compile(t *testing.T, file, stdin, compiler, language, std string, flags []string) string {
	t.Helper()
	if _, err := exec.LookPath(compiler); err != nil {
		t.Skip(err)
	}
	bin := filepath.Join(t.TempDir(), "program")
	args := append([]string{"-x", language, "-std=" + std, "-O2", "-static", "-o", bin}, flags...)
	cc := func(stdin string, args ...string) error {
		cmd := exec.Command(compiler, args...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w\n%s", cmd, err, out)
		}
		return nil
	}
	if err := cc("#include <errno.h>\nint main(void) { return errno; }\n", append(args, "-")...); err != nil {
		t.Skipf("%s cannot create static programs of this kind: %v", compiler, err)
	}
	args = append(args, "-Wall", "-Wextra", "-Werror", "-pedantic", "-I", "../include", file)
	if err := cc(stdin, args...); err != nil {
		t.Fatal(err)
	}
	return bin
}

// TestHeader checks that the header needs no other header before it, and agrees with the Go
// package.
func TestHeader(t *testing.T) {
	t.Parallel()
	for _, abi := range cABIs() {
		var src strings.Builder
		fmt.Fprint(&src, "#include <linux/clone4.h>\n#include <linux/clone4.h>\n#include <linux/sched.h>\n")
		for i, claim := range []string{
			fmt.Sprintf("SYS_clone4 == %d", abi.number),
			fmt.Sprintf("CLONE_PID == %#x", linux.CLONE_PID),
			fmt.Sprintf("CLONE_DETACHED == %#x", linux.CLONE_DETACHED),
			fmt.Sprintf("CLONE_STOPPED == %#x", linux.CLONE_STOPPED),
			fmt.Sprintf("sizeof(struct clone4_args) == %d", abi.size),
			"offsetof(struct clone4_args, ptid) == 0",
			fmt.Sprintf("offsetof(struct clone4_args, ctid) == %d", abi.size/5),
			fmt.Sprintf("offsetof(struct clone4_args, stack_start) == %d", abi.size/5*2),
			fmt.Sprintf("offsetof(struct clone4_args, stack_size) == %d", abi.size/5*3),
			fmt.Sprintf("offsetof(struct clone4_args, tls) == %d", abi.size/5*4),
			fmt.Sprintf("CLONE_AUTOREAP == %#x", linux.CLONE_AUTOREAP),
			fmt.Sprintf("CLONE_FD == %#x", linux.CLONE_FD),
			fmt.Sprintf("CLONEFD_CLOEXEC == %d", linux.CLONEFD_CLOEXEC),
			fmt.Sprintf("CLONEFD_NONBLOCK == %d", linux.CLONEFD_NONBLOCK),
			fmt.Sprintf("CLONEFD_KILL_ON_CLOSE == %d", linux.CLONEFD_KILL_ON_CLOSE),
			fmt.Sprintf("CLONEFD_IOC_GETTID == %#x", linux.CLONEFD_IOC_GETTID),
			fmt.Sprintf("CLONEFD_IOC_GETPID == %#x", linux.CLONEFD_IOC_GETPID),
			fmt.Sprintf("sizeof(struct clone4_fd_args) == %d", abi.size/5*7),
			fmt.Sprintf("offsetof(struct clone4_fd_args, clonefd) == %d", abi.size),
			fmt.Sprintf("offsetof(struct clone4_fd_args, clonefd_flags) == %d", abi.size/5*6),
			fmt.Sprintf("sizeof(struct clonefd_info) == %d", linux.SizeOfClonefdInfo),
			"offsetof(struct clonefd_info, status) == 4",
			"offsetof(struct clonefd_info, utime) == 8",
			"offsetof(struct clonefd_info, stime) == 16",
		} {
			fmt.Fprintf(&src, "extern char claim%d[(%s) ? 1 : -1];\n", i, claim)
		}
		fmt.Fprint(&src, "int main(void) { return 0; }\n")
		for _, c := range compilers {
			for _, std := range c.stds {
				t.Run(abi.name+"/"+c.command+"/"+std, func(t *testing.T) {
					t.Parallel()
					compile(t, "-", src.String(), c.command, c.language, std, abi.flags)
				})
			}
		}
	}
}

func TestC(t *testing.T) {
	t.Parallel()
	abis := cABIs()
	for _, c := range compilers {
		t.Run(c.command, func(t *testing.T) {
			t.Parallel()
			bin := compile(t, "c/spawn.c", "", c.command, c.language, c.stds[len(c.stds)-1], abis[0].flags)
			for _, p := range places() {
				t.Run(p.name, func(t *testing.T) { testC(t, p, bin) })
			}
		})
	}
	// A sandbox runs only 64-bit programs.
	for _, abi := range abis {
		t.Run("reference/"+abi.name, func(t *testing.T) {
			t.Parallel()
			p := reference(t)
			testC(t, p, compile(t, "c/spawn.c", "", "cc", "c", "c99", abi.flags))
		})
	}
}

func testC(t *testing.T, p place, bin string) {
	call := "clone, as this kernel has no clone4"
	if p.clone4 {
		call = "clone4"
	}
	want := "created by " + call + ": the worker's sum of 1 to 1000 is 500500\n"
	got := p.do(t, bin)
	if got.status != 0 || strings.TrimSpace(got.stdout) != strings.TrimSpace(want) || got.stderr != "" {
		t.Errorf("got status %d, stdout %q and stderr %q, want 0, %q and nothing", got.status, got.stdout, got.stderr, want)
	}
}

// TestRun checks that run prints how its commands exit at level fd, and that it refuses to run
// without CLONE_FD.
func TestRun(t *testing.T) {
	t.Parallel()
	bin := compile(t, "c/run.c", "", "cc", "c", "c99", cABIs()[0].flags)
	for _, p := range append(places(), fdPlaces()...) {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			got := p.do(t, bin, "exit 3", "kill -TERM $$", "sleep 0.2", "no-such-command 2>&-")
			want := result{status: 2, stderr: "run: this kernel has no CLONE_FD\n"}
			if strings.HasSuffix(p.name, ",fd") {
				want = result{stdout: "exit 3: exit status 3\nkill -TERM $$: signal 15\nno-such-command 2>&-: exit status 127\nsleep 0.2: exit status 0\n"}
				lines := strings.SplitAfter(got.stdout, "\n")
				slices.Sort(lines)
				got.stdout = strings.Join(lines, "")
			}
			if got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// TestProcfd runs the tests of package procfd, which uses CLONE_FD at level fd, and pidfds
// otherwise.
func TestProcfd(t *testing.T) {
	t.Parallel()
	bin, err := sandbox.BuildTest("runsc-ext/examples/procfd", runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range append(places(), fdPlaces()...) {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			cmd, err := p.run(bin)
			if err != nil {
				t.Fatal(err)
			}
			cmd.Env = append(os.Environ(), fmt.Sprintf("EXAMPLE_CLONE_FD=%t", strings.HasSuffix(p.name, ",fd")))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %v\n%s", cmd, err, out)
			}
		})
	}
}
