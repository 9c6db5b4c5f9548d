// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"runsc-ext/abi/linux"
	"runsc-ext/test/sandbox"
)

// TestProbe checks that probe says whether clone4 works here: in words, and by its status.
func TestProbe(t *testing.T) {
	for _, tc := range []struct {
		level string
		want  bool
	}{
		{level: "off", want: false},
		{level: "on", want: true},
		{level: "fd", want: true},
	} {
		for _, platform := range sandbox.Platforms {
			t.Run(tc.level+","+platform, func(t *testing.T) {
				t.Parallel()
				bin := install(t)
				sandbox.WriteFile(t, bin+sandbox.LevelSuffix, tc.level)
				wantProbe(t, platform, tc.level, tc.want, func(args ...string) *exec.Cmd {
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
		t.Skipf("users cannot make a user namespace here: %v: %v", unshare, err)
	}
	bin := installFor(t, nobody)
	wantProbe(t, sandbox.Platforms[0], "on", true, func(args ...string) *exec.Cmd {
		cmd := exec.Command(bin, append([]string{"--root=" + filepath.Dir(bin)}, args...)...)
		cmd.Dir = filepath.Dir(bin)
		cmd.SysProcAttr = asUser
		return cmd
	})
}

// TestProbeErrors checks that what probe cannot do has a message, and a status other than
// that of "clone4 does not work".
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
		{name: "argument", bin: binary(t), args: append(sandbox.Flags("systrap"), "probe", "everything"), want: []string{"probe [flags]"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			sandbox.Run(t, tc.bin, tc.args...).CheckRefused(t, tc.want...)
		})
	}
}

// wantProbe checks both formats of a probe that newCommand makes with the arguments given,
// and its status.
func wantProbe(t *testing.T, platform, level string, want bool, newCommand func(args ...string) *exec.Cmd) {
	t.Helper()
	status := 0
	if !want {
		status = 1
	}

	r := sandbox.Output(t, newCommand("probe", "-format=json"))
	if r.Status != status || r.Stderr != "" {
		t.Errorf("JSON: got %v\nwant status %d", r, status)
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
	if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil {
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

	r = sandbox.Output(t, newCommand("probe"))
	if r.Status != status || r.Stderr != "" {
		t.Errorf("text: got %v\nwant status %d", r, status)
	}
	head, table, _ := strings.Cut(r.Stdout, "\n\n")
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
