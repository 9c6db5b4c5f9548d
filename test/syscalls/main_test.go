package syscalls

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/test/sandbox"
)

// Where a kernel has clone4, one of these is in the environment. The first is
// set by the reference kernel's init.
const (
	envNative  = "CLONE4_NATIVE"
	envSandbox = "CLONE4_SANDBOX"
)

// envLevel is the level of clone4 where it is not the default.
const envLevel = "CLONE4_LEVEL"

// selectTests selects the tests that are for the level of clone4 here: those of
// level fd, which are named so, or all others.
func selectTests() {
	skip := "^TestFD"
	if os.Getenv(envLevel) == "fd" {
		skip = "^Test([^F]|F[^D])"
	}
	f := flag.Lookup("test.skip")
	if old := f.Value.String(); old != "" {
		skip += "|" + old
	}
	f.Value.Set(skip)
}

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(envExecuted) != "" {
		executed()
	}
	switch {
	case os.Getenv(envNative) == "" && os.Getenv(envSandbox) == "":
		os.Exit(runEverywhere())
	case os.Getpid() == 1:
		// PID 1 is not allowed everything, and inherits orphans.
		os.Exit(initProcess())
	default:
		selectTests()
		os.Exit(m.Run())
	}
}

// initProcess runs the tests in a child, as an init process would.
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

	// command returns the command that runs a test binary with args there. An
	// error that is a sandbox.Missing says why there is none.
	command func(args []string) (*exec.Cmd, error)

	// slow is set for emulated machines: no run under -short, and a short one
	// otherwise.
	slow bool

	// few are the tests to run there if no others are asked for with -run; empty
	// for all.
	few string
}

func runEverywhere() int {
	envs := []environment{{name: "native", command: native}}
	for _, platform := range sandbox.Platforms {
		envs = append(envs, environment{name: platform, command: func(args []string) (*exec.Cmd, error) {
			cmd, err := sandbox.Do(platform, append([]string{self()}, args...)...)
			if err == nil {
				cmd.Env = append(os.Environ(), envSandbox+"="+platform)
			}
			return cmd, err
		}})
	}
	for _, platform := range sandbox.Platforms {
		envs = append(envs, environment{name: platform + ",fd", command: func(args []string) (*exec.Cmd, error) {
			cmd, err := sandbox.DoAt("fd", platform, append([]string{self()}, args...)...)
			if err == nil {
				cmd.Env = append(os.Environ(), envSandbox+"="+platform, envLevel+"=fd")
			}
			return cmd, err
		}})
	}
	for _, m := range []struct{ arch, platform, few string }{
		{"amd64", "kvm", ""},
		{"arm64", "systrap", ""},
		{"arm64", "ptrace", "^(TestFlagBits|TestStack|TestTLS|TestVforkKilled)$"},
	} {
		envs = append(envs, environment{name: m.platform + "-" + m.arch + "-emulated", slow: true, few: m.few, command: func(args []string) (*exec.Cmd, error) {
			return emulated(m.arch, m.platform, args)
		}})
	}

	// The emulated machines take long, one processor each: beside the others, two at
	// a time when those are done, and their output after.
	slow := make(chan environment, len(envs))
	for _, env := range envs {
		if env.slow {
			slow <- env
		}
	}
	close(slow)
	runSlow := func(w io.Writer) (status int) {
		for env := range slow {
			status |= env.run(w)
		}
		return status
	}
	var beside, after bytes.Buffer
	besideStatus := make(chan int)
	go func() { besideStatus <- runSlow(&beside) }()
	status := 0
	for _, env := range envs {
		if !env.slow {
			status |= env.run(os.Stdout)
		}
	}
	status |= runSlow(&after)
	status |= <-besideStatus
	os.Stdout.Write(beside.Bytes())
	os.Stdout.Write(after.Bytes())
	return status
}

// run runs the tests, with their output to w, and returns the exit status.
func (env *environment) run(w io.Writer) int {
	args := testArgs()
	start := time.Now()
	report := func(outcome, detail string) {
		fmt.Fprintf(w, "=== %s %s (%.1fs)%s\n", outcome, env.name, time.Since(start).Seconds(), detail)
	}
	if env.slow {
		if testing.Short() {
			report("SKIP", ": -short")
			return 0
		}
		args = append(args, "-test.short")
		if env.few != "" && flag.Lookup("test.run").Value.String() == "" {
			args = append(args, "-test.run="+env.few)
		}
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
		report("FAIL", fmt.Sprintf(": %v: %v", cmd, err))
		return 1
	}
	report("OK", "")
	return 0
}

// runCommand runs cmd, with its output to w. It does not wait for ever: a test
// that hangs beyond -timeout's reach hangs the sandbox or the machine.
func runCommand(cmd *exec.Cmd, w io.Writer) error {
	ctx := context.Background()
	if d := flag.Lookup("test.timeout").Value.(flag.Getter).Get().(time.Duration); d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d+30*time.Second)
		defer cancel()
	}
	bounded := exec.CommandContext(ctx, cmd.Path, cmd.Args[1:]...)
	bounded.Env = cmd.Env
	// A pipe in between, where standard output may be a file: a sandbox writes
	// to a file at an offset of its own.
	out := piped{w}
	bounded.Stdout, bounded.Stderr = out, out
	bounded.WaitDelay = 10 * time.Second
	return bounded.Run()
}

// piped hides that a writer is a file.
type piped struct{ io.Writer }

// testArgs returns the flags that this run of the tests was given, less those
// that name files of the go command's.
func testArgs() []string {
	var args []string
	for _, arg := range os.Args[1:] {
		if !strings.HasPrefix(arg, "-test.testlogfile=") && !strings.HasPrefix(arg, "-test.gocoverdir=") {
			args = append(args, arg)
		}
	}
	return args
}

func self() string {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return exe
}

const pkg = "runsc-ext/test/syscalls"

// native runs the tests on the reference kernel.
func native(args []string) (*exec.Cmd, error) {
	bin, err := sandbox.BuildTest(pkg, runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	return sandbox.Native(bin, args...)
}

// emulated runs the tests in a sandbox in an emulated machine.
func emulated(arch, platform string, args []string) (*exec.Cmd, error) {
	return sandbox.Emulated(arch, platform, []string{envSandbox + "=" + platform}, pkg, args...)
}
