package main_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"runsc-ext/test/sandbox"
)

// pausing is what the program in testdata/checkpointed prints where it can be
// checkpointed: it does not go on before it is told to.
const pausing = "pausing\n"

// A restored sentry is another process, whose tables are what its own start made
// them: the calls must be there again, or not if the operator says so by then. A
// parent that waits for its vfork child is in the middle of its call when it is
// saved, and must come out of it as if nothing had been, by each ABI.
func TestRestore(t *testing.T) {
	skipWithoutRestore(t)
	abis := []string{runtime.GOARCH}
	if runtime.GOARCH == "amd64" {
		abis = append(abis, "x32", "i386")
	}
	all := strings.Join(abis, " ")
	results := func(result string) string {
		return strings.Join(abis, ": "+result+"\n") + ": " + result + "\n"
	}

	type test struct {
		name          string
		before, after string // the operator's level
		args          string // of the program
		want          string // what it prints
	}
	tests := []test{
		{"between calls", "on", "on", all + " pause " + all, results("ok") + pausing + results("ok")},
		{"switched off", "on", "off", all + " pause " + all, results("ok") + pausing + results("ENOSYS")},
		{"switched on", "off", "on", all + " pause " + all, results("ENOSYS") + pausing + results("ok")},
	}
	// What is there already goes on to work at a lower level: it is a file.
	tests = append(tests,
		test{"descriptors", "fd", "fd", "fd fd", pausing + "fd: ok\n" + pausing + "fd: ok\n"},
		test{"descriptors, lowered", "fd", "on", "fd fd", pausing + "fd: ok\nfd: EINVAL\n"},
	)
	for _, abi := range abis {
		vfork := abi + ",vfork"
		tests = append(tests,
			test{vfork, "on", "on", vfork + " " + all, pausing + vfork + ": ok\n" + results("ok")},
			test{vfork + ", switched off", "on", "off", vfork + " " + all, pausing + vfork + ": ok\n" + results("ENOSYS")},
		)
	}
	for _, tc := range tests {
		for _, platform := range sandbox.Platforms {
			t.Run(tc.name+","+platform, func(t *testing.T) {
				t.Parallel()
				bin := install(t)
				write(t, bin+levelFile, tc.before)
				c := newCheckpointed(t, bin, platform, strings.Fields(tc.args)...)
				printed := c.checkpoint(t)
				write(t, bin+levelFile, tc.after)
				r := c.restore(t)
				if printed += r.stdout; printed != tc.want || r.status != 0 {
					t.Errorf("the program printed\n%swant\n%swith status 0: %v", printed, tc.want, r)
				}
			})
		}
	}
}

// What cannot be restored is refused with a reason, and leaves nothing behind.
func TestRestoreRefused(t *testing.T) {
	skipWithoutRestore(t)
	for _, tc := range []struct {
		name       string
		annotation string   // in the restored bundle; none in the checkpointed one
		from, to   string   // what to replace in the image
		want       []string // in standard error
	}{
		{
			name:       "unknown level",
			annotation: "sometimes",
			want:       []string{annotation, `"sometimes"`, "off, on, fd"},
		},
		{
			// gVisor's rule for annotations in its name space. The operator's
			// file is the way to switch a restored sandbox off.
			name:       "changed level",
			annotation: "off",
			want:       []string{"Annotations", annotation, `"off"`},
		},
		{
			// The sentry's state is the memory of one version's types.
			name: "other version",
			from: `"runsc_version":"runsc-ext `,
			to:   `"runsc_version":"runsc-int `,
			want: []string{"version does not match", "checkpoint: runsc-int ", "current: runsc-ext "},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := newCheckpointed(t, install(t), sandbox.Platforms[0], "pause")
			c.checkpoint(t)

			if tc.annotation != "" {
				c.edit(t, func(spec map[string]any) {
					spec["annotations"] = map[string]string{annotation: tc.annotation}
				})
			}
			if tc.from != "" {
				name := filepath.Join(c.image(), "checkpoint.img")
				image, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(string(image), tc.from) {
					t.Fatalf("the image does not have %q", tc.from)
				}
				write(t, name, strings.Replace(string(image), tc.from, tc.to, 1))
			}
			r := c.restore(t)
			if r.status != 128 || r.stdout != "" {
				t.Errorf("got %v, want status 128, and no program", r)
			}
			for _, want := range tc.want {
				if !strings.Contains(r.stderr, want) {
					t.Errorf("standard error is %q, want %q in it", r.stderr, want)
				}
			}
			if r := run(t, c.bin, append(c.flags, "list", "-quiet")...); r.stdout != "" {
				t.Errorf("there is a container: %v", r)
			}
		})
	}
}

