// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"runsc-ext/test/sandbox"
)

// TestLevel checks that the lower of the operator's two files sets the level for all
// sandboxes, and that the annotation lowers it for one.
func TestLevel(t *testing.T) {
	for _, tc := range []struct{ beside, etc, annotation, want string }{
		{want: works},
		{annotation: "on", want: works},
		{annotation: "off", want: enosys},
		{beside: "on", want: works},
		{beside: "on\n", annotation: "on", want: works},
		{beside: "on", annotation: "off", want: enosys},
		{beside: "off", want: enosys},
		{beside: "off\n", annotation: "off", want: enosys},
		{beside: "fd", want: works},
		{beside: "fd", annotation: "off", want: enosys},
		{etc: "on", want: works},
		{etc: "off", want: enosys},
		{etc: "\ufeffoff\r\n", want: enosys},
		{etc: "fd", annotation: "fd", want: works},
		{beside: "on", etc: "off", want: enosys},
		{beside: "off", etc: "fd", want: enosys},
		{beside: "fd", etc: "on", annotation: "on", want: works},
	} {
		for _, platform := range sandbox.Platforms {
			t.Run(fmt.Sprintf("beside=%q,etc=%q,annotation=%q,%s", tc.beside, tc.etc, tc.annotation, platform), func(t *testing.T) {
				t.Parallel()
				bin := installWithLevels(t, t.TempDir(), tc.beside, tc.etc)
				newContainer(t, bin, platform, tc.annotation).Run(t).Check(t, 0, tc.want)
			})
		}
	}
}

// etcDir is the directory of the operator's level files for installed packages. TestMain removes
// etcDir, because parallel tests share the directory.
const etcDir = "/etc/runsc-ext"

// installWithLevels installs runsc-ext with the operator's two files; the empty string stands
// for no file.
func installWithLevels(t *testing.T, dir, beside, etc string) string {
	t.Helper()
	name := "runsc-ext"
	if etc != "" {
		// All tests share the directory, so each needs another name.
		name = etcFile(t, contents(etc))
	}
	bin := sandbox.Install(t, dir, name)
	if beside != "" {
		sandbox.WriteFile(t, bin+sandbox.LevelSuffix, beside)
	}
	return bin
}

// etcFile writes a file in etcDir and returns the name of the binary to which the file belongs.
// It skips the test if /etc is not writable.
func etcFile(t *testing.T, write func(name string) error) (binary string) {
	t.Helper()
	if err := os.MkdirAll(etcDir, 0o755); err != nil {
		t.Skip(err)
	}
	f, err := os.CreateTemp(etcDir, "test-*"+sandbox.LevelSuffix)
	if err != nil {
		t.Skip(err)
	}
	f.Close()
	t.Cleanup(func() { os.Remove(f.Name()) })
	if err := os.Remove(f.Name()); err != nil {
		t.Fatal(err)
	}
	if err := write(f.Name()); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(filepath.Base(f.Name()), sandbox.LevelSuffix)
}

// TestLevelChanges checks that a sandbox never gets the default level while the operator's file
// is rewritten with the same level. It gets the level of the file, or does not start.
func TestLevelChanges(t *testing.T) {
	for _, platform := range sandbox.Platforms {
		t.Run(platform, func(t *testing.T) {
			t.Parallel()
			bin := installWithLevels(t, t.TempDir(), "off", "")
			stop, stopped := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(stopped)
				for {
					select {
					case <-stop:
						return
					default:
						// os.WriteFile truncates the file first, as a shell does.
						os.WriteFile(bin+sandbox.LevelSuffix, []byte("off\n"), 0o644)
					}
				}
			}()
			started := 0
			for range 8 {
				r := sandbox.Output(t, do(t, bin, platform))
				if r.Status == 0 {
					started++
				}
				if r.Stdout != enosys && (r.Stdout != "" || r.Status == 0) {
					t.Errorf("got %v\nwant %q, or no sandbox", r, enosys)
				}
			}
			close(stop)
			<-stopped
			if started == 0 {
				t.Error("no sandbox started")
			}
		})
	}
}

// TestLevelOfDo checks that a sandbox of "do", whose spec has no annotations, has the
// operator's level. A symbolic link to the binary has the level of the binary.
func TestLevelOfDo(t *testing.T) {
	for _, tc := range []struct {
		file, link string // contents of the binary's level file and of the link's
		want       string
	}{
		{file: "", link: "", want: works},
		{file: "on", link: "off", want: works},
		{file: "off", link: "", want: enosys},
		{file: "off", link: "on", want: enosys},
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
					sandbox.WriteFile(t, name+sandbox.LevelSuffix, contents)
				}
			}
			for _, name := range []string{bin, link} {
				sandbox.Output(t, do(t, name, sandbox.Platforms[0])).Check(t, 0, tc.want)
			}
		})
	}
}

