// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/syscalls"
	"gvisor.dev/gvisor/pkg/sentry/syscalls/linux"
)

// keepTables undoes Install at the end of a test.
func keepTables(t *testing.T) {
	for _, table := range []*kernel.SyscallTable{linux.AMD64, linux.ARM64} {
		entries, missing := maps.Clone(table.Table), table.Missing
		t.Cleanup(func() {
			table.Table = entries
			table.Missing, table.External, table.ExternalFilterBefore = missing, nil, nil
			table.FeatureEnable.Enable(kernel.ExternalBeforeEnable, nil, false)
			table.Init()
		})
	}
	t.Cleanup(func() { installed = false })
}

// newCall returns a call that returns 42.
func newCall(name string) Call {
	return Call{
		Syscall: syscalls.Supported(name, answer),
		Format:  func(*kernel.Task, arch.SyscallArguments) []string { return nil },
	}
}

func answer(*kernel.Task, uintptr, arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
	return 42, nil, nil
}

// TestTablesAreRegistered checks that a sentry runs on the two tables that Install changes.
func TestTablesAreRegistered(t *testing.T) {
	for _, table := range []*kernel.SyscallTable{linux.AMD64, linux.ARM64} {
		if got, ok := kernel.LookupSyscallTable(table.OS, table.Arch); !ok || got != table {
			t.Errorf("the sentry's table for %v/%v is %p, not %p", table.OS, table.Arch, got, table)
		}
	}
}

// TestInstallRefusesImplementedNumber checks that Install refuses a number that gVisor
// implements, so that no build takes a system call away from guests.
func TestInstallRefusesImplementedNumber(t *testing.T) {
	for _, tc := range []struct {
		name   string // gVisor's
		abi    ABI
		number uint32
	}{
		{name: "getpid", abi: AMD64, number: 39},
		{name: "getpid", abi: ARM64, number: 172},
		{name: "clone", abi: AMD64, number: 56}, // partially supported
	} {
		table := tableOf(tc.abi)
		t.Run(fmt.Sprintf("%v,%s", table.Arch, tc.name), func(t *testing.T) {
			keepTables(t)
			err := Install(Options{}, []Entry{{ABI: tc.abi, Number: tc.number, Call: newCall("newcall")}})
			if err == nil {
				t.Fatal("Install succeeded")
			}
			for _, want := range []string{fmt.Sprint(tc.number), table.Arch.String(), `"` + tc.name + `"`, `it cannot be "newcall"`, `switch "newcall" off`} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %s", err, want)
				}
			}
			if got := table.LookupName(uintptr(tc.number)); got != tc.name {
				t.Errorf("the number is %s after a refused Install, want %s", got, tc.name)
			}
		})
	}
}

// TestInstallTwice checks that the error for a second call names the mistake, instead of
// blaming gVisor for the entries of the first call.
func TestInstallTwice(t *testing.T) {
	keepTables(t)
	entries := []Entry{{ABI: AMD64, Number: 1999, Call: newCall("newcall")}}
	if err := Install(Options{}, entries); err != nil {
		t.Fatal(err)
	}
	if err := Install(Options{}, entries); err == nil || !strings.Contains(err.Error(), "Install was called before") {
		t.Errorf("the error of a second Install is %v, want one that says that Install was called before", err)
	}
}

// TestInstall checks that the sentry finds an entry at a number that gVisor lists as
// unimplemented, and at a number that gVisor does not list.
func TestInstall(t *testing.T) {
	for _, tc := range []struct {
		name   string
		abi    ABI
		number uint32
	}{
		{name: "uselib, unimplemented", abi: AMD64, number: 134},
		{name: "no call of amd64", abi: AMD64, number: 1999},
		{name: "no call of arm64", abi: ARM64, number: 1999},
	} {
		t.Run(tc.name, func(t *testing.T) {
			keepTables(t)
			if err := Install(Options{}, []Entry{{ABI: tc.abi, Number: tc.number, Call: newCall("newcall")}}); err != nil {
				t.Fatal(err)
			}
			table, sysno := tableOf(tc.abi), uintptr(tc.number)
			if got := table.LookupName(sysno); got != "newcall" {
				t.Errorf("%v %d is %s, want newcall", table.Arch, sysno, got)
			}
			fn := table.Lookup(sysno)
			if fn == nil {
				t.Fatalf("%v %d has no function", table.Arch, sysno)
			}
			if got, _, err := fn(nil, sysno, arch.SyscallArguments{}); got != 42 || err != nil {
				t.Errorf("%v %d returns %d, %v, want 42", table.Arch, sysno, got, err)
			}
		})
	}
}

// TestInstallKeepsEarlierName checks that in a sentry, and nowhere else, gVisor's own name for
// a number still finds the number. An OCI profile that refuses that name refuses the number.
func TestInstallKeepsEarlierName(t *testing.T) {
	for _, sentry := range []bool{false, true} {
		t.Run(fmt.Sprintf("sentry %t", sentry), func(t *testing.T) {
			keepTables(t)
			table, listed := linux.AMD64, len(linux.AMD64.Table)
			if err := Install(Options{Sentry: sentry}, []Entry{{ABI: AMD64, Number: 134, Call: newCall("newcall")}}); err != nil {
				t.Fatal(err)
			}
			if nr, err := table.LookupNo("newcall"); uint32(nr) != 134 || err != nil {
				t.Errorf("newcall has the number %#x, %v, want 134", nr, err)
			}
			nr, err := table.LookupNo("uselib")
			if found := err == nil && uint32(nr) == 134; found != sentry {
				t.Errorf("uselib has the number %#x, %v; found as 134: %t, want %t", nr, err, found, sentry)
			}
			if !sentry && len(table.Table) != listed {
				t.Errorf("gVisor lists %d calls, want %d as before", len(table.Table), listed)
			}
		})
	}
}
