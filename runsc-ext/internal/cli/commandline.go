// SPDX-License-Identifier: Apache-2.0

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

// bootCommand is the subcommand of a process that becomes a sentry.
const bootCommand = "boot"

// subcommand is what this package knows about a subcommand.
type subcommand struct {
	// starts is set if the subcommand may start a sandbox.
	starts bool

	// checked is set if check runs for the subcommand. A subcommand that starts its
	// sandbox by executing another subcommand leaves the check to that one.
	checked bool

	// flags defines the flags of a subcommand that gets an OCI spec, in a bundle or as a
	// file descriptor. It is nil for other subcommands.
	flags func(*flag.FlagSet)
}

// subcommandTable has the subcommands that take part in starting a sandbox.
var subcommandTable = map[string]subcommand{
	bootCommand:   {flags: new(sentrycmd.Boot).SetFlags},
	"bwrap":       {starts: true},
	"create":      {starts: true, checked: true, flags: new(cmd.Create).SetFlags},
	"do":          {starts: true, checked: true},
	"probe":       {starts: true},
	"restore":     {starts: true, checked: true, flags: new(cmd.Restore).SetFlags},
	"run":         {starts: true, checked: true, flags: new(cmd.Run).SetFlags},
	"sandboxexec": {starts: true},
}

// commandLine is a command line of runsc-ext, as far as it could be parsed. runsc reports
// errors in it later.
type commandLine struct {
	// name is the name of the subcommand, or empty.
	name string

	// subcommand is the subcommand's entry in the table, or zero.
	subcommand

	// global are runsc's global flags.
	global *flag.FlagSet

	// sub are the flags of a subcommand that gets an OCI spec, else nil.
	sub *flag.FlagSet
}

// parse parses a command line as runsc does later.
func parse(args []string) *commandLine {
	c := &commandLine{global: newFlagSet()}
	config.RegisterFlags(c.global)
	for _, name := range []string{"help", "h", "version"} {
		c.global.Bool(name, false, "")
	}
	flag.CommandLine.VisitAll(func(f *flag.Flag) {
		if c.global.Lookup(f.Name) == nil {
			c.global.Var(f.Value, f.Name, f.Usage)
		}
	})
	if c.global.Parse(args) != nil || c.global.NArg() == 0 {
		return c
	}
	c.name = c.global.Arg(0)
	c.subcommand = subcommandTable[c.name]
	if c.flags == nil {
		return c
	}
	sub := newFlagSet()
	c.flags(sub)
	if sub.Parse(c.global.Args()[1:]) == nil {
		c.sub = sub
	}
	return c
}

// newFlagSet returns a flag set that prints no errors.
func newFlagSet() *flag.FlagSet {
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

// flag returns the value of a global flag.
func (c *commandLine) flag(name string) string {
	return c.global.Lookup(name).Value.String()
}

// isSentry returns whether this process becomes a sentry.
func (c *commandLine) isSentry() bool { return c.name == bootCommand }

// sentryIsNobody returns whether runsc starts the sentry as the user nobody. With root, it does
// so unless the sentry uses the machine's files or network itself.
func (c *commandLine) sentryIsNobody() bool {
	return os.Geteuid() == 0 &&
		c.flag("directfs") == "false" &&
		c.flag("network") != "host"
}

// spec returns the OCI spec of the sandbox or container that the subcommand starts, or nil
// if it has none or the spec cannot be read.
func (c *commandLine) spec() []byte {
	if c.sub == nil {
		return nil
	}
	if !c.isSentry() {
		spec, err := os.ReadFile(filepath.Join(c.sub.Lookup("bundle").Value.String(), "config.json"))
		if err != nil {
			return nil
		}
		return spec
	}
	// runsc reads the file later, from its offset, so the offset must stay. An os.File
	// would close the file.
	fd, err := strconv.Atoi(c.sub.Lookup("spec-fd").Value.String())
	if err != nil || fd < 0 {
		return nil
	}
	spec, err := io.ReadAll(io.NewSectionReader(preader(fd), 0, math.MaxInt64))
	if err != nil {
		return nil
	}
	return spec
}

// preader is a file descriptor that is read by pread(2).
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

// errorLog returns the log in which engines look for an error, or nil without -log.
func (c *commandLine) errorLog() io.Writer {
	name := c.flag("log")
	if name == "" {
		return nil
	}
	f, err := log.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, &log.DefaultFileOpts{})
	if err != nil {
		return nil
	}
	return f
}
