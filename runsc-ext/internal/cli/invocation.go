package cli

import (
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/runsc/cmd"
	"gvisor.dev/gvisor/runsc/cmd/sentry/sentrycmd"
	"gvisor.dev/gvisor/runsc/config"
	"gvisor.dev/gvisor/runsc/flag"
)

// bootCommand is the runsc command that is a sentry.
const bootCommand = "boot"

// invocation is a command line of runsc-ext, as far as it was understood: where
// it is wrong, runsc says so.
type invocation struct {
	// command is the name of the subcommand; empty if there is none.
	command string

	// global are runsc's own flags.
	global *flag.FlagSet

	// sub are the flags of the subcommand; nil if it has nothing to do with a
	// sandbox's OCI spec.
	sub *flag.FlagSet
}

// parse parses a command line in the way that runsc does later.
func parse(args []string) invocation {
	inv := invocation{global: newFlagSet()}
	config.RegisterFlags(inv.global)
	for _, name := range []string{"help", "h", "version"} {
		inv.global.Bool(name, false, "")
	}
	flag.CommandLine.VisitAll(func(f *flag.Flag) {
		if inv.global.Lookup(f.Name) == nil {
			inv.global.Var(f.Value, f.Name, f.Usage)
		}
	})
	if inv.global.Parse(args) != nil || inv.global.NArg() == 0 {
		return inv
	}
	inv.command = inv.global.Arg(0)
	sub := newFlagSet()
	switch inv.command {
	case "create":
		new(cmd.Create).SetFlags(sub)
	case "run":
		new(cmd.Run).SetFlags(sub)
	case "restore":
		new(cmd.Restore).SetFlags(sub)
	case bootCommand:
		new(sentrycmd.Boot).SetFlags(sub)
	default:
		return inv
	}
	if sub.Parse(inv.global.Args()[1:]) == nil {
		inv.sub = sub
	}
	return inv
}

// startsSandbox returns whether the command may start a sandbox.
func (inv *invocation) startsSandbox() bool {
	switch inv.command {
	case "bwrap", "create", "do", "probe", "restore", "run", "sandboxexec":
		return true
	}
	return false
}

// sentryIsNobody returns whether runsc starts the sentry as the user nobody: as
// root, unless the sentry is to use the machine's files or network itself.
func (inv *invocation) sentryIsNobody() bool {
	return os.Geteuid() == 0 &&
		inv.flag("directfs") == "false" &&
		inv.flag("network") != "host"
}

// newFlagSet returns a flag set that keeps its errors to itself.
func newFlagSet() *flag.FlagSet {
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

// spec returns the OCI spec of the sandbox or container that the command makes,
// or nil if it makes none or the spec cannot be read.
func (inv *invocation) spec() io.Reader {
	if inv.sub == nil {
		return nil
	}
	if inv.command == bootCommand {
		// The file's offset, and the file, belong to runsc: no os.File here,
		// which would close it.
		fd, err := strconv.Atoi(inv.sub.Lookup("spec-fd").Value.String())
		if err != nil || fd < 0 {
			return nil
		}
		return io.NewSectionReader(preader(fd), 0, math.MaxInt64)
	}
	f, err := os.Open(filepath.Join(inv.sub.Lookup("bundle").Value.String(), "config.json"))
	if err != nil {
		return nil
	}
	return f
}

// preader is a file descriptor, read by pread(2).
type preader int

// ReadAt implements io.ReaderAt.ReadAt.
func (fd preader) ReadAt(p []byte, off int64) (int, error) {
	n, err := unix.Pread(int(fd), p, off)
	if err != nil {
		return 0, err
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// errorLog returns the log in which engines look for a reason, or nil if there
// is none.
func (inv *invocation) errorLog() io.Writer {
	name := inv.flag("log")
	if name == "" {
		return nil
	}
	f, err := log.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, &log.DefaultFileOpts{})
	if err != nil {
		return nil
	}
	return f
}