func skipWithoutRestore(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("without root, runsc does not restore containers")
	}
}

// checkpointed is a container that runs the program in testdata/checkpointed.
type checkpointed struct{ *container }

// newCheckpointed makes its bundle.
func newCheckpointed(t *testing.T, bin, platform string, args ...string) checkpointed {
	t.Helper()
	c := checkpointed{newContainer(t, bin, platform, "")}
	c.edit(t, func(spec map[string]any) {
		spec["process"].(map[string]any)["args"] = append([]string{c.program(t)}, args...)
	})
	return c
}

// program returns the path of the program.
func (c checkpointed) program(t *testing.T) string {
	t.Helper()
	program, err := sandbox.Build("runsc-ext/runsc-ext/testdata/checkpointed", runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// image returns the directory of the checkpoint.
func (c checkpointed) image() string { return filepath.Join(c.bundle, "image") }

// checkpoint runs the container until it pauses, and makes the checkpoint, with
// which the container is gone. It returns what the program printed until then.
func (c checkpointed) checkpoint(t *testing.T) string {
	t.Helper()
	s := c.begin(t, "run")
	var printed string
	for !strings.HasSuffix(printed, pausing) {
		line, err := s.stdout.ReadString('\n')
		if printed += line; err != nil {
			t.Fatalf("the program printed %q and did not pause: %v", printed, s.end(t))
		}
	}
	if r := run(t, c.bin, append(c.flags, "checkpoint", "-image-path="+c.image(), c.id)...); r.status != 0 {
		t.Fatal(r)
	}
	if r := s.end(t); r.status != 0 || r.stdout != "" {
		t.Fatal(r)
	}
	return printed
}

// restore restores the container, lets it go on, and returns what came of it.
func (c checkpointed) restore(t *testing.T) result {
	t.Helper()
	s := c.begin(t, "restore", "-image-path="+c.image())
	s.stdin.Write([]byte("\n\n")) // For two pauses. If nobody is there to read it, the result shows it.
	return s.end(t)
}

// session is a command that runs a container, for as long as it runs.
type session struct {
	cmd    *exec.Cmd
	stdin  io.Writer
	stdout *bufio.Reader
	stderr bytes.Buffer
}

func (c checkpointed) begin(t *testing.T, name string, flags ...string) *session {
	t.Helper()
	s := &session{cmd: command(t, c.bin, c.args(name, flags...)...)}
	s.cmd.Stderr = &s.stderr
	stdin, err := s.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.stdin, s.stdout = stdin, bufio.NewReader(stdout)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// A test's own context is over by now.
		exec.Command(c.bin, append(c.flags, "delete", "-force", c.id)...).Run()
	})
	return s
}

// end waits for the end. In the result is the standard output from here on.
func (s *session) end(t *testing.T) result {
	t.Helper()
	stdout, err := io.ReadAll(s.stdout)
	if err != nil {
		t.Fatal(err)
	}
	var failed *exec.ExitError
	if err := s.cmd.Wait(); err != nil && !errors.As(err, &failed) {
		t.Fatalf("%v: %v", s.cmd, err)
	}
	return result{s.cmd.String(), s.cmd.ProcessState.ExitCode(), string(stdout), s.stderr.String()}
}
