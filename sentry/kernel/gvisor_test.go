// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"reflect"
	"slices"
	"testing"

	gvisorlinux "gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"

	"runsc-ext/abi/linux"
)

// The tests named TestGVisor* are of gVisor, not of this package: each protects
// something that this package takes for granted and that gVisor does not promise.
// See docs/upgrading.md for what to do when one fails.

// Clone fills what it knows of the arguments of Task.Clone, and leaves the rest 0.
// A new field may need another value, and a field that is used in a new way may too.
func TestGVisorCloneArgs(t *testing.T) {
	want := []string{"Flags", "Pidfd", "ChildTID", "ParentTID", "ExitSignal", "Stack", "StackSize", "TLS", "SetTID", "SetTIDSize", "Cgroup"}
	var got []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[gvisorlinux.CloneArgs]()) {
		if f.Name != "_" {
			got = append(got, f.Name)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the arguments of Task.Clone are %v, and Clone was written for %v", got, want)
	}
}

// All flags of clone4 that are no error are flags of Task.Clone, by the same bits.
func TestGVisorCloneFlags(t *testing.T) {
	const flags = linux.CLONE4_VALID_FLAGS &^ linux.CSIGNAL
	if missing := uint64(flags &^ kernel.SupportedCloneFlags); missing != 0 {
		t.Errorf("Task.Clone refuses the flags %#x, which clone4 has", missing)
	}
}

// What Task.Clone refuses as an exit signal is what Signal.IsValid says, and 0 is no
// signal.
func TestGVisorSignals(t *testing.T) {
	for s := range 256 {
		if got, want := gvisorlinux.Signal(s).IsValid(), 1 <= s && s <= 64; got != want {
			t.Errorf("%d is a signal: %t, want %t", s, got, want)
		}
	}
}

// Handlers take the width of an argument from the accessor: Uint drops the upper
// half, and Uint64 and Pointer keep it and its sign bit.
func TestGVisorArguments(t *testing.T) {
	const value = 0xfedcba9887654321
	a := arch.SyscallArgument{Value: value}
	if got := a.Uint(); got != 0x87654321 {
		t.Errorf("Uint is %#x", got)
	}
	if got := a.Uint64(); got != value {
		t.Errorf("Uint64 is %#x", got)
	}
	if got := a.Pointer(); got != value {
		t.Errorf("Pointer is %#x", got)
	}
}

// Handlers copy into a scratch buffer of the task, and rely on its length: a longer
// one would be copied in whole, a shorter one would lose fields.
func TestGVisorScratchBuffer(t *testing.T) {
	task := new(kernel.Task)
	for _, size := range []int{2, 20, linux.SizeOfClone4Args, 1 << 12} {
		if got := len(task.CopyScratchBuffer(size)); got != size {
			t.Errorf("CopyScratchBuffer(%d) has %d bytes", size, got)
		}
	}
}
