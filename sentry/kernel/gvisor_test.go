package kernel

import (
	"reflect"
	"slices"
	"testing"

	"gvisor.dev/gvisor/pkg/abi"
	gvisorlinux "gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/abi/sentry"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/platform"

	"runsc-ext/abi/linux"
)

// The tests named TestGVisor* are of gVisor, not of this package: each protects
// something that this package takes for granted and that gVisor does not promise.
// See docs/upgrading.md for what to do when one fails.

// newTable returns a table of gVisor's type that no sandbox runs on, with one call.
func newTable(present uintptr) *kernel.SyscallTable {
	table := &kernel.SyscallTable{
		OS:    abi.Linux,
		Arch:  arch.Host,
		Table: map[uintptr]kernel.Syscall{present: {Name: "present", Fn: answer}},
	}
	table.Init()
	return table
}

// Add and InstallABIs change tables that have been registered: what was there stays,
// and what is new is found, also where there was something else.
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

// The slots are taken out of the map once they are in the array, so that nothing
// lists them: they are called all the same, and are no missing calls.
func TestGVisorCallsWithoutMap(t *testing.T) {
	const slot = 7
	table := newTable(1)
	table.Table[slot] = kernel.Syscall{Name: "slot", Fn: answer}
	table.Init()
	delete(table.Table, slot)
	if table.Lookup(slot) == nil {
		t.Error("a call that was deleted from the map is not called any more: the slots are lost")
	}
	table.FeatureEnable.Enable(kernel.ExternalBeforeEnable, nil, true)
	if table.FeatureEnable.Word(slot)&kernel.ExternalBeforeEnable != 0 {
		t.Error("a call that was deleted from the map counts as missing: a call sent to a slot would be sent on for ever")
	}
}

// The hook before missing calls is asked about every number that has no call, small
// or large, and about no other: those must not pay for it.
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

// What is registered last under a platform's name is that platform.
func TestGVisorPlatformIsReplaced(t *testing.T) {
	type constructor struct {
		platform.Constructor
		n int
	}
	const name = "test-replaced"
	platform.Register(name, constructor{n: 1})
	platform.Register(name, constructor{n: 2})
	got, err := platform.Lookup(name)
	if err != nil || got != (constructor{n: 2}) {
		t.Errorf("Lookup finds %+v, %v, want the second that was registered", got, err)
	}
}
