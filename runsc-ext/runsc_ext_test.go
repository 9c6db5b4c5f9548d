// Package main_test tests the built runsc-ext, as operators and engines use it.
package main_test

import (
	"bytes"
	"context"
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
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/sandbox"
)

const (
	// guestCommand is the argument with which the test binary is the program in
	// a sandbox, not the test of one.
	guestCommand = "call-clone4"

	// childCommand is one with which a child of the program makes the call.
	childCommand = "call-clone4-in-child"

	// works and enosys are what that program prints.
	works  = "clone4: ok"
	enosys = "clone4: ENOSYS"

	// annotation and levelFile are what users write: to change either breaks
	// their configuration.
	annotation = "dev.gvisor.ext.clone4"
	levelFile  = ".clone4"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == guestCommand {
		fmt.Println(callClone4())
		return
	}
	if len(os.Args) == 2 && os.Args[1] == childCommand {
		fmt.Println(callInChild())
		return
	}
	if len(os.Args) > 2 && os.Args[1] == filteredCommand {
		fmt.Fprintln(os.Stderr, execFiltered(os.Args[2:]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// Docker and bug reports take the version from --version. Both halves must be
// there: runsc's own is VERSION_MISSING in a build without linker flags.
func TestVersion(t *testing.T) {
	gvisor, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "gvisor.dev/gvisor").Output()
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`^runsc version runsc-ext \d+\.\d+\.\d+ \(gVisor ` + regexp.QuoteMeta(strings.TrimSpace(string(gvisor))) + `\)\nspec: \d+\.\d+\.\d+\S*\n$`)
	if r := run(t, binary(t), "--version"); r.status != 0 || !want.MatchString(r.stdout) {
		t.Errorf("got %v, want status 0 and %v", r, want)
	}
}

// The list of system calls that users see must say what a sandbox has: clone4 in
// the tables of both architectures, and nothing but clone4 changed. Switched off,
// it is gVisor's own list.
func TestHelpSyscalls(t *testing.T) {
	off := install(t)
	write(t, off+levelFile, "off")
	for arch, number := range map[string]string{
		"amd64": fmt.Sprint(linux.SYS_CLONE4_AMD64),
		"arm64": fmt.Sprint(linux.SYS_CLONE4_GENERIC),
	} {
		withClone4, without := supported(t, binary(t), arch), supported(t, off, arch)
		if got, want := withClone4[number], (call{"clone4", "Partial Support"}); got != want {
			t.Errorf("%s, on: %s is %v, want %v", arch, number, got, want)
		}
		if got, want := without[number], (call{"userfaultfd", "Unimplemented"}); got != want {
			t.Errorf("%s, off: %s is %v, want %v", arch, number, got, want)
		}
		delete(withClone4, number)
		delete(without, number)
		if len(without) < 200 || !reflect.DeepEqual(withClone4, without) {
			t.Errorf("%s: clone4 changed other calls of the %d there are", arch, len(without))
		}
	}
}

// Installs of gVisor have a stock sentry that runsc prefers to itself, in which
// clone4 would silently be gone. It must not be what boots, wherever it is found.
// The rest of such an install, a prewarmer that executes the sentry, stays in use.
func TestPlantedSentry(t *testing.T) {
	const sidecars = "gvisor-bin"
	strict := []string{"--sidecar-usage-policy=STRICT"}
	for _, tc := range []struct {
		name  string
		dir   string // of the sidecars, relative to the binary's
		env   string // GVISOR_SIDECAR_BINARIES_DIR; %s is the binary's directory
		flags []string
	}{
		{"beside the binary", sidecars, "", nil},
		{"beside the binary, strict", sidecars, "", strict},
		{"absolute path", "elsewhere", "%s/elsewhere", nil},
		{"absolute path, strict", "elsewhere", "%s/elsewhere", strict},
		{"relative path", "else/where", "where", nil},
		{"relative path from beside the binary", "where", "where", nil},
		{"relative path, strict", "else/where", "where", strict},
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
			wantGuest(t, output(t, cmd), works)
			if exists(marker) {
				t.Error("runsc booted the planted sentry")
			}
			if !exists(prewarmed) {
				t.Error("runsc did not use the prewarmer: the directory is not the one it looks in")
			}
		})
	}
}

