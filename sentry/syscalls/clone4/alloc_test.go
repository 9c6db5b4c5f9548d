// SPDX-License-Identifier: Apache-2.0

package clone4

import (
	"errors"
	"testing"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
)

// refused are calls that the handler or the first check of kernel.Clone refuses. Both use
// only the scratch buffer of the task.
var refused = []struct {
	name string
	h    handler
	args arch.SyscallArguments
}{
	{name: "size", h: newHandler(LevelOn, 8), args: arch.SyscallArguments{{}, {}, {Value: 1 << 63}}},
	{name: "flag", h: newHandler(LevelOn, 8), args: arch.SyscallArguments{{Value: 1}}},
	{name: "compat size", h: newHandler(LevelOn, 4), args: arch.SyscallArguments{{}, {}, {Value: 1 << 31}}},
	{name: "compat flag", h: newHandler(LevelOn, 4), args: arch.SyscallArguments{{Value: 1}}},
	{name: "flag at level fd", h: newHandler(LevelFD, 8), args: arch.SyscallArguments{{Value: 1}}},
}

// TestNoAllocations checks that the handler does not allocate. A guest could repeat an
// allocation as often as it likes.
func TestNoAllocations(t *testing.T) {
	task := new(kernel.Task)
	for _, tc := range refused {
		t.Run(tc.name, func(t *testing.T) {
			var err error
			if n := testing.AllocsPerRun(100, func() { _, _, err = tc.h.clone4(task, 0, tc.args) }); n != 0 {
				t.Errorf("%v allocations, want none", n)
			}
			if !errors.Is(err, linuxerr.EINVAL) {
				t.Errorf("error %v, want EINVAL", err)
			}
		})
	}
}

func BenchmarkRefused(b *testing.B) {
	task := new(kernel.Task)
	for _, bc := range refused {
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bc.h.clone4(task, 0, bc.args)
			}
		})
	}
}
