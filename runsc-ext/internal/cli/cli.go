// SPDX-License-Identifier: Apache-2.0

// Package cli is the command line of runsc-ext. It prepares the extension, and then calls
// the main function of runsc.
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

// sidecarDirEnv is the environment variable that names the directory of gVisor's sidecar
// binaries.
const sidecarDirEnv = "GVISOR_SIDECAR_BINARIES_DIR"

// Main runs runsc-ext and does not return.
func Main() {
	if len(os.Args) == 2 && os.Args[1] == probe.GuestCommand {
		probe.Guest()
		return
	}
	// Until runsc has opened its logs, errors go only to standard error.
	log.SetTarget(log.GoogleEmitter{Writer: &log.Writer{Next: io.Discard}})
	gvisor, err := setVersion()
	if err != nil {
		util.Fatalf("%v", err)
	}
	cl := parse(os.Args[1:])
	if cl.starts {
		if err := bootOwnSentry(); err != nil {
			util.Fatalf("selecting this binary as the sentry: %v", err)
		}
	}
	set, err := resolveLevel(cl)
	if err == nil {
		err = cl.check()
	}
	if err == nil && set.level >= clone4.LevelOn {
		err = cl.checkProfile()
	}
	// Commands that start no sandbox ignore the error: an operator needs them to clean up.
	if err != nil && (cl.starts || cl.isSentry()) {
		util.ErrorLogger = cl.errorLog()
		util.Fatalf("%v", err)
	}
	if cl.isSentry() {
		allocateBallast()
	}
	if err := clone4.Enable(set.level, extsyscalls.Options{Sentry: cl.isSentry()}); err != nil {
		util.Fatalf("%v", err)
	}
	subcommands.Register(&probe.Probe{Level: set.level, Source: set.source, Version: Version, GVisor: gvisor}, "")
	maincli.Main()
}

// bootOwnSentry makes runsc boot this binary as the sentry. An official install of runsc has
// a stock sentry in gvisor-bin/ beside the binary, and the environment can name another
// directory with one. runsc prefers either to itself, and clone4 would silently be gone.
func bootOwnSentry() error {
	// In a relative directory the path of this binary could have no slash, and
	// exec.Command would look for the binary in PATH.
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
		return nil // Only that directory could have another sentry.
	}
	// ExePath is /proc/self/exe, as in runsc: it works even for a user who cannot
	// reach the binary. A prewarmer needs the real path, because its own
	// /proc/self/exe is the prewarmer.
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