// TestLevelSurvivesReexec checks that a sentry keeps the operator's level when it executes
// itself again in an empty root directory, which lacks the operator's file.
func TestLevelSurvivesReexec(t *testing.T) {
	for _, platform := range sandbox.Platforms {
		for _, flags := range [][]string{
			{"--rootless"},
			{"--directfs=false"}, // with root, the sentry executes itself as nobody
			{"--rootless", "--directfs=false"},
		} {
			for _, tc := range []struct{ beside, etc, want string }{
				{beside: "on", want: works},
				{beside: "off", want: enosys},
				{etc: "off", want: enosys},
				{beside: "fd", etc: "off", want: enosys},
			} {
				t.Run(fmt.Sprintf("%s,beside=%q,etc=%q,%s", strings.Join(flags, ","), tc.beside, tc.etc, platform), func(t *testing.T) {
					t.Parallel()
					bin := installWithLevels(t, dirFor(t, nobody), tc.beside, tc.etc)
					sandbox.Output(t, do(t, bin, platform, flags...)).Check(t, 0, tc.want)
				})
			}
		}
	}
}

// TestLevelInvisible checks that a sandbox does not start if its sentry, as nobody, could not
// read the operator's file. The message must name the cause.
func TestLevelInvisible(t *testing.T) {
	needRoot(t)
	private := func(name string) error { return os.WriteFile(name, []byte("off"), 0o600) }
	for _, tc := range []struct {
		name    string
		install func(t *testing.T) (bin, file string)
	}{
		{name: "beside", install: func(t *testing.T) (bin, file string) {
			bin = sandbox.Install(t, dirFor(t, nobody), "runsc-ext")
			if err := private(bin + sandbox.LevelSuffix); err != nil {
				t.Fatal(err)
			}
			return bin, bin + sandbox.LevelSuffix
		}},
		{name: "etc", install: func(t *testing.T) (bin, file string) {
			name := etcFile(t, private)
			return sandbox.Install(t, dirFor(t, nobody), name), filepath.Join(etcDir, name+sandbox.LevelSuffix)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			bin, file := tc.install(t)
			sandbox.Output(t, do(t, bin, sandbox.Platforms[0], "--directfs=false")).CheckRefused(t, "nobody", "chmod o+r", file)
			// A sentry with root can read the file.
			sandbox.Output(t, do(t, bin, sandbox.Platforms[0])).Check(t, 0, enosys)
		})
	}
}

