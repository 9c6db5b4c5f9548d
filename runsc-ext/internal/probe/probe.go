// SPDX-License-Identifier: Apache-2.0

// Package probe is the subcommand that boots a sandbox and reports through which ABIs clone4
// works in it.
package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/google/subcommands"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/runsc/cmd/util"
	"gvisor.dev/gvisor/runsc/config"
	"gvisor.dev/gvisor/runsc/flag"
	"gvisor.dev/gvisor/runsc/specutils"
	"gvisor.dev/gvisor/runsc/version"

	extlinux "runsc-ext/abi/linux"
	"runsc-ext/sentry/syscalls/clone4"
)

// abi is an ABI through which a program can call clone4.
type abi struct {
	name        string
	instruction string
	number      uintptr
	entry       uintptr // a value of rawclone.Op.Entry
	compat      bool    // the words of the args struct have 32 bits
}

// defaultTimeout suits emulated machines, where a sandbox takes almost a minute to boot.
const defaultTimeout = 3 * time.Minute

// Probe implements subcommands.Command for the "probe" command.
type Probe struct {
	// Level is the level of clone4 in sandboxes, and Source is what sets the level:
	// "default", or the name of a file.
	Level  clone4.Level
	Source string

	// Version is the version of runsc-ext, GVisor the version of gVisor.
	Version, GVisor string

	format  string
	timeout time.Duration
}

// Name implements subcommands.Command.Name.
func (*Probe) Name() string {
	return "probe"
}

// Synopsis implements subcommands.Command.Synopsis.
func (*Probe) Synopsis() string {
	return "boot a sandbox and report through which ABIs clone4 works in it"
}

// Usage implements subcommands.Command.Usage.
func (*Probe) Usage() string {
	return `probe [flags] - boots a sandbox with the global flags given, calls clone4 in it through
every ABI of the architecture, and reports each result.

The exit status is 0 if every ABI works, and 1 if one does not, for example because clone4 is
switched off. It is 128 if no sandbox starts, or if the sandbox exceeds the time limit.

`
}

// SetFlags implements subcommands.Command.SetFlags.
func (p *Probe) SetFlags(f *flag.FlagSet) {
	f.StringVar(&p.format, "format", "text", "output format: text or json")
	f.DurationVar(&p.timeout, "timeout", defaultTimeout, "time after which the probe kills the sandbox and gives up")
}

// Execute implements subcommands.Command.Execute.
func (p *Probe) Execute(_ context.Context, f *flag.FlagSet, args ...any) subcommands.ExitStatus {
	if f.NArg() != 0 {
		f.Usage()
		return subcommands.ExitUsageError
	}
	write := writeText
	switch p.format {
	case "text":
	case "json":
		write = writeJSON
	default:
		return util.Errorf("unknown format %q: the formats are text, json", p.format)
	}
	if p.timeout <= 0 {
		return util.Errorf("-timeout=%v: the time limit must be above 0, for example -timeout=%v", p.timeout, defaultTimeout)
	}
	conf := args[0].(*config.Config)
	ws := args[1].(*unix.WaitStatus)

	outcomes, err := bootAndTry(conf, p.timeout)
	if err != nil {
		return util.Errorf("probe: %v", err)
	}
	r := p.newReport(conf, outcomes)
	if err := write(os.Stdout, r); err != nil {
		return util.Errorf("probe: writing the report: %v", err)
	}
	if !r.OK {
		*ws = 1 << 8 // exit status 1
	}
	return subcommands.ExitSuccess
}

