// SPDX-License-Identifier: Apache-2.0

// This file gives the sentry the faults that TestStormFinds must find. Calls 1900 to 1903 cause
// the faults. Only that test builds this file into runsc-ext: see faulty in storm_test.go.
package main

import (
	"sync"

	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/syscalls/linux"
)

var (
	mu        sync.Mutex
	kept      [][]byte
	keepTasks bool
	keptTasks []*kernel.Task
)

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
		1903: func(t *kernel.Task) {
			mu.Lock()
			keepTasks = true
			mu.Unlock()
		},
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
	keepAt(linux.AMD64, 60) // exit
	keepAt(linux.ARM64, 93)
}

// keepAt changes a call: once keepTasks is set, the state of each task that makes the call stays
// in memory.
func keepAt(table *kernel.SyscallTable, nr uintptr) {
	call := table.Table[nr]
	exit := call.Fn
	call.Fn = func(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
		mu.Lock()
		if keepTasks {
			keptTasks = append(keptTasks, t)
		}
		mu.Unlock()
		return exit(t, sysno, args)
	}
	table.Table[nr] = call
	table.Init()
}
