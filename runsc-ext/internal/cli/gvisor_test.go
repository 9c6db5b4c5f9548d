// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/sentry/platform"
	"gvisor.dev/gvisor/runsc/gvisorbinaries"

	"runsc-ext/test/sandbox"
)

// The tests named TestGVisor* test gVisor, not this package. Each checks something that this
// package relies on and that gVisor does not promise. See docs/upgrading.md for what to do if
// one fails.

// TestGVisorCommands checks that subcommandTable and this test know every subcommand of runsc.
// A subcommand that starts a sandbox and is missing in subcommandTable would boot a stock
// sentry where there is one, and would skip the check of the level.
func TestGVisorCommands(t *testing.T) {
	others := strings.Fields(`
		boot checkpoint cpu-features debug delete events exec export-metrics features flags fscheckpoint
		gofer help install kill list metric-metadata metric-server mitigate nvproxy pause port-forward profile
		ps read read-control resume spec start state statefile symbolize tar trace umount uninstall update
		usage wait write-control`)
	list, _, ok := strings.Cut(runscExt(t, "help"), "Additional help topics")
	if !ok {
		t.Fatalf("the output of help has another form: %s", list)
	}
	var commands []string
	for _, m := range regexp.MustCompile(`(?m)^\t(\S+)\s`).FindAllStringSubmatch(list, -1) {
		commands = append(commands, m[1])
	}
	for i, name := range commands {
		switch starts := subcommandTable[name].starts; {
		case slices.Contains(commands[:i], name):
			t.Errorf("runsc has two commands %q", name)
		case starts && slices.Contains(others, name):
			t.Errorf("subcommandTable says that command %q starts a sandbox, this test does not", name)
		case !starts && !slices.Contains(others, name):
			t.Errorf("command %q is new in gVisor: if it starts a sandbox, put it into subcommandTable; if it does not, into this test", name)
		}
	}
	for name := range subcommandTable {
		others = append(others, name)
	}
	for _, name := range others {
		if !slices.Contains(commands, name) {
			t.Errorf("runsc has no command %q any more", name)
		}
	}
}

// TestGVisorBwrap checks that a sandbox of bwrap has the extended sentry. Under the file name
// bwrap, runsc runs its subcommand bwrap, which parse does not see. That subcommand executes
// the binary again with a subcommand that parse sees.
func TestGVisorBwrap(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("without root, bwrap needs more of the machine than a sandbox does")
	}
	dir := t.TempDir()
	bwrap, sentry := sandbox.Install(t, dir, "bwrap"), filepath.Join(dir, "gvisor-bin", "gvisor_sentry")
	if err := os.Mkdir(filepath.Dir(sentry), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(sentry, []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	sandbox.Run(t, bwrap, "--ro-bind", "/", "/", "echo", "in the sandbox").Check(t, 0, "in the sandbox\n")
}

// TestGVisorGlobalFlags checks that parse knows every global flag of runsc. An unknown flag
// would keep parse from finding the subcommand.
func TestGVisorGlobalFlags(t *testing.T) {
	c := parse(nil)
	flags := regexp.MustCompile(`(?m)^  -(\S+)`).FindAllStringSubmatch(runscExt(t, "flags"), -1)
	if len(flags) < 50 {
		t.Fatalf("the output of flags has another form: %q", flags)
	}
	for _, f := range flags {
		if c.global.Lookup(f[1]) == nil {
			t.Errorf("parse does not know the global flag -%s", f[1])
		}
	}
	for _, name := range []string{"TESTONLY-unsafe-nonroot", "directfs", "log", "network", "oci-seccomp", "platform", "platform_device_path", "rootless"} {
		if c.global.Lookup(name) == nil {
			t.Errorf("runsc has no global flag -%s any more", name)
		}
	}
}

// TestGVisorSentryIsNobody checks that sentryIsNobody knows the names and values of the flags
// by which runsc decides whether the sentry runs as nobody.
func TestGVisorSentryIsNobody(t *testing.T) {
	root := os.Geteuid() == 0
	for _, tc := range []struct {
		flags string
		want  bool
	}{
		{flags: "", want: false},
		{flags: "--directfs", want: false},
		{flags: "--directfs=true --network=none", want: false},
		{flags: "--directfs=false", want: root},
		{flags: "--directfs=0 --network=none", want: root},
		{flags: "--directfs=F --network=sandbox", want: root},
		{flags: "--directfs=false --network host", want: false},
	} {
		t.Run(tc.flags, func(t *testing.T) {
			c := parse(append(strings.Fields(tc.flags), "do", "true"))
			if got := c.sentryIsNobody(); c.name != "do" || got != tc.want {
				t.Errorf("the sentry of command %q becomes nobody: %t, want %t", c.name, got, tc.want)
			}
		})
	}
}

// TestGVisorSidecars checks that gVisor has no sidecar binary that bootOwnSentry does not know.
// A new one may be a sentry, or execute one.
func TestGVisorSidecars(t *testing.T) {
	known := []string{"runsc-metric-server", "checkpointgofer", "gvisor_sentry", "gvisor-sentry-prewarmer"}
	var names []string
	for _, b := range gvisorbinaries.All {
		names = append(names, b.Name)
	}
	slices.Sort(known)
	slices.Sort(names)
	if !slices.Equal(names, known) {
		t.Errorf("gVisor's sidecar binaries are %q, want %q: is a new one a sentry?", names, known)
	}
	if !slices.Contains(gvisorbinaries.All, &gvisorbinaries.GvisorSentry) {
		t.Error("the sentry among gVisor's sidecar binaries is not the variable that bootOwnSentry sets")
	}
}

// TestGVisorHasKVM checks that gVisor registers the KVM platform before Main, which wraps it.
func TestGVisorHasKVM(t *testing.T) {
	if _, err := platform.Lookup("kvm"); err != nil {
		t.Error(err)
	}
}

// runscExt runs runsc-ext and returns its output.
func runscExt(t *testing.T, args ...string) string {
	t.Helper()
	bin, err := sandbox.Binary()
	if err != nil {
		t.Fatal(err)
	}
	r := sandbox.Run(t, bin, args...)
	if r.Status != 0 {
		t.Fatal(r)
	}
	return r.Stdout + r.Stderr
}