// bootAndTry runs Guest in a new sandbox and returns the outcomes. It leaves no process and no
// file behind.
func bootAndTry(conf *config.Config, timeout time.Duration) ([]outcome, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// A killed "runsc do" leaves its state in a directory below TMPDIR.
	tmp, err := os.MkdirTemp("", "runsc-ext-probe-*")
	if err != nil {
		return nil, fmt.Errorf("creating a directory for the sandbox's state: %w: set TMPDIR to a writable directory", err)
	}
	defer func() {
		// runsc mounts a network namespace there.
		mounts, _ := filepath.Glob(filepath.Join(tmp, "*", specutils.NullNetNSFilename))
		for _, name := range mounts {
			unix.Unmount(name, unix.MNT_DETACH)
		}
		os.RemoveAll(tmp)
	}()
	// A probe needs no network and no cgroup, and a machine may allow sandboxes but
	// neither of these.
	args := append(conf.ToFlags(), "--network=none", "--ignore-cgroups")
	if os.Geteuid() != 0 {
		args = append(args, "--rootless")
	}
	args = append(args, "do", exe, GuestCommand)

	// As a subreaper, this process becomes the parent of processes whose parent is killed.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("becoming a subreaper: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	do := exec.CommandContext(ctx, "/proc/self/exe", args...)
	do.Env = append(os.Environ(), "TMPDIR="+tmp)
	do.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	do.Stdout, do.Stderr = &stdout, &stderr
	err = do.Run()
	killChildren()
	outcomes, rest := decode(stdout.String())
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("no answer from a sandbox on platform %q: waited %v for %s%s\n%s%s",
			conf.Platform, timeout, awaited(stdout.String(), outcomes), messages(&stderr), patience(conf, timeout), hint(conf))
	case err != nil:
		return nil, fmt.Errorf("no sandbox on platform %q: %w%s%s", conf.Platform, err, messages(&stderr), hint(conf))
	case len(outcomes) != len(abis) || rest != "":
		return nil, fmt.Errorf("the guest in the sandbox wrote %q, not an outcome for each of %d ABIs", stdout.String(), len(abis))
	}
	return outcomes, nil
}

// decode decodes the output of the guest: the outcomes of the first ABIs, and a rest that is
// not an outcome.
func decode(stdout string) (outcomes []outcome, rest string) {
	rest, ok := strings.CutPrefix(stdout, started)
	for ok && len(outcomes) < len(abis) {
		var line string
		var o outcome
		if line, rest, ok = strings.Cut(rest, "\n"); !ok || json.Unmarshal([]byte(line), &o) != nil {
			return outcomes, line + rest
		}
		outcomes = append(outcomes, o)
	}
	return outcomes, rest
}

// awaited returns the first step that a guest with the output stdout has not finished.
func awaited(stdout string, outcomes []outcome) string {
	switch {
	case !strings.HasPrefix(stdout, started):
		return "the sandbox to boot and to start a program"
	case len(outcomes) < len(abis):
		return fmt.Sprintf("the program in the sandbox to call clone4 through the %s ABI", abis[len(outcomes)].name)
	default:
		return "the sandbox to exit"
	}
}