// A sandbox starts also when the binary has been replaced meanwhile, as upgrades do.
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
	wantGuest(t, output(t, cmd), works)
}

// The operator's file sets the level for all sandboxes, and the annotation can
// lower it for one.
func TestLevel(t *testing.T) {
	for _, tc := range []struct{ file, annotation, want string }{
		{"", "", works},
		{"", "on", works},
		{"", "off", enosys},
		{"on", "", works},
		{"on\n", "on", works},
		{"on", "off", enosys},
		{"off", "", enosys},
		{"off\n", "off", enosys},
		{"fd", "", works},
		{"fd", "off", enosys},
	} {
		for _, platform := range sandbox.Platforms {
			t.Run(fmt.Sprintf("file=%q,annotation=%q,%s", tc.file, tc.annotation, platform), func(t *testing.T) {
				t.Parallel()
				bin := install(t)
				if tc.file != "" {
					write(t, bin+levelFile, tc.file)
				}
				c := newContainer(t, bin, platform, tc.annotation)
				wantGuest(t, run(t, bin, c.args("run")...), tc.want)
			})
		}
	}
}

// `do` writes a spec of its own, in which there can be no annotation: it has the
// operator's level. A symbolic link to the binary, as package managers make, has
// the level of the binary.
func TestLevelOfDo(t *testing.T) {
	for _, tc := range []struct {
		file, link string // contents of the binary's level file and of the link's
		want       string
	}{
		{"", "", works},
		{"on", "off", works},
		{"off", "", enosys},
		{"off", "on", enosys},
	} {
		t.Run(fmt.Sprintf("file=%q,link=%q", tc.file, tc.link), func(t *testing.T) {
			t.Parallel()
			bin := install(t)
			link := filepath.Join(t.TempDir(), "runsc")
			if err := os.Symlink(bin, link); err != nil {
				t.Fatal(err)
			}
			for name, contents := range map[string]string{bin: tc.file, link: tc.link} {
				if contents != "" {
					write(t, name+levelFile, contents)
				}
			}
			for _, name := range []string{bin, link} {
				wantGuest(t, output(t, do(t, name, sandbox.Platforms[0])), tc.want)
			}
		})
	}
}

// A sentry that has moved to an empty root directory and executes itself there
// cannot see the operator's file any more: what is off must not come back on.
func TestLevelSurvivesReexec(t *testing.T) {
	for _, platform := range sandbox.Platforms {
		for _, flags := range [][]string{
			{"--rootless"},
			{"--directfs=false"}, // as root: the sentry becomes nobody by executing itself
			{"--rootless", "--directfs=false"},
		} {
			for level, want := range map[string]string{"on": works, "off": enosys} {
				t.Run(fmt.Sprintf("%s,%s,%s", platform, strings.Join(flags, ","), level), func(t *testing.T) {
					t.Parallel()
					bin := installFor(t, nobody)
					write(t, bin+levelFile, level)
					wantGuest(t, output(t, do(t, bin, platform, flags...)), want)
				})
			}
		}
	}
}

