// SPDX-License-Identifier: Apache-2.0

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
	"gvisor.dev/gvisor/runsc/specutils"

	"runsc-ext/runsc-ext/internal/probe"
	extsyscalls "runsc-ext/sentry/syscalls"
	"runsc-ext/sentry/syscalls/clone4"
)

// sidecarDirEnv names the folder that runsc looks in for gVisor's other programs.
const sidecarDirEnv = "GVISOR_SIDECAR_BINARIES_DIR"

// Main runs runsc-ext and does not return.
func Main() {
	if len(os.Args) == 2 && os.Args[1] == probe.GuestCommand {
		probe.Guest()
		return
	}
	// Until runsc has set its logs up, an error is for standard error alone.
	log.SetTarget(log.GoogleEmitter{Writer: &log.Writer{Next: io.Discard}})
	gvisor, err := setVersion()
	if err != nil {
		util.Fatalf("%v", err)
	}
	cl := parse(os.Args[1:])
	if cl.starts {
		if err := bootOwnSentry(); err != nil {
			util.Fatalf("making runsc boot the extended sentry: %v", err)
		}
	}
	set, err := resolveLevel(cl)
	if err == nil {
		err = cl.check()
	}
	if err == nil && set.level >= clone4.LevelOn {
		err = cl.checkProfile()
	}
	// Commands that start no sandbox go on working: what is broken may be in their way.
	if err != nil && (cl.starts || cl.isSentry()) {
		util.ErrorLogger = cl.errorLog()
		util.Fatalf("%v", err)
	}
	if err := clone4.Enable(set.level, extsyscalls.Options{Sentry: cl.isSentry()}); err != nil {
		util.Fatalf("%v", err)
	}
	subcommands.Register(&probe.Probe{Level: set.level, Source: set.source, Version: Version, GVisor: gvisor}, "")
	maincli.Main()
}

// bootOwnSentry makes this binary the one that runsc boots as a sentry. An
// official install of runsc has a stock sentry in gvisor-bin/ beside the binary,
// the environment can name another such folder, and runsc prefers either to
// itself: clone4 would silently be gone.
func bootOwnSentry() error {
	// A relative folder makes a relative path, which may have no slash in it:
	// then exec.Command would look for it in PATH.
	if dir := os.Getenv(sidecarDirEnv); dir != "" {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return err
		}
		if err := os.Setenv(sidecarDirEnv, abs); err != nil {
			return err
		}
	}
	dir, err := gvisorbinaries.Dir()
	if err != nil {
		return nil // Without a folder there is no other sentry either.
	}
	// What runsc executes by itself, also as a user who cannot come to the
	// binary. To a prewarmer, this would be the prewarmer.
	exe := specutils.ExePath
	if _, err := gvisorbinaries.GvisorSentryPrewarmer.Path(); err == nil {
		if exe, err = os.Executable(); err != nil {
			return err
		}
	}
	name, err := filepath.Rel(dir, exe)
	if err != nil {
		return err
	}
	gvisorbinaries.GvisorSentry.Name = name
	gvisorbinaries.GvisorSentryPluginStack.Name = name
	return nil
}
