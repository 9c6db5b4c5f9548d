package cli

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/sentry/platform"
	"gvisor.dev/gvisor/runsc/gvisorbinaries"

	"runsc-ext/test/sandbox"
)

// The tests named TestGVisor* are of gVisor, not of this package: each protects
// something that this package takes for granted and that gVisor does not promise.
// See docs/upgrading.md for what to do when one fails.

// Every command is known: which ones start a sandbox, and which do not. One that
// starts a sandbox and is not in startsSandbox boots a stock sentry where there is
// one, and takes the operator's level for granted.
func TestGVisorCommands(t *testing.T) {
	others := strings.Fields(`
		boot checkpoint cpu-features debug delete events exec export-metrics features flags fscheckpoint
		gofer help install kill list metric-metadata metric-server mitigate nvproxy pause port-forward profile
		ps read read-control resume spec start state statefile symbolize tar trace umount uninstall update
		usage wait write-control`)
	starting := strings.Fields("bwrap create do probe restore run sandboxexec")
	list, _, ok := strings.Cut(runscExt(t, "help"), "Additional help topics")
	if !ok {
		t.Fatalf("the output of help has another form: %s", list)
	}
	var commands []string
	for _, line := range regexp.MustCompile(`(?m)^\t(\S+)\s`).FindAllStringSubmatch(list, -1) {
		commands = append(commands, line[1])
	}
	for i, name := range commands {
		inv := invocation{command: name}
		switch starts := inv.startsSandbox(); {
		case slices.Contains(commands[:i], name):
			t.Errorf("there are two commands %q", name)
		case starts != slices.Contains(starting, name):
			t.Errorf("command %q starts a sandbox: %t, and this test does not think so", name, starts)
		case !starts && !slices.Contains(others, name):
			t.Errorf("command %q is new in gVisor: if it starts a sandbox, put it into startsSandbox; if it does not, into this test", name)
		}
	}
	for _, name := range append(starting, others...) {
		if !slices.Contains(commands, name) {
			t.Errorf("there is no command %q any more", name)
		}
	}
}

// Under the name bwrap, runsc is its command of that name, which parse does not see.
// That command makes its sandbox by executing the binary again, with a command that
// parse does see, and so with the extended sentry.
func TestGVisorBwrap(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("without root, bwrap needs more of the machine than a sandbox does")
	}
	bin, err := sandbox.Binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	bwrap, sidecars := filepath.Join(dir, "bwrap"), filepath.Join(dir, "gvisor-bin")
	b, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		os.WriteFile(bwrap, b, 0o755),
		os.Mkdir(sidecars, 0o755),
		os.WriteFile(filepath.Join(sidecars, "gvisor_sentry"), []byte("#!/bin/sh\nexit 1\n"), 0o755),
	)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, bwrap, "--ro-bind", "/", "/", "echo", "in the sandbox").CombinedOutput()
	if err != nil || string(out) != "in the sandbox\n" {
		t.Errorf("%q, %v: a stock sentry has taken the place of ours, or bwrap does not start", out, err)
	}
}

// Every global flag of runsc is one that parse knows. With one that it does not, it
// would not find the command after it.
func TestGVisorGlobalFlags(t *testing.T) {
	inv := parse(nil)
	flags := regexp.MustCompile(`(?m)^  -(\S+)`).FindAllStringSubmatch(runscExt(t, "flags"), -1)
	if len(flags) < 50 {
		t.Fatalf("the output of flags has another form: %q", flags)
	}
	for _, f := range flags {
		if inv.global.Lookup(f[1]) == nil {
			t.Errorf("parse does not know the global flag -%s", f[1])
		}
	}
	for _, name := range []string{"TESTONLY-unsafe-nonroot", "directfs", "log", "network", "oci-seccomp", "platform", "platform_device_path", "rootless"} {
		if inv.global.Lookup(name) == nil {
			t.Errorf("runsc has no global flag -%s any more", name)
		}
	}
}

// The flags by which runsc decides whether the sentry becomes nobody have the names
// and values that sentryIsNobody looks for.
func TestGVisorSentryIsNobody(t *testing.T) {
	root := os.Geteuid() == 0
	for flags, want := range map[string]bool{
		"":                                false,
		"--directfs":                      false,
		"--directfs=true --network=none":  false,
		"--directfs=false":                root,
		"--directfs=0 --network=none":     root,
		"--directfs=F --network=sandbox":  root,
		"--directfs=false --network host": false,
	} {
		inv := parse(append(strings.Fields(flags), "do", "true"))
		if got := inv.sentryIsNobody(); inv.command != "do" || got != want {
			t.Errorf("%q: the sentry of command %q becomes nobody: %t, want %t", flags, inv.command, got, want)
		}
	}
}

// bootOwnSentry knows every program that gVisor may boot as a sentry, and the one
// that executes it.
func TestGVisorSidecars(t *testing.T) {
	known := []string{"runsc-metric-server", "checkpointgofer", "gvisor_sentry", "gvisor-sentry-prewarmer"}
	var names []string
	for _, b := range gvisorbinaries.All {
		names = append(names, b.Name)
	}
	slices.Sort(known)
	slices.Sort(names)
	if !slices.Equal(names, known) {
		t.Errorf("gVisor's other programs are %q, want %q: is a new one a sentry?", names, known)
	}
	if !slices.Contains(gvisorbinaries.All, &gvisorbinaries.GvisorSentry) {
		t.Error("the sentry among gVisor's other programs is not the variable that bootOwnSentry sets")
	}
}

// Platforms are registered before Main: the one for KVM is replaced then.
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
	out, err := exec.CommandContext(t.Context(), bin, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("runsc-ext %v: %v\n%s", args, err, out)
	}
	return string(out)
}