// A level that cannot be had stops the container from starting, and says why: on
// standard error for people, and in the log, as JSON, for engines. What does not
// know what it was asked to allow must not guess.
func TestLevelRefused(t *testing.T) {
	for _, tc := range []struct {
		name       string
		file       func(name string) error
		annotation string
		want       []string // in the message; %s is the path of the operator's file
	}{
		{"raised above the default", nil, "fd", []string{annotation, `"fd"`, `"on"`, "lower", levelFile}},
		{"raised", contents("off"), "on", []string{annotation, `"on"`, `"off"`, "lower", levelFile}},
		{"unknown in annotation", nil, "sometimes", []string{annotation, `"sometimes"`, "off, on, fd"}},
		{"unknown in annotation, off", contents("off"), "sometimes", []string{annotation, `"sometimes"`, "off, on, fd"}},
		{"unknown in file", contents("sometimes"), "", []string{"%s", `"sometimes"`, "off, on, fd"}},
		{"unknown in file, lowered", contents("sometimes"), "off", []string{"%s", `"sometimes"`, "off, on, fd"}},
		{"upper case in file", contents("OFF"), "", []string{"%s", `"OFF"`, "off, on, fd"}},
		{"empty file", contents(""), "", []string{"%s", `""`, "off, on, fd"}},
		{"directory for a file", func(name string) error { return os.Mkdir(name, 0o755) }, "", []string{"%s", "is a directory"}},
		{"link to nowhere", func(name string) error { return os.Symlink("/nowhere", name) }, "", []string{"%s", "symbolic link to nowhere"}},
		{"unreadable file", func(name string) error { return os.Symlink(name, name) }, "", []string{"%s", "too many levels of symbolic links"}},
	} {
		commands := []string{"run", "create", "restore"}
		if tc.annotation == "" {
			commands = append(commands, "do")
		}
		for _, command := range commands {
			t.Run(tc.name+","+command, func(t *testing.T) {
				t.Parallel()
				bin := install(t)
				if tc.file != nil {
					if err := tc.file(bin + levelFile); err != nil {
						t.Fatal(err)
					}
				}
				c := newContainer(t, bin, sandbox.Platforms[0], tc.annotation)
				args := c.args(command)
				if command == "do" {
					args = append(append(c.flags, "do"), guest(t)...)
				}
				log := filepath.Join(t.TempDir(), "log.json")
				r := run(t, bin, append([]string{"--log=" + log, "--log-format=json"}, args...)...)
				if r.status != 128 || r.stdout != "" {
					t.Errorf("got %v, want status 128, and no guest", r)
				}
				for _, want := range tc.want {
					want = strings.ReplaceAll(want, "%s", bin+levelFile)
					if !strings.Contains(r.stderr, want) {
						t.Errorf("standard error is %q, want %q in it", r.stderr, want)
					}
				}
				var e struct{ Level, Msg string }
				if b, err := os.ReadFile(log); err != nil {
					t.Error(err)
				} else if err := json.Unmarshal(b, &e); err != nil {
					t.Errorf("log %q: %v", b, err)
				} else if e.Level != "error" || e.Msg != strings.TrimSpace(r.stderr) {
					t.Errorf("log is %+v, want an error that says %q", e, r.stderr)
				}
				if r := run(t, bin, append(c.flags, "list", "-quiet")...); r.stdout != "" {
					t.Errorf("there is a container: %v", r)
				}
			})
		}
	}
}

// Whoever breaks the operator's file must still be able to see the containers
// that there are, to end them and to clean up.
func TestCleanUpWithBrokenLevel(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("without root, runsc runs containers, but does not create them")
	}
	t.Parallel()
	bin := install(t)
	c := newContainer(t, bin, sandbox.Platforms[0], "")
	c.create(t)
	write(t, bin+levelFile, "sometimes")

	for _, tc := range []struct {
		args []string
		want string // in standard output
	}{
		{[]string{"state", c.id}, `"status": "created"`},
		{[]string{"list", "-quiet"}, c.id},
		{[]string{"kill", c.id, "KILL"}, ""},
		{[]string{"delete", "-force", c.id}, ""},
		{[]string{"--version"}, "runsc-ext"},
		{[]string{"help"}, "probe"},
	} {
		if r := run(t, bin, append(c.flags, tc.args...)...); r.status != 0 || !strings.Contains(r.stdout, tc.want) || r.stderr != "" {
			t.Errorf("%v: got %v, want success and %q", tc.args, r, tc.want)
		}
	}
	if r := run(t, bin, append(c.flags, "list", "-quiet")...); r.stdout != "" {
		t.Errorf("after delete, there is still %q", r.stdout)
	}
}

// Switched off, clone4 is a call that gVisor does not implement, and says so
// where it always does. Switched on, it is none.
func TestUnimplementedEvent(t *testing.T) {
	for level, want := range map[string]bool{"on": false, "off": true} {
		for _, platform := range sandbox.Platforms {
			t.Run(level+","+platform, func(t *testing.T) {
				t.Parallel()
				bin := install(t)
				c := newContainer(t, bin, platform, level)
				log := filepath.Join(t.TempDir(), "user.log")
				r := run(t, bin, c.args("run", "-user-log="+log)...)
				if r.status != 0 {
					t.Fatal(r)
				}
				b, err := os.ReadFile(log)
				if err != nil {
					t.Fatal(err)
				}
				event := regexp.MustCompile(`Unsupported syscall (userfaultfd|clone4)\(`)
				if got := event.Match(b); got != want {
					t.Errorf("the event is in the user log: %t, want %t\n%s", got, want, b)
				}
			})
		}
	}
}