// TestLevelRefused checks that an invalid level keeps a container from starting. The message is
// on standard error for people, and in the log, as JSON, for engines.
func TestLevelRefused(t *testing.T) {
	for _, tc := range []struct {
		name       string
		file       func(name string) error
		annotation string
		want       []string // in the message; %s is the path of the operator's file
	}{
		{name: "raised above the default", annotation: "fd", want: []string{sandbox.LevelAnnotation, `"fd"`, `"on"`, "lower", sandbox.LevelSuffix}},
		{name: "raised", file: contents("off"), annotation: "on", want: []string{sandbox.LevelAnnotation, `"on"`, `"off"`, "lower", sandbox.LevelSuffix}},
		{name: "unknown in annotation", annotation: "sometimes", want: []string{sandbox.LevelAnnotation, `"sometimes"`, "off, on, fd"}},
		{name: "unknown in annotation, off", file: contents("off"), annotation: "sometimes", want: []string{sandbox.LevelAnnotation, `"sometimes"`, "off, on, fd"}},
		{name: "unknown in file", file: contents("sometimes"), want: []string{"%s", `"sometimes"`, "off, on, fd"}},
		{name: "unknown in file, lowered", file: contents("sometimes"), annotation: "off", want: []string{"%s", `"sometimes"`, "off, on, fd"}},
		{name: "upper case in file", file: contents("OFF"), want: []string{"%s", `"OFF"`, "off, on, fd"}},
		{name: "empty file", file: contents(""), want: []string{"%s", `""`, "off, on, fd"}},
		{name: "1 MB file", file: contents(strings.Repeat("off", 1<<20/3)), want: []string{"%s", `..."`, "off, on, fd"}},
		{name: "directory for a file", file: func(name string) error { return os.Mkdir(name, 0o755) }, want: []string{"%s", "not a regular file"}},
		{name: "FIFO for a file", file: func(name string) error { return unix.Mkfifo(name, 0o644) }, want: []string{"%s", "not a regular file"}},
		{name: "link to nowhere", file: func(name string) error { return os.Symlink("/nowhere", name) }, want: []string{"%s", "symbolic link to nowhere"}},
		{name: "link to itself", file: func(name string) error { return os.Symlink(name, name) }, want: []string{"%s", "too many levels of symbolic links"}},
	} {
		commands := []string{"run", "create", "restore"}
		if tc.annotation == "" {
			commands = append(commands, "do")
		}
		for _, command := range commands {
			test := func(t *testing.T, bin, file string) {
				c := newContainer(t, bin, sandbox.Platforms[0], tc.annotation)
				args := c.Args(command)
				if command == "do" {
					args = slices.Concat(c.Flags, []string{"do"}, guest(t, runtime.GOARCH))
				}
				log := filepath.Join(t.TempDir(), "log.json")
				r := sandbox.Run(t, bin, append([]string{"--log=" + log, "--log-format=json"}, args...)...)
				wants := slices.Clone(tc.want)
				for i := range wants {
					wants[i] = strings.ReplaceAll(wants[i], "%s", file)
				}
				r.CheckRefused(t, wants...)
				var e struct{ Level, Msg string }
				if b, err := os.ReadFile(log); err != nil {
					t.Error(err)
				} else if err := json.Unmarshal(b, &e); err != nil {
					t.Errorf("log %q: %v", b, err)
				} else if e.Level != "error" || e.Msg != strings.TrimSpace(r.Stderr) {
					t.Errorf("log is %+v, want an error that says %q", e, r.Stderr)
				}
				c.CheckGone(t)
			}
			t.Run(tc.name+","+command, func(t *testing.T) {
				t.Parallel()
				bin := install(t)
				file := bin + sandbox.LevelSuffix
				if tc.file != nil {
					if err := tc.file(file); err != nil {
						t.Fatal(err)
					}
				}
				test(t, bin, file)
			})
			if tc.file != nil {
				t.Run(tc.name+","+command+",etc", func(t *testing.T) {
					t.Parallel()
					name := etcFile(t, tc.file)
					test(t, sandbox.Install(t, t.TempDir(), name), filepath.Join(etcDir, name+sandbox.LevelSuffix))
				})
			}
		}
	}
}

// contents returns a function that writes a file.
func contents(s string) func(name string) error {
	return func(name string) error { return os.WriteFile(name, []byte(s), 0o644) }
}

// TestCleanUpWithBrokenLevel checks that an invalid operator's file does not keep people from
// listing, killing and deleting containers.
func TestCleanUpWithBrokenLevel(t *testing.T) {
	needRoot(t)
	t.Parallel()
	bin := install(t)
	c := newContainer(t, bin, sandbox.Platforms[0], "")
	c.Create(t)
	sandbox.WriteFile(t, bin+sandbox.LevelSuffix, "sometimes")

	for _, tc := range []struct {
		args []string
		want string // in standard output
	}{
		{args: []string{"state", c.ID}, want: `"status": "created"`},
		{args: []string{"list", "-quiet"}, want: c.ID},
		{args: []string{"kill", c.ID, "KILL"}},
		{args: []string{"delete", "-force", c.ID}},
		{args: []string{"--version"}, want: "runsc-ext"},
		{args: []string{"help"}, want: "probe"},
	} {
		if r := c.Runsc(t, tc.args...); r.Status != 0 || !strings.Contains(r.Stdout, tc.want) || r.Stderr != "" {
			t.Errorf("%v: got %v, want success and %q", tc.args, r, tc.want)
		}
	}
	c.CheckGone(t)
}

// TestUnimplementedEvent checks that a call at level off emits gVisor's unimplemented-syscall
// event, and that a call at level on does not.
func TestUnimplementedEvent(t *testing.T) {
	event := regexp.MustCompile(`Unsupported syscall (userfaultfd|clone4)\(`)
	for _, tc := range []struct {
		level string
		want  bool
	}{
		{level: "on", want: false},
		{level: "off", want: true},
	} {
		for _, platform := range sandbox.Platforms {
			t.Run(tc.level+","+platform, func(t *testing.T) {
				t.Parallel()
				log := filepath.Join(t.TempDir(), "user.log")
				c := newContainer(t, install(t), platform, tc.level)
				if r := c.Run(t, "-user-log="+log); r.Status != 0 {
					t.Fatal(r)
				}
				b, err := os.ReadFile(log)
				if err != nil {
					t.Fatal(err)
				}
				if got := event.Match(b); got != tc.want {
					t.Errorf("the event is in the user log: %t, want %t\n%s", got, tc.want, b)
				}
			})
		}
	}
}
