// SPDX-License-Identifier: Apache-2.0

//go:build amd64

package syscalls

import (
	_ "unsafe" // for go:linkname

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
)

// evaluateSyscallFilters is an unexported method of kernel.Task. It returns the combined
// result of the seccomp filters of t for a call, and has no other effect.
//
// The declaration is sound: the linker rejects a gVisor version without the method, and
// TestTypeOfEvaluateSyscallFilters compares the types.
//
//go:linkname evaluateSyscallFilters gvisor.dev/gvisor/pkg/sentry/kernel.(*Task).evaluateSyscallFilters
func evaluateSyscallFilters(t *kernel.Task, sysno int32, args arch.SyscallArguments, ip hostarch.Addr) uint32