// probe tells people whether clone4 works here, and scripts by its status.
func TestProbe(t *testing.T) {
	for _, platform := range sandbox.Platforms {
		for level, want := range map[string]bool{"on": true, "off": false, "fd": true} {
			t.Run(platform+","+level, func(t *testing.T) {
				t.Parallel()
				bin := install(t)
				write(t, bin+levelFile, level)
				wantProbe(t, platform, level, want, func(args ...string) *exec.Cmd {
					return command(t, bin, append(sandbox.Flags(platform), args...)...)
				})
			})
		}
	}
}

// Without root, probe needs no flags: it says what an ordinary user gets.
func TestProbeAsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("TestProbe ran as an ordinary user")
	}
	asUser := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	unshare := command(t, "unshare", "--user", "true")
	unshare.SysProcAttr = asUser
	if err := unshare.Run(); err != nil {
		t.Skipf("users cannot make a user namespace here: %v: %v", unshare, err)
	}
	bin := installFor(t, nobody)
	wantProbe(t, sandbox.Platforms[0], "on", true, func(args ...string) *exec.Cmd {
		cmd := command(t, bin, append([]string{"--root=" + filepath.Dir(bin)}, args...)...)
		cmd.Dir = filepath.Dir(bin)
		cmd.SysProcAttr = asUser
		return cmd
	})
}

// What probe cannot do, it says, with a status that is not "clone4 does not work".
func TestProbeErrors(t *testing.T) {
	broken := install(t)
	write(t, broken+levelFile, "sometimes")
	for _, tc := range []struct {
		name, bin string
		args      []string
		want      []string
	}{
		{"format", binary(t), append(sandbox.Flags("systrap"), "probe", "-format=xml"), []string{`"xml"`, "text, json"}},
		{"platform", binary(t), append(sandbox.Flags("abacus"), "probe"), []string{`"abacus"`, "unknown platform"}},
		{"level", broken, append(sandbox.Flags("systrap"), "probe"), []string{`"sometimes"`, "off, on, fd", broken + levelFile}},
		{"argument", binary(t), append(sandbox.Flags("systrap"), "probe", "everything"), []string{"probe [flags]"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := run(t, tc.bin, tc.args...)
			if r.status != 128 || r.stdout != "" {
				t.Errorf("got %v, want status 128 and no report", r)
			}
			for _, want := range tc.want {
				if !strings.Contains(r.stderr, want) {
					t.Errorf("standard error is %q, want %q in it", r.stderr, want)
				}
			}
		})
	}
}

// wantProbe checks both formats of a probe that newCommand makes with the
// arguments given, and its status.
func wantProbe(t *testing.T, platform, level string, want bool, newCommand func(args ...string) *exec.Cmd) {
	t.Helper()
	status := 0
	if !want {
		status = 1
	}

	r := output(t, newCommand("probe", "-format=json"))
	if r.status != status || r.stderr != "" {
		t.Errorf("JSON: got %v, want status %d", r, status)
	}
	var report struct {
		Version, Platform, Clone4 string
		OK                        bool
		ABIs                      []struct {
			ABI, Instruction, Meaning string
			Number                    uint64
			Supported, Works          bool
		}
	}
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatalf("JSON: %v: %v", err, r)
	}
	if report.Platform != platform || report.Clone4 != level || report.OK != want || len(report.ABIs) == 0 {
		t.Fatalf("JSON: got %+v, want platform %q, clone4 %q, ok %t, and ABIs", report, platform, level, want)
	}
	if first := report.ABIs[0]; first.ABI != runtime.GOARCH || first.Number != linux.SYS_CLONE4 || !first.Supported {
		t.Errorf("JSON: the first ABI is %+v, want %s, %d, supported", first, runtime.GOARCH, linux.SYS_CLONE4)
	}
	for _, a := range report.ABIs {
		if a.Works != (want && a.Supported) || a.Instruction == "" || a.Meaning == "" {
			t.Errorf("JSON: %+v: want works = %t, an instruction and a meaning", a, want && a.Supported)
		}
	}

	r = output(t, newCommand("probe"))
	if r.status != status || r.stderr != "" {
		t.Errorf("text: got %v, want status %d", r, status)
	}
	head, table, _ := strings.Cut(r.stdout, "\n\n")
	if want := fmt.Sprintf("%s, platform %s, clone4 %s", report.Version, platform, level); head != want {
		t.Errorf("text: the head is %q, want %q", head, want)
	}
	lines := strings.Split(strings.TrimSuffix(table, "\n"), "\n")
	if len(lines) != 1+len(report.ABIs) {
		t.Fatalf("text: want a header and %d ABIs, got\n%s", len(report.ABIs), table)
	}
	for i, a := range report.ABIs {
		for column, want := range map[string]string{"ABI": a.ABI, "CALL": a.Instruction, "NUMBER": "", "RESULT": a.Meaning[:3]} {
			at := strings.Index(lines[0], column)
			line := lines[1+i]
			if at < 0 || len(line) <= at || line[at] == ' ' || !strings.HasPrefix(line[at:], want) || at > 0 && line[at-1] != ' ' {
				t.Errorf("text: want %q under %s in\n%s", want, column, table)
			}
		}
	}
}

