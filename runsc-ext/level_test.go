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

	"runsc-ext/test/sandbox"
)

// TestLevel checks that the operator's file sets the level for all sandboxes, and that the
// annotation lowers it for one.
func TestLevel(t *testing.T) {
	for _, tc := range []struct{ file, annotation, want string }{
		{file: "", annotation: "", want: works},
		{file: "", annotation: "on", want: works},
		{file: "", annotation: "off", want: enosys},
		{file: "on", annotation: "", want: works},
		{file: "on\n", annotation: "on", want: works},
		{file: "on", annotation: "off", want: enosys},
		{file: "off", annotation: "", want: enosys},
		{file: "off\n", annotation: "off", want: enosys},
		{file: "fd", annotation: "", want: works},
		{file: "fd", annotation: "off", want: enosys},
	} {
		for _, platform := range sandbox.Platforms {
			t.Run(fmt.Sprintf("file=%q,annotation=%q,%s", tc.file, tc.annotation, platform), func(t *testing.T) {
				t.Parallel()
				bin := install(t)
				if tc.file != "" {
					sandbox.WriteFile(t, bin+sandbox.LevelSuffix, tc.file)
				}
				newContainer(t, bin, platform, tc.annotation).Run(t).Check(t, 0, tc.want)
			})
		}
	}
}

// TestLevelOfDo checks that `do`, which writes a spec of its own without annotations, has
// the operator's level. A symbolic link to the binary, as package managers make, has the
// level of the binary.
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

// TestLevelSurvivesReexec checks that what is off stays off in a sentry that has moved to an
// empty root directory and executes itself there, where it cannot see the operator's file.
func TestLevelSurvivesReexec(t *testing.T) {
	for _, platform := range sandbox.Platforms {
		for _, flags := range [][]string{
			{"--rootless"},
			{"--directfs=false"}, // as root: the sentry becomes nobody by executing itself
			{"--rootless", "--directfs=false"},
		} {
			for level, want := range map[string]string{"on": works, "off": enosys} {
				t.Run(fmt.Sprintf("%s,%s,%s", strings.Join(flags, ","), level, platform), func(t *testing.T) {
					t.Parallel()
					bin := installFor(t, nobody)
					sandbox.WriteFile(t, bin+sandbox.LevelSuffix, level)
					sandbox.Output(t, do(t, bin, platform, flags...)).Check(t, 0, want)
				})
			}
		}
	}
}

// TestLevelRefused checks that a level that cannot be had stops the container from starting,
// with a message on standard error for people, and in the log, as JSON, for engines.
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
		{name: "directory for a file", file: func(name string) error { return os.Mkdir(name, 0o755) }, want: []string{"%s", "is a directory"}},
		{name: "link to nowhere", file: func(name string) error { return os.Symlink("/nowhere", name) }, want: []string{"%s", "symbolic link to nowhere"}},
		{name: "unreadable file", file: func(name string) error { return os.Symlink(name, name) }, want: []string{"%s", "too many levels of symbolic links"}},
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
					if err := tc.file(bin + sandbox.LevelSuffix); err != nil {
						t.Fatal(err)
					}
				}
				c := newContainer(t, bin, sandbox.Platforms[0], tc.annotation)
				args := c.Args(command)
				if command == "do" {
					args = slices.Concat(c.Flags, []string{"do"}, guest(t, runtime.GOARCH))
				}
				log := filepath.Join(t.TempDir(), "log.json")
				r := sandbox.Run(t, bin, append([]string{"--log=" + log, "--log-format=json"}, args...)...)
				wants := slices.Clone(tc.want)
				for i := range wants {
					wants[i] = strings.ReplaceAll(wants[i], "%s", bin+sandbox.LevelSuffix)
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
			})
		}
	}
}

// contents returns a function that writes a file.
func contents(s string) func(name string) error {
	return func(name string) error { return os.WriteFile(name, []byte(s), 0o644) }
}

// TestCleanUpWithBrokenLevel checks that whoever breaks the operator's file can still see the
// containers that there are, kill and delete them.
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

// TestUnimplementedEvent checks that clone4, switched off, is a call that gVisor does not
// implement, and says so where it always does; and that it is none, switched on.
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
