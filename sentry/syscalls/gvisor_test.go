// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"testing"

	"gvisor.dev/gvisor/pkg/abi"
	"gvisor.dev/gvisor/pkg/abi/sentry"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
)

// The tests named TestGVisor* test gVisor, not this package. Each checks something that this
// package relies on and that gVisor does not promise. See docs/upgrading.md for what to do if
// one fails.

// newTable returns a table with one call, which no sandbox uses.
func newTable(present uintptr) *kernel.SyscallTable {
	table := &kernel.SyscallTable{
		OS:    abi.Linux,
		Arch:  arch.Host,
		Table: map[uintptr]kernel.Syscall{present: {Name: "present", Fn: answer}},
	}
	table.Init()
	return table
}

// TestGVisorInitMayRunAgain checks that a second Init keeps the entries of a table, and finds
// added and replaced entries.
func TestGVisorInitMayRunAgain(t *testing.T) {
	table := newTable(1)
	other := func(*kernel.Task, uintptr, arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
		return 43, nil, nil
	}
	table.Table[2] = kernel.Syscall{Name: "added", Fn: answer}
	table.Init()
	table.Table[2] = kernel.Syscall{Name: "replaced", Fn: other}
	table.Init()
	for sysno, want := range map[uintptr]uintptr{1: 42, 2: 43} {
		fn := table.Lookup(sysno)
		if fn == nil {
			t.Errorf("system call %d is not found after a second Init", sysno)
			continue
		}
		if got, _, _ := fn(nil, sysno, arch.SyscallArguments{}); got != want {
			t.Errorf("system call %d answers %d after a second Init, want %d", sysno, got, want)
		}
	}
}

// TestGVisorCallsWithoutMap checks that gVisor still calls a call that was deleted from the
// map after Init, and does not count it as missing. The slot is such a call.
func TestGVisorCallsWithoutMap(t *testing.T) {
	const slot = 7
	table := newTable(1)
	table.Table[slot] = kernel.Syscall{Name: "slot", Fn: answer}
	table.Init()
	delete(table.Table, slot)
	if table.Lookup(slot) == nil {
		t.Error("a call that was deleted from the map is not called any more: the slot is lost")
	}
	table.FeatureEnable.Enable(kernel.ExternalBeforeEnable, nil, true)
	if table.FeatureEnable.Word(slot)&kernel.ExternalBeforeEnable != 0 {
		t.Error("a call that was deleted from the map counts as missing: a call in the slot would be sent to the slot again without end")
	}
}

// TestGVisorHookOfMissingCalls checks that gVisor asks the hook about every number without a
// call, small or large, and about no other number.
func TestGVisorHookOfMissingCalls(t *testing.T) {
	const present = 1
	table := newTable(present)
	if word := table.FeatureEnable.Word(sentry.MaxSyscallNum + 1); word != 0 {
		t.Errorf("missing calls have the features %#x in a new table, want none", word)
	}
	table.FeatureEnable.Enable(kernel.ExternalBeforeEnable, nil, true)
	for _, sysno := range []uintptr{0, 2, sentry.MaxSyscallNum, sentry.MaxSyscallNum + 1, 0x40000222, 0x86000167, 0xdeadbeef00000143, ^uintptr(0)} {
		if table.FeatureEnable.Word(sysno)&kernel.ExternalBeforeEnable == 0 {
			t.Errorf("the hook is not asked about missing call %#x", sysno)
		}
		if table.Lookup(sysno) != nil {
			t.Errorf("missing call %#x has a function", sysno)
		}
	}
	if table.FeatureEnable.Word(present)&kernel.ExternalBeforeEnable != 0 {
		t.Error("the hook is asked about a call that is there")
	}
}