// callClone4 calls clone4 as fork(2) would be called, and returns what came of it.
func callClone4() string {
	p := rawclone.NewProgram()
	child := p.List(rawclone.Op{Trap: unix.SYS_EXIT_GROUP, Args: [6]uintptr{42}})
	pid, errno := rawclone.Do(p.List(rawclone.Op{Trap: linux.SYS_CLONE4, Args: [6]uintptr{0, uintptr(unix.SIGCHLD)}, Child: child}))
	if errno != 0 {
		return "clone4: " + unix.ErrnoName(errno)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(int(pid), &ws, 0, nil); err != nil || ws.ExitStatus() != 42 {
		return fmt.Sprintf("clone4: child %d: wait status %#x, error %v", pid, ws, err)
	}
	return works
}

// callInChild calls clone4 in a child, which has one thread, and returns how that
// ended.
func callInChild() string {
	p := rawclone.NewProgram()
	exit := p.List(rawclone.Op{Trap: unix.SYS_EXIT_GROUP})
	child := p.List(
		rawclone.Op{Trap: linux.SYS_CLONE4, Args: [6]uintptr{0, uintptr(unix.SIGCHLD)}, Child: exit},
		rawclone.Op{Trap: unix.SYS_EXIT_GROUP})
	pid, errno := rawclone.Do(p.List(rawclone.Op{Trap: unix.SYS_CLONE, Args: [6]uintptr{uintptr(unix.SIGCHLD)}, Child: child}))
	if errno != 0 {
		return "clone: " + unix.ErrnoName(errno)
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(int(pid), &ws, 0, nil); err != nil {
		return "wait4: " + err.Error()
	}
	if ws.Signaled() {
		return unix.SignalName(ws.Signal())
	}
	return fmt.Sprintf("status %d", ws.ExitStatus())
}

// wantGuest checks that the program in a sandbox ran, and what it printed.
func wantGuest(t *testing.T, got result, want string) {
	t.Helper()
	if got.status != 0 || got.stdout != want+"\n" {
		t.Errorf("got %v, want status 0 and %q", got, want)
	}
}

// call is an entry of a list of system calls.
type call struct{ Name, Support string }

// supported returns the system calls of an architecture by number, as bin lists
// them.
func supported(t *testing.T, bin, arch string) map[string]call {
	t.Helper()
	r := run(t, bin, "help", "syscalls", "-arch="+arch, "-format=json")
	var list map[string]map[string]struct{ Syscalls map[string]call }
	if err := json.Unmarshal([]byte(r.stdout), &list); err != nil {
		t.Fatalf("%v: %v", err, r)
	}
	return list["linux"][arch].Syscalls
}

// container is a container that runs the guest, and what runsc-ext needs to know
// to run it.
type container struct {
	bin, id, bundle string
	flags           []string // global flags
}

// newContainer makes a bundle, with an annotation if it is not empty.
func newContainer(t *testing.T, bin, platform, level string) *container {
	t.Helper()
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	c := &container{
		bin:    bin,
		id:     "guest",
		bundle: dir,
		flags:  slices.Clip(append(sandbox.Flags(platform), "--root="+state)),
	}
	t.Cleanup(func() {
		// A container that should not be there must not outlive the test either.
		if left, _ := filepath.Glob(filepath.Join(state, "*.state")); left != nil {
			exec.Command(bin, append(c.flags, "delete", "-force", c.id)...).Run()
		}
		// runsc leaves a mount there for the next sandbox without network.
		unix.Unmount(filepath.Join(state, "null-netns"), unix.MNT_DETACH)
	})
	if r := run(t, bin, append([]string{"spec", "-bundle=" + dir, "--"}, guest(t)...)...); r.status != 0 {
		t.Fatal(r)
	}
	c.edit(t, func(spec map[string]any) {
		spec["root"] = map[string]any{"path": "/", "readonly": true}
		spec["process"].(map[string]any)["terminal"] = false
		if level != "" {
			spec["annotations"] = map[string]string{annotation: level}
		}
	})
	return c
}

// edit changes the spec in the bundle.
func (c *container) edit(t *testing.T, change func(spec map[string]any)) {
	t.Helper()
	config := filepath.Join(c.bundle, "config.json")
	b, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	var spec map[string]any
	if err := json.Unmarshal(b, &spec); err != nil {
		t.Fatal(err)
	}
	change(spec)
	if b, err = json.Marshal(spec); err != nil {
		t.Fatal(err)
	}
	write(t, config, string(b))
}

// args returns the arguments with which runsc-ext creates or runs c.
func (c *container) args(command string, flags ...string) []string {
	args := append(c.flags, command, "-bundle="+c.bundle)
	return append(append(args, flags...), c.id)
}

// create creates c.
func (c *container) create(t *testing.T) {
	t.Helper()
	stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	cmd := command(t, c.bin, c.args("create")...)
	// The container has these too: no pipe, which would not end.
	cmd.Stderr = stderr
	if err := cmd.Run(); err != nil {
		b, _ := os.ReadFile(stderr.Name())
		t.Fatalf("%v: %v\n%s", cmd, err, b)
	}
}

// guest returns the command line of the program in the sandbox.
func guest(t *testing.T) []string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{exe, guestCommand}
}

// do returns a command that runs the guest in a sandbox of its own.
func do(t *testing.T, bin, platform string, flags ...string) *exec.Cmd {
	t.Helper()
	args := append(append(sandbox.Flags(platform), flags...), "do")
	return command(t, bin, append(args, guest(t)...)...)
}

func binary(t *testing.T) string {
	t.Helper()
	bin, err := sandbox.Binary()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// install puts runsc-ext into a directory of its own, where a test can put files
// beside it, and returns its path.
func install(t *testing.T) string {
	t.Helper()
	return installIn(t, t.TempDir())
}

// nobody is the user, and the group, that a sentry is where it can be any.
const nobody = 65534

// installFor is install, into a directory that a user can come to and write to.
func installFor(t *testing.T, uid int) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "runsc-ext-test-*") // t.TempDir is private
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if os.Geteuid() == 0 {
		if err := errors.Join(os.Chown(dir, uid, uid), os.Chmod(dir, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	return installIn(t, dir)
}

func installIn(t *testing.T, dir string) string {
	t.Helper()
	built, bin := binary(t), filepath.Join(dir, "runsc-ext")
	if os.Link(built, bin) == nil {
		return bin
	}
	b, err := os.ReadFile(built) // Another file system.
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bin, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return bin
}

// plant writes a shell script that can be executed.
func plant(t *testing.T, name, script string) {
	t.Helper()
	write(t, name, "#!/bin/sh\n"+script+"\n")
	if err := os.Chmod(name, 0o755); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, name, s string) {
	t.Helper()
	if err := contents(s)(name); err != nil {
		t.Fatal(err)
	}
}

// contents returns a function that writes a file.
func contents(s string) func(name string) error {
	return func(name string) error {
		return os.WriteFile(name, []byte(s), 0o644)
	}
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// result is what came of a command.
type result struct {
	command        string
	status         int
	stdout, stderr string
}

// String makes result a fmt.Stringer.
func (r result) String() string {
	return fmt.Sprintf("%s: status %d, standard output %q, standard error %q", r.command, r.status, r.stdout, r.stderr)
}

// command returns a command that does not outlive the test.
func command(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func run(t *testing.T, name string, args ...string) result {
	t.Helper()
	return output(t, command(t, name, args...))
}

// output runs cmd to its end. That it fails is for the caller to judge.
func output(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var failed *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &failed) {
		t.Fatalf("%v: %v", cmd, err)
	}
	return result{cmd.String(), cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}
