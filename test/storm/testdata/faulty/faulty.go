// SPDX-License-Identifier: Apache-2.0

// The faults that the test of the storm has to find, as system calls of the sentry.
// This file is built into runsc-ext for that test alone; see faulty in storm_test.go.
package main

import (
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/syscalls/linux"
)

var kept [][]byte

func init() {
	for nr, fault := range map[uintptr]func(t *kernel.Task){
		1900: func(t *kernel.Task) { t.FSContext().IncRef() },
		1901: func(t *kernel.Task) {
			b := make([]byte, 16<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			kept = append(kept, b)
		},
		1902: func(t *kernel.Task) { panic("fault 1902") },
	} {
		call := kernel.Syscall{Name: "fault", Fn: func(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
			fault(t)
			return 0, nil, nil
		}}
		for _, table := range []*kernel.SyscallTable{linux.AMD64, linux.ARM64} {
			table.Table[nr] = call
			table.Init()
		}
	}
}