// killChildren kills all descendants of this process. They become its children when their
// parents are killed. It gives up on a process that does not die within a second.
func killChildren() {
	for range 100 {
		files, _ := filepath.Glob("/proc/self/task/*/children")
		var pids []string
		for _, name := range files {
			b, _ := os.ReadFile(name)
			pids = append(pids, strings.Fields(string(b))...)
		}
		if len(pids) == 0 {
			return
		}
		for _, s := range pids {
			if pid, err := strconv.Atoi(s); err == nil {
				unix.Kill(pid, unix.SIGKILL)
				unix.Wait4(pid, nil, unix.WNOHANG, nil)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// messages returns a sandbox's standard error, on new lines.
func messages(stderr *bytes.Buffer) string {
	s := strings.TrimSpace(stderr.String())
	if s != "" {
		s = "\n" + s
	}
	return s
}

// patience returns advice for a sandbox that does not answer.
func patience(conf *config.Config, timeout time.Duration) string {
	s := fmt.Sprintf("On a slow machine, allow more time: probe -timeout=%v.", 3*timeout)
	if conf.Platform == "kvm" {
		s += " In a virtual machine, /dev/kvm may create virtual machines that never run."
	}
	return s
}

// hint returns what a machine often lacks if a sandbox does not start.
func hint(conf *config.Config) string {
	switch {
	case conf.Platform == "kvm":
		return "\nThe kvm platform needs a /dev/kvm that this user may read and write, and that runs virtual machines. Without it: --platform=systrap."
	case os.Geteuid() != 0:
		return "\nWithout root, a sandbox needs user namespaces: see sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns. Or run it as root."
	default:
		return "\nA sandbox needs to create namespaces and to trace its own processes. In a container that means --privileged. For more: --debug --debug-log=/tmp/runsc-ext/."
	}
}

// report is the result of a probe.
type report struct {
	Version  string   `json:"version"` // as in the output of --version
	Versions versions `json:"versions"`
	Platform string   `json:"platform"`
	Clone4   string   `json:"clone4"` // the level
	Source   string   `json:"source"` // of the level: "default", or the name of a file
	OK       bool     `json:"ok"`
	ABIs     []result `json:"abis"`
}

// versions has the parts of report.Version.
type versions struct {
	RunscExt string `json:"runsc-ext"`
	GVisor   string `json:"gvisor"`
}

// result is the result for one ABI.
type result struct {
	ABI         string `json:"abi"`
	Instruction string `json:"instruction"`
	Number      uint64 `json:"number"`
	Works       bool   `json:"works"`
	outcome
	Meaning string `json:"meaning"`
}

func (p *Probe) newReport(conf *config.Config, outcomes []outcome) report {
	r := report{
		Version:  version.Version(),
		Versions: versions{RunscExt: p.Version, GVisor: p.GVisor},
		Platform: conf.Platform,
		Clone4:   p.Level.String(),
		Source:   p.Source,
		OK:       true,
	}
	for i, abi := range abis {
		o := outcomes[i]
		works := o.PID != 0 && o.Ran && o.Reaped && (o.FD || p.Level < clone4.LevelFD)
		r.ABIs = append(r.ABIs, result{
			ABI:         abi.name,
			Instruction: abi.instruction,
			Number:      uint64(abi.number),
			Works:       works,
			outcome:     o,
			Meaning:     p.meaning(o),
		})
		r.OK = r.OK && works
	}
	return r
}

// meaning describes o in words.
func (p *Probe) meaning(o outcome) string {
	switch {
	case o.Signal != 0:
		return fmt.Sprintf("%s: this instruction makes no system call on this platform", unix.SignalName(o.Signal))
	case o.Errno == syscall.ENOSYS && p.Level == clone4.LevelOff:
		return "ENOSYS: clone4 is switched off, by " + p.Source
	case o.Errno != 0:
		return fmt.Sprintf("%s: %v", unix.ErrnoName(o.Errno), o.Errno)
	case !o.Ran:
		return fmt.Sprintf("child %d was created, but did not run", o.PID)
	case !o.Reaped:
		return fmt.Sprintf("child %d ran, but could not be waited for", o.PID)
	case p.Level == clone4.LevelFD && !o.FD:
		return fmt.Sprintf("child %d was created, ran and was reaped, but CLONE_FD and CLONE_AUTOREAP do not work", o.PID)
	case p.Level == clone4.LevelFD:
		return fmt.Sprintf("works: child %d was created, ran and was reaped; the exit of another was read from a descriptor", o.PID)
	default:
		return fmt.Sprintf("works: child %d was created, ran and was reaped", o.PID)
	}
}

func writeText(w io.Writer, r report) error {
	fmt.Fprintf(w, "%s, platform %s, clone4 %s (%s)\n\n", r.Version, r.Platform, r.Clone4, r.Source)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "ABI\tCALL\tNUMBER\tRESULT")
	for _, a := range r.ABIs {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", a.ABI, a.Instruction, number(a.Number), a.Meaning)
	}
	return tw.Flush()
}

// number formats the number of a system call as system call tables do, with the bit of x32
// apart.
func number(nr uint64) string {
	const x32 = extlinux.X32_SYSCALL_BIT
	if nr&x32 != 0 {
		return fmt.Sprintf("%#x+%d", x32, nr&^x32)
	}
	return fmt.Sprint(nr)
}

func writeJSON(w io.Writer, r report) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}
