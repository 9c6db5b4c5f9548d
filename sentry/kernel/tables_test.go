package kernel

import (
	"fmt"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/syscalls"
)

// The two tables are the ones that a sentry runs on: entries in any other would
// be for nobody.
func TestTablesAreRegistered(t *testing.T) {
	for _, table := range []*kernel.SyscallTable{AMD64, ARM64} {
		if got, ok := kernel.LookupSyscallTable(table.OS, table.Arch); !ok || got != table {
			t.Errorf("the sentry's table for %v/%v is %p, not %p", table.OS, table.Arch, got, table)
		}
	}
}

// When gVisor comes to implement the number of an extension, a build must fail
// to start, not take a system call away from guests. The message is for whoever
// upgrades gVisor.
func TestAddRefusesImplementedNumber(t *testing.T) {
	for _, tc := range []struct {
		table *kernel.SyscallTable
		sysno uintptr
		name  string // gVisor's
	}{
		{AMD64, 39, "getpid"},
		{ARM64, 172, "getpid"},
		{AMD64, 56, "clone"}, // partially supported
	} {
		err := Add(tc.table, tc.sysno, syscalls.Supported("newcall", answer))
		if err == nil {
			t.Errorf("Add at %v %d, gVisor's %s, succeeded", tc.table.Arch, tc.sysno, tc.name)
			continue
		}
		for _, want := range []string{fmt.Sprint(tc.sysno), tc.table.Arch.String(), `"` + tc.name + `"`, `it cannot be "newcall"`, `switch "newcall" off`} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("Add at %v %d: %q does not say %s", tc.table.Arch, tc.sysno, err, want)
			}
		}
		if got := tc.table.LookupName(tc.sysno); got != tc.name {
			t.Errorf("%v %d is %s after a refused Add, want %s", tc.table.Arch, tc.sysno, got, tc.name)
		}
	}
}

// A call that was added is the one that the sentry finds, both in place of a
// name without an implementation and where gVisor has nothing.
func TestAdd(t *testing.T) {
	for _, tc := range []struct {
		table *kernel.SyscallTable
		sysno uintptr
	}{
		{AMD64, 134},  // uselib, unimplemented
		{AMD64, 1999}, // nothing
		{ARM64, 1999},
	} {
		for range 2 { // To add a call again is no conflict.
			if err := Add(tc.table, tc.sysno, syscalls.Supported("newcall", answer)); err != nil {
				t.Fatal(err)
			}
		}
		if got := tc.table.LookupName(tc.sysno); got != "newcall" {
			t.Errorf("%v %d is %s, want newcall", tc.table.Arch, tc.sysno, got)
		}
		fn := tc.table.Lookup(tc.sysno)
		if fn == nil {
			t.Errorf("%v %d has no function", tc.table.Arch, tc.sysno)
			continue
		}
		if got, _, err := fn(nil, tc.sysno, arch.SyscallArguments{}); got != 42 || err != nil {
			t.Errorf("%v %d answers %d, %v, want 42", tc.table.Arch, tc.sysno, got, err)
		}
	}
}

func answer(*kernel.Task, uintptr, arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
	return 42, nil, nil
}
