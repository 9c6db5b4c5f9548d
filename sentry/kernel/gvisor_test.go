// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	gvisorlinux "gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"

	"runsc-ext/abi/linux"
	"runsc-ext/test/sandbox"
)

// The tests named TestGVisor* test gVisor, not this package. Each checks something that
// this package relies on and that gVisor does not promise. See docs/upgrading.md for what
// to do if one fails.

// TestGVisorCloneArgs checks that CloneArgs has no new field. Clone leaves fields that it does not
// set 0, and a new field may need another value.
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

// TestGVisorCloneFlags checks that Task.Clone supports every valid flag of clone4.
func TestGVisorCloneFlags(t *testing.T) {
	const flags = linux.CLONE4_VALID_FLAGS &^ linux.CSIGNAL
	if missing := uint64(flags &^ kernel.SupportedCloneFlags); missing != 0 {
		t.Errorf("Task.Clone refuses the flags %#x, which clone4 has", missing)
	}
}

// TestGVisorSignals checks that the valid signals are 1 to 64. Task.Clone refuses any exit signal
// but these and 0, so Clone passes 0 for an invalid one.
func TestGVisorSignals(t *testing.T) {
	for s := range 256 {
		if got, want := gvisorlinux.Signal(s).IsValid(), 1 <= s && s <= 64; got != want {
			t.Errorf("%d is a signal: %t, want %t", s, got, want)
		}
	}
}

// TestGVisorArguments checks that Uint drops the upper half of an argument, and that Uint64
// and Pointer keep it. Handlers choose the width of an argument by the accessor.
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

// TestGVisorScratchBuffer checks that a scratch buffer has the length that was asked for.
// Handlers fill the whole buffer: a longer one would read beyond the struct, a shorter one
// would lose fields.
func TestGVisorScratchBuffer(t *testing.T) {
	task := new(kernel.Task)
	for _, size := range []int{2, 20, linux.SizeOfClone4Args, 1 << 12} {
		if got := len(task.CopyScratchBuffer(size)); got != size {
			t.Errorf("CopyScratchBuffer(%d) has %d bytes", size, got)
		}
	}
}

// TestGVisorStatusOfReaped checks gVisor's source for what reapedStatusLocked relies on: the
// signal mutex orders every write of a status before the HUP of the pidfds, and a signal to a dead
// task writes nothing.
func TestGVisorStatusOfReaped(t *testing.T) {
	for _, fn := range []struct {
		file, name string
		order      []string // code that must appear in this order
	}{
		{"task_exit.go", "exitNotifyLocked", []string{
			"\tt.advanceExitStateLocked(TaskExitZombie, TaskExitDead)\n",
			"\tt.tg.signalHandlers.mu.Lock()\n",
			"\tt.tg.signalHandlers.mu.Unlock()\n",
			"\tt.notifyPIDFDsOnDeathLocked()\n",
		}},
		{"task_signals.go", "sendSignalTimerLocked", []string{
			"\tif t.ExitState() == TaskExitDead {\n\t\treturn linuxerr.ESRCH\n",
			"\tt.tg.applySignalSideEffectsLocked(sig)\n",
		}},
	} {
		t.Run(fn.name, func(t *testing.T) {
			src := sandbox.GVisorSource(t, "pkg/sentry/kernel/"+fn.file)
			_, body, found := strings.Cut(src, "\nfunc (t *Task) "+fn.name+"(")
			if !found {
				t.Fatalf("gVisor's %s has no method %s of Task", fn.file, fn.name)
			}
			body, _, _ = strings.Cut(body, "\n}\n")
			for _, code := range fn.order {
				if _, body, found = strings.Cut(body, code); !found {
					t.Fatalf("gVisor's %s does not have %q at its place; read it, and then reapedStatusLocked", fn.name, code)
				}
			}
		})
	}
}
