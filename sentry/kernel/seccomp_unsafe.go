//go:build amd64

package kernel

import (
	_ "unsafe" // for go:linkname

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
)

// evaluateSyscallFilters returns what the seccomp filters of t say of a call, and
// does nothing about it. It is a method of kernel.Task that is not exported: the
// linker refuses a gVisor without it, and a test one in which it has another type.
//
//go:linkname evaluateSyscallFilters gvisor.dev/gvisor/pkg/sentry/kernel.(*Task).evaluateSyscallFilters
func evaluateSyscallFilters(t *kernel.Task, sysno int32, args arch.SyscallArguments, ip hostarch.Addr) uint32
