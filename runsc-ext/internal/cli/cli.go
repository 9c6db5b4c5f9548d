// Package cli is the command line of runsc-ext: runsc's own, with what the
// extension adds to it before runsc takes over.
package cli

import (
	"io"
	"os"
	"path/filepath"

	"github.com/google/subcommands"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/runsc/cli/maincli"
	"gvisor.dev/gvisor/runsc/cmd/util"
	"gvisor.dev/gvisor/runsc/gvisorbinaries"

	"runsc-ext/runsc-ext/internal/probe"
	"runsc-ext/sentry/syscalls/clone4"
)

// Main runs runsc-ext and does not return.
func Main() {
	if len(os.Args) == 2 && os.Args[1] == probe.GuestCommand {
		probe.Guest()
		return
	}
	// Until runsc has set its logs up, an error is for standard error alone.
	log.SetTarget(log.GoogleEmitter{Writer: &log.Writer{Next: io.Discard}})
	if err := setVersion(); err != nil {
		util.Fatalf("%v", err)
	}
	inv := parse(os.Args[1:])
	if inv.startsSandbox() {
		if err := bootOwnSentry(); err != nil {
			util.Fatalf("making runsc boot the extended sentry: %v", err)
		}
	}
	level, err := settleLevel(inv)
	if err != nil && (inv.startsSandbox() || inv.command == bootCommand) {
		util.ErrorLogger = inv.errorLog()
		util.Fatalf("%v", err)
	}
	if err := clone4.Enable(level); err != nil {
		util.Fatalf("%v", err)
	}

	subcommands.Register(&probe.Probe{Level: level}, "")
	maincli.Main()
}

// bootOwnSentry makes this binary the one that runsc boots as a sentry. An
// official install of runsc has a stock sentry in gvisor-bin/ beside the binary,
// the environment can name another such folder, and runsc prefers either to
// itself: clone4 would silently be gone.
func bootOwnSentry() error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := gvisorbinaries.Dir()
	if err != nil {
		return err
	}
	// Dir may be relative, and Name is joined to it as it is.
	absDir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	name, err := filepath.Rel(absDir, exe)
	if err != nil {
		return err
	}
	gvisorbinaries.GvisorSentry.Name = name
	gvisorbinaries.GvisorSentryPluginStack.Name = name
	return nil
}
