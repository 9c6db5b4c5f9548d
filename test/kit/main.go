// SPDX-License-Identifier: Apache-2.0

package kit

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/internal/rawclone"
	"runsc-ext/test/sandbox"
)

// Environment variables that tell a test binary where it runs. If neither of the first two is
// set, the kernel does not have clone4.
const (
	envNative  = "CLONE4_NATIVE"        // set by the init of the reference kernel
	envSandbox = "CLONE4_SANDBOX"       // the platform of the sandbox
	envLevel   = "CLONE4_LEVEL"         // the level of clone4; empty for "on"
	envLacks   = "CLONE4_MACHINE_LACKS" // the features that the machine lacks
)

// Native returns whether the tests run on the reference kernel.
func Native() bool { return os.Getenv(envNative) != "" }

// Platform returns the platform of the sandbox that the tests run in, "" if Native.
func Platform() string { return os.Getenv(envSandbox) }

// Level returns the level of clone4 that the tests run at: "on" or "fd".
func Level() string {
	if level := os.Getenv(envLevel); level != "" {
		return level
	}
	return "on"
}

// Suite is a package of tests that run inside the kernel that they test.
type Suite struct {
	Package string // its import path

	// Level is the level of clone4 for the tests; "" is the default, "on". Tests of
	// level "fd" run only in sandboxes, because no Linux kernel has that level.
	Level string

	// Few maps the name of an environment to a regular expression for the tests that
	// run there without -run. "" selects none. In other environments, all tests run.
	Few map[string]string
}

// Main is the TestMain of a suite. On a machine without clone4, it builds runsc-ext and starts
// the test binary in every environment that the machine has: on the reference kernel, in a
// sandbox on each platform, and in sandboxes in emulated machines. In these environments, it
// runs the tests.
//
// Flags such as -run, -v and -count are passed on. The flag -on selects environments.
func Main(m *testing.M, suite Suite) {
	on := flag.String("on", "", "run the tests in these `environments` only, with commas between: native, systrap, ptrace, or the name of an emulated machine")
	flag.Parse()
	if os.Getenv(envExecuted) != "" {
		executed()
	}
	switch {
	case !Native() && Platform() == "":
		os.Exit(suite.runEverywhere(*on))
	case os.Getpid() == 1:
		// PID 1 may not use CLONE_PARENT, and inherits orphans.
		os.Exit(initProcess())
	default:
		os.Exit(m.Run())
	}
}

// initProcess runs the tests in a child, and reaps orphans as an init process does.
func initProcess() int {
	child, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WALL, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "waiting for the tests:", err)
			return 1
		}
		if pid == child.Pid {
			if ws.Signaled() {
				return 128 + int(ws.Signal())
			}
			return ws.ExitStatus()
		}
	}
}

// environment is a kernel to run the tests on.
type environment struct {
	name string

	// command returns a command that runs the test binary with args in the
	// environment. The error is a sandbox.Missing if the machine lacks it.
	command func(args []string) (*exec.Cmd, error)

	// emulated environments are slow. Under -short they do not run, and otherwise
	// their tests run under -short.
	emulated bool
}

// environments returns the environments of the suite.
func (s *Suite) environments() []environment {
	lacks := envLacks + "=" + machineLacks()
	settings := func(platform string) []string {
		return []string{envSandbox + "=" + platform, envLevel + "=" + s.Level}
	}
	var envs []environment
	if s.Level == "" {
		envs = append(envs, environment{name: "native", command: func(args []string) (*exec.Cmd, error) {
			bin, err := sandbox.BuildTest(s.Package, runtime.GOARCH)
			if err != nil {
				return nil, err
			}
			return sandbox.Native(bin, args...)
		}})
	}
	for _, platform := range sandbox.Platforms {
		envs = append(envs, environment{name: platform, command: func(args []string) (*exec.Cmd, error) {
			self, err := os.Executable()
			if err != nil {
				return nil, err
			}
			cmd, err := sandbox.DoAt(s.Level, platform, append([]string{self}, args...)...)
			if err == nil {
				cmd.Env = append(append(os.Environ(), lacks), settings(platform)...)
			}
			return cmd, err
		}})
	}
	for _, m := range []struct{ arch, platform string }{{"amd64", "kvm"}, {"arm64", "systrap"}, {"arm64", "ptrace"}, {"arm64", "kvm"}} {
		envs = append(envs, environment{name: m.platform + "-" + m.arch + "-emulated", emulated: true, command: func(args []string) (*exec.Cmd, error) {
			return sandbox.EmulatedAt(s.Level, m.arch, m.platform, settings(m.platform), s.Package, args...)
		}})
	}
	return envs
}

