// Package probe is the subcommand that boots a sandbox and says which ways to
// call clone4 work in it.
package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/google/subcommands"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/runsc/cmd/util"
	"gvisor.dev/gvisor/runsc/config"
	"gvisor.dev/gvisor/runsc/flag"
	"gvisor.dev/gvisor/runsc/version"

	"runsc-ext/abi/linux"
	"runsc-ext/sentry/syscalls/clone4"
)

// abi is a way to call clone4.
type abi struct {
	name        string
	instruction string
	number      uintptr
	entry       uintptr // a value of rawclone.Op.Entry

	compat bool // the words of the args struct have 32 bits

	// supported is set if the extended sentry has clone4 there.
	supported bool
}

// Probe implements subcommands.Command for the "probe" command.
type Probe struct {
	// Level is the level of clone4 that sandboxes have.
	Level clone4.Level

	format string
}

// Name implements subcommands.Command.Name.
func (*Probe) Name() string {
	return "probe"
}

// Synopsis implements subcommands.Command.Synopsis.
func (*Probe) Synopsis() string {
	return "boot a sandbox and report which ways to call clone4 work in it"
}

// Usage implements subcommands.Command.Usage.
func (*Probe) Usage() string {
	return `probe [flags] - boots a sandbox with the global flags given, calls clone4 in it in
every way that the architecture has, and reports what came of each.

The exit status is 0 if all that runsc-ext supports works, 1 if some of it does
not (also where clone4 is switched off), 128 if no sandbox could be had.

`
}

// SetFlags implements subcommands.Command.SetFlags.
func (p *Probe) SetFlags(f *flag.FlagSet) {
	f.StringVar(&p.format, "format", "text", "output format: text or json")
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
	conf := args[0].(*config.Config)
	ws := args[1].(*unix.WaitStatus)

	outcomes, err := bootAndTry(conf)
	if err != nil {
		return util.Errorf("probe: %v", err)
	}
	r := newReport(conf, p.Level, outcomes)
	if err := write(os.Stdout, r); err != nil {
		return util.Errorf("probe: writing the report: %v", err)
	}
	if !r.OK {
		*ws = 1 << 8 // exit status 1
	}
	return subcommands.ExitSuccess
}

// bootAndTry runs Guest in a sandbox of its own.
func bootAndTry(conf *config.Config) ([]outcome, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// A probe has no use for a network or for limits, and both can be out of
	// reach where a sandbox is not.
	args := append(conf.ToFlags(), "--network=none", "--ignore-cgroups")
	if os.Geteuid() != 0 {
		args = append(args, "--rootless")
	}
	args = append(args, "do", exe, GuestCommand)
	do := exec.Command("/proc/self/exe", args...)
	var stdout, stderr bytes.Buffer
	do.Stdout, do.Stderr = &stdout, &stderr
	if err := do.Run(); err != nil {
		return nil, fmt.Errorf("no sandbox on platform %q: %w\n%s%s", conf.Platform, err, strings.TrimSpace(stderr.String()), hint(conf))
	}
	var outcomes []outcome
	if err := json.Unmarshal(stdout.Bytes(), &outcomes); err != nil || len(outcomes) != len(abis) {
		return nil, fmt.Errorf("the guest in the sandbox wrote %q, not an outcome for each of %d ABIs (%v)", stdout.String(), len(abis), err)
	}
	return outcomes, nil
}

// hint says what is often missing where a sandbox does not start.
func hint(conf *config.Config) string {
	switch {
	case conf.Platform == "kvm":
		return "\nThe kvm platform needs /dev/kvm, readable and writable. Without it: --platform=systrap."
	case os.Geteuid() != 0:
		return "\nWithout root, a sandbox needs user namespaces: see sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns. Or run it as root."
	default:
		return "\nA sandbox needs to create namespaces and to trace its own processes. In a container that means --privileged. For more: --debug --debug-log=/tmp/runsc-ext/."
	}
}

// report is the result of a probe.
type report struct {
	Version  string   `json:"version"`
	Platform string   `json:"platform"`
	Clone4   string   `json:"clone4"`
	OK       bool     `json:"ok"`
	ABIs     []result `json:"abis"`
}

// result is the result for one ABI.
type result struct {
	ABI         string `json:"abi"`
	Instruction string `json:"instruction"`
	Number      uint64 `json:"number"`
	Supported   bool   `json:"supported"`
	Works       bool   `json:"works"`
	outcome
	Meaning string `json:"meaning"`
}

func newReport(conf *config.Config, level clone4.Level, outcomes []outcome) report {
	r := report{
		Version:  version.Version(),
		Platform: conf.Platform,
		Clone4:   level.String(),
		OK:       true,
	}
	for i, abi := range abis {
		o := outcomes[i]
		works := o.PID != 0 && o.Ran && o.Reaped && (o.FD || level < clone4.LevelFD)
		r.ABIs = append(r.ABIs, result{
			ABI:         abi.name,
			Instruction: abi.instruction,
			Number:      uint64(abi.number),
			Supported:   abi.supported,
			Works:       works,
			outcome:     o,
			Meaning:     meaning(abi, o, level),
		})
		r.OK = r.OK && (works || !abi.supported)
	}
	return r
}

// meaning says in words what o is.
func meaning(abi abi, o outcome, level clone4.Level) string {
	switch {
	case o.Signal != 0:
		return fmt.Sprintf("%s: the platform does not let this instruction make a system call", unix.SignalName(o.Signal))
	case o.Errno == syscall.ENOSYS && !abi.supported:
		return "ENOSYS: this version of runsc-ext has no clone4 there"
	case o.Errno == syscall.ENOSYS && level == clone4.LevelOff:
		return "ENOSYS: clone4 is switched off, by the file beside the binary"
	case o.Errno != 0:
		return fmt.Sprintf("%s: %v", unix.ErrnoName(o.Errno), o.Errno)
	case !o.Ran:
		return fmt.Sprintf("child %d was made, but did not run", o.PID)
	case !o.Reaped:
		return fmt.Sprintf("child %d ran, but could not be waited for", o.PID)
	case level == clone4.LevelFD && !o.FD:
		return fmt.Sprintf("child %d was made, ran and was reaped, but CLONE_FD and CLONE_AUTOREAP do not work", o.PID)
	case level == clone4.LevelFD:
		return fmt.Sprintf("works: child %d was made, ran and was reaped, another reaped itself and was read from a descriptor", o.PID)
	default:
		return fmt.Sprintf("works: child %d was made, ran and was reaped", o.PID)
	}
}

func writeText(w io.Writer, r report) error {
	fmt.Fprintf(w, "%s, platform %s, clone4 %s\n\n", r.Version, r.Platform, r.Clone4)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "ABI\tCALL\tNUMBER\tRESULT")
	for _, a := range r.ABIs {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", a.ABI, a.Instruction, number(a.Number), a.Meaning)
	}
	return tw.Flush()
}

// number formats the number of a system call: as tables have it, with x32's bit
// apart.
func number(nr uint64) string {
	const x32 = linux.X32_SYSCALL_BIT
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
