// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"runsc-ext/abi/linux"
	"runsc-ext/test/sandbox"
)

// TestProbe checks that probe reports whether clone4 works, in its output and by its exit
// status.
func TestProbe(t *testing.T) {
	for _, tc := range []struct {
		level string
		want  bool
	}{
		{want: true},
		{level: "off", want: false},
		{level: "on", want: true},
		{level: "fd", want: true},
	} {
		for _, platform := range sandbox.Platforms {
			t.Run(tc.level+","+platform, func(t *testing.T) {
				t.Parallel()
				bin := install(t)
				source := "default"
				if tc.level != "" {
					source = bin + sandbox.LevelSuffix
					sandbox.WriteFile(t, source, tc.level)
				}
				wantProbe(t, platform, cmp.Or(tc.level, "on"), source, tc.want, func(args ...string) *exec.Cmd {
					return exec.Command(bin, append(sandbox.Flags(platform), args...)...)
				})
			})
		}
	}
}

// TestProbeAsUser checks that probe needs no flags without root.
func TestProbeAsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("TestProbe ran as an ordinary user")
	}
	asUser := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	unshare := exec.Command("unshare", "--user", "true")
	unshare.SysProcAttr = asUser
	if err := unshare.Run(); err != nil {
		t.Skipf("ordinary users cannot create user namespaces: %v: %v", unshare, err)
	}
	bin := installFor(t, nobody)
	wantProbe(t, sandbox.Platforms[0], "on", "default", true, func(args ...string) *exec.Cmd {
		cmd := exec.Command(bin, args...)
		cmd.Dir = filepath.Dir(bin)
		cmd.SysProcAttr = asUser
		return cmd
	})
}

// TestProbeErrors checks that an error of probe has a message, and another exit status than 1,
// which means that clone4 does not work.
func TestProbeErrors(t *testing.T) {
	broken := install(t)
	sandbox.WriteFile(t, broken+sandbox.LevelSuffix, "sometimes")
	for _, tc := range []struct {
		name, bin string
		args      []string
		want      []string
	}{
		{name: "format", bin: binary(t), args: append(sandbox.Flags("systrap"), "probe", "-format=xml"), want: []string{`"xml"`, "text, json"}},
		{name: "platform", bin: binary(t), args: append(sandbox.Flags("abacus"), "probe"), want: []string{`"abacus"`, "unknown platform"}},
		{name: "level", bin: broken, args: append(sandbox.Flags("systrap"), "probe"), want: []string{`"sometimes"`, "off, on, fd", broken + sandbox.LevelSuffix}},
		{name: "time limit", bin: binary(t), args: append(sandbox.Flags("systrap"), "probe", "-timeout=0s"), want: []string{"-timeout=0s", "above 0"}},
		{name: "argument", bin: binary(t), args: append(sandbox.Flags("systrap"), "probe", "everything"), want: []string{"probe [flags]"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			sandbox.Run(t, tc.bin, tc.args...).CheckRefused(t, tc.want...)
		})
	}
}

// TestProbeGivesUp checks that a probe kills a sandbox that never answers, with all its
// processes, and says what to try. Here runsc executes a prewarmer, which hangs, in the place of
// the sentry.
func TestProbeGivesUp(t *testing.T) {
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip(err)
	}
	for _, tc := range []struct {
		name  string
		flags []string
	}{
		{name: "root"},
		{name: "rootless", flags: []string{"--rootless"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if os.Geteuid() != 0 && tc.flags == nil {
				t.Skip("without root, a sandbox is rootless")
			}
			bin := install(t)
			dir := filepath.Dir(bin)
			if err := os.Mkdir(filepath.Join(dir, "gvisor-bin"), 0o755); err != nil {
				t.Fatal(err)
			}
			// The prewarmer survives the death of its parent, as a sentry that has changed its
			// user does, and ignores SIGTERM.
			started := filepath.Join(dir, "started")
			plant(t, filepath.Join(dir, "gvisor-bin", "gvisor-sentry-prewarmer"), fmt.Sprintf("trap '' TERM\n: >%q\nexec setpriv --pdeathsig clear tail -f %[1]q", started))
			args := slices.Concat(sandbox.Flags(sandbox.Platforms[0]), tc.flags, []string{"probe", "-timeout=10s"})
			tmp := filepath.Join(dir, "tmp")
			if err := os.Mkdir(tmp, 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(bin, args...)
			cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
			sandbox.Output(t, cmd).CheckRefused(t, "no answer", "systrap", "waited 10s for the sandbox to boot", "-timeout=30s", "--debug-log")
			if !exists(started) {
				t.Error("the sandbox was not started")
			}
			if left, _ := filepath.Glob(filepath.Join(tmp, "*")); left != nil {
				t.Errorf("the probe has left %q", left)
			}
			cmdlines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, name := range cmdlines {
				if b, _ := os.ReadFile(name); strings.Contains(string(b), dir) {
					t.Errorf("the probe has left %s: %q", filepath.Dir(name), b)
				}
			}
		})
	}
}

// wantProbe checks the exit status and both output formats of a probe. newCommand returns a
// command with the given arguments.
func wantProbe(t *testing.T, platform, level, source string, want bool, newCommand func(args ...string) *exec.Cmd) {
	t.Helper()
	status := 0
	if !want {
		status = 1
	}

	abis := sandbox.ABIs()
	r := sandbox.Output(t, newCommand("probe", "-format=json"))
	if r.Status != status || r.Stderr != "" {
		t.Errorf("JSON: got %v\nwant status %d", r, status)
	}
	var report struct {
		Version  string
		Versions struct {
			RunscExt string `json:"runsc-ext"`
			GVisor   string
		}
		Platform, Clone4, Source string
		OK                       bool
		ABIs                     []struct {
			ABI, Instruction, Meaning string
			Number                    uint64
			Works                     bool
		}
	}
	if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil {
		t.Fatalf("JSON: %v: %v", err, r)
	}
	if report.Platform != platform || report.Clone4 != level || report.Source != source || report.OK != want || len(report.ABIs) != len(abis) {
		t.Fatalf("JSON: got %+v, want platform %q, clone4 %q, source %q, ok %t, and %d ABIs", report, platform, level, source, want, len(abis))
	}
	if v := report.Versions; v.RunscExt == "" || v.GVisor == "" || report.Version != fmt.Sprintf("runsc-ext %s (gVisor %s)", v.RunscExt, v.GVisor) {
		t.Errorf("JSON: the versions are %+v and %q", v, report.Version)
	}
	if first := report.ABIs[0]; first.ABI != runtime.GOARCH || first.Number != linux.SYS_CLONE4 {
		t.Errorf("JSON: the first ABI is %+v, want %s, %d", first, runtime.GOARCH, linux.SYS_CLONE4)
	}
	for i, a := range report.ABIs {
		if a.ABI != abis[i] || a.Works != want || a.Instruction == "" || a.Meaning == "" {
			t.Errorf("JSON: got %+v, want ABI %s, works = %t, an instruction and a meaning", a, abis[i], want)
		}
	}

	r = sandbox.Output(t, newCommand("probe"))
	if r.Status != status || r.Stderr != "" {
		t.Errorf("text: got %v\nwant status %d", r, status)
	}
	head, table, _ := strings.Cut(r.Stdout, "\n\n")
	if want := fmt.Sprintf("%s, platform %s, clone4 %s (%s)", report.Version, platform, level, source); head != want {
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