// runEverywhere runs the tests in the environments named, or in all, and returns the
// exit status.
func (s *Suite) runEverywhere(on string) int {
	envs := s.environments()
	if on != "" {
		var names []string
		for _, env := range envs {
			names = append(names, env.name)
		}
		selected := strings.Split(on, ",")
		for _, name := range selected {
			if !slices.Contains(names, name) {
				fmt.Fprintf(os.Stderr, "-on %s: %q is not an environment of %s: the environments are %s\n", on, name, s.Package, strings.Join(names, ", "))
				return 2
			}
		}
		envs = slices.DeleteFunc(envs, func(env environment) bool { return !slices.Contains(selected, env.name) })
	}

	// Emulated machines are slow, and use one processor each. One runs beside the other
	// environments, and two run at a time when those are done. Their output comes last.
	slow := make(chan environment, len(envs))
	for _, env := range envs {
		if env.emulated {
			slow <- env
		}
	}
	close(slow)
	runSlow := func(w io.Writer) (status int) {
		for env := range slow {
			status |= s.run(env, w)
		}
		return status
	}
	var beside, after bytes.Buffer
	besideStatus := make(chan int)
	go func() { besideStatus <- runSlow(&beside) }()
	status := 0
	for _, env := range envs {
		if !env.emulated {
			status |= s.run(env, os.Stdout)
		}
	}
	status |= runSlow(&after)
	status |= <-besideStatus
	os.Stdout.Write(beside.Bytes())
	os.Stdout.Write(after.Bytes())
	return status
}

// run runs the tests in an environment, with their output to w, and returns the exit
// status.
func (s *Suite) run(env environment, w io.Writer) int {
	args := testArgs()
	start := time.Now()
	report := func(outcome, detail string) {
		fmt.Fprintf(w, "=== %s %s (%.1fs)%s\n", outcome, env.name, time.Since(start).Seconds(), detail)
	}
	if few, ok := s.Few[env.name]; ok && flag.Lookup("test.run").Value.String() == "" {
		if few == "" {
			return 0
		}
		args = append(args, "-test.run="+few)
	}
	if env.emulated {
		if testing.Short() {
			report("SKIP", ": -short")
			return 0
		}
		args = append(args, "-test.short")
	}
	fmt.Fprintf(w, "=== ON   %s\n", env.name)
	cmd, err := env.command(args)
	if m := sandbox.Missing(""); errors.As(err, &m) {
		report("SKIP", ": "+err.Error())
		return 0
	}
	if err != nil {
		report("FAIL", ": "+err.Error())
		return 1
	}
	if err := runCommand(cmd, w); err != nil {
		report("FAIL", fmt.Sprintf(": %v\n\tonly this: go test ./%s -on %s", err, strings.TrimPrefix(s.Package, modulePath), env.name))
		return 1
	}
	report("OK", "")
	return 0
}

const modulePath = "runsc-ext/"

// runCommand runs cmd, with its output to w. It has a time limit of its own, because -timeout
// cannot end a sandbox or a machine that hangs.
func runCommand(cmd *exec.Cmd, w io.Writer) error {
	ctx := context.Background()
	if d := flag.Lookup("test.timeout").Value.(flag.Getter).Get().(time.Duration); d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d+30*time.Second)
		defer cancel()
	}
	bounded := exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
	bounded.Env = cmd.Env
	// Standard output may be a file, to which a sandbox would write from offset 0. A
	// pipe avoids that.
	out := piped{w}
	bounded.Stdout, bounded.Stderr = out, out
	bounded.WaitDelay = 10 * time.Second
	return bounded.Run()
}

// piped hides from package exec that a writer is a file, so that exec uses a pipe.
type piped struct{ io.Writer }

// testArgs returns the flags of this run of the tests, without those that name files of the go
// command.
func testArgs() []string {
	return slices.DeleteFunc(slices.Clone(os.Args[1:]), func(arg string) bool {
		return strings.HasPrefix(arg, "-test.testlogfile=") || strings.HasPrefix(arg, "-test.gocoverdir=")
	})
}

// envExecuted turns the test binary into the program that Exec executes.
const envExecuted = "CLONE4_EXECUTED"

const (
	// ExecStatus is the exit status of the program that Exec executes.
	ExecStatus = 7

	execFor = 300 * time.Millisecond
)

func executed() {
	time.Sleep(execFor)
	os.Exit(ExecStatus)
}

// Exec appends to l an execve of the test binary, which then runs for a while and exits with
// ExecStatus.
func Exec(l *rawclone.List) {
	p := l.Program()
	exe := p.Path("/proc/self/exe")
	argv, envp := p.Buffer(16), p.Buffer(16)
	*rawclone.WordOf(argv), *rawclone.WordOf(envp) = exe, p.Path(envExecuted+"=1")
	l.Sys(unix.SYS_EXECVE, exe, argv, envp)
}

// IsOurs returns whether pid is a process or a zombie of the test binary, even after Exec.
func IsOurs(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	exe, err := os.Executable()
	return err == nil && (bytes.Contains(stat, []byte("("+path.Base(exe))) || bytes.Contains(stat, []byte("(exe)")))
}
