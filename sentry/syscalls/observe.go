// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
)

// Observe makes the sentry report calls of entries without installing the entries. The
// sentry calls called, and then does what gVisor does with the number. called runs on the
// task's goroutine, without locks, and must not block.
//
// Observe looks at the number alone. It reports an i386 number through SYSCALL as I386. It
// reports a number even if the program means the call that gVisor has there.
//
// Observe must be called at most once, before the sentry boots, and instead of Install.
func Observe(entries []Entry, called func(ABI)) {
	for _, e := range entries {
		table := tableOf(e.ABI)
		if table == nil {
			continue
		}
		sc, ok := table.Table[uintptr(e.Number)]
		if !ok {
			continue
		}
		fn := sc.Fn
		sc.Fn = func(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
			called(e.ABI)
			return fn(t, sysno, args)
		}
		table.Table[uintptr(e.Number)] = sc
		table.Init() // as in Install
	}
	observeABIs(entries, called)
}
