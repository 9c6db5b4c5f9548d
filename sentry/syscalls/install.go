// SPDX-License-Identifier: Apache-2.0

// Package syscalls puts system calls of an extension into the tables of gVisor's
// sentry.
//
// gVisor has one table for each architecture: amd64 and arm64. Linux has two more on
// amd64, x32 and i386, and it takes an amd64 number from EAX, where gVisor takes all
// of RAX. Install serves all of them from one list of entries. An amd64 or arm64 entry
// goes into gVisor's table. Every other call reaches the table as a missing number;
// see abi_amd64.go for how it becomes a call.
//
// Any number without an entry returns ENOSYS and emits gVisor's unimplemented-syscall
// event, even if Linux implements the call. So a guest gains nothing but the calls of
// the extension. In particular, the x32 ABI renames every amd64 call, which is a known
// way around seccomp filters.
package syscalls

import (
	"fmt"

	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/syscalls/linux"
)

// ABI is an interface between programs and Linux that has a system call table.
type ABI int

const (
	// AMD64 is the ABI of SYSCALL. Linux takes the number from EAX, so upper bits
	// of RAX that are set do not matter.
	AMD64 ABI = iota

	// X32 is the ABI of SYSCALL with linux.X32_SYSCALL_BIT set in the number.
	// Arguments are in the registers of AMD64; words in memory have 32 bits.
	X32

	// I386 is the ABI of INT $0x80. Arguments are the lower halves of registers.
	//
	// A task with a seccomp filter does not have this ABI. gVisor shows the filter
	// an i386 call as an amd64 call with another number, so a filter that refuses
	// i386 by its architecture would let the call pass.
	I386

	// ARM64 is the ABI of SVC.
	ARM64
)

// Entry is an entry in the system call table of an ABI.
type Entry struct {
	ABI    ABI
	Number uint32 // without X32_SYSCALL_BIT
	Call   Call
}

// Call is a system call.
type Call struct {
	kernel.Syscall

	// Format formats the arguments for strace.
	Format Format

	// WithoutStop returns arguments with which an untraced task makes the same call
	// and never stops in it, even if a tracer attaches meanwhile. It returns false
	// if the call may stop the task, as clone with CLONE_VFORK does. If WithoutStop
	// is nil, the call never stops a task.
	WithoutStop func(args arch.SyscallArguments) (arch.SyscallArguments, bool)
}

// Options are options of Install.
type Options struct {
	// Sentry is set in a process that becomes a sentry. An OCI seccomp profile that
	// the sentry compiles may then use the name that gVisor has for a number, as
	// well as the name of the call that took the number over.
	Sentry bool
}

// earlierName marks the keys of names that gVisor has for the numbers of entries. gVisor
// cuts the number that it looks up for a profile to 32 bits
// (runsc/specutils/seccomp.lookupSyscallNo), and no task can call such a number.
const earlierName = 1 << 32

// Install puts entries into the tables that sandboxes run on. Those of another
// architecture than this sentry's have no effect, but gVisor lists them.
//
// An error means that this gVisor version cannot take an entry: it implements the
// number itself, or it has come to use a hook that x32 and i386 calls need.
//
// Install must be called at most once, before the sentry boots: tables have no locks.
func Install(opts Options, entries []Entry) error {
	earlier := make(map[*kernel.SyscallTable]map[uintptr]kernel.Syscall)
	for _, table := range []*kernel.SyscallTable{linux.AMD64, linux.ARM64} {
		earlier[table] = make(map[uintptr]kernel.Syscall)
		calls := make(map[uintptr]Call)
		for _, e := range entries {
			if tableOf(e.ABI) != table {
				continue
			}
			sysno := uintptr(e.Number)
			old, ok := table.Table[sysno]
			if ok && old.SupportLevel != kernel.SupportUnimplemented {
				return fmt.Errorf("system call %d of %v is %q in this gVisor (%v), so it cannot be %q: build with a gVisor version that does not implement %q, or switch %[5]q off", sysno, table.Arch, old.Name, old.SupportLevel, e.Call.Name, old.Name)
			}
			if ok {
				earlier[table][sysno] = old
			}
			table.Table[sysno] = e.Call.Syscall
			calls[sysno] = e.Call
		}
		trace, err := traceCalls(table, calls)
		if err != nil {
			return err
		}
		// Init fills the arrays that the sentry looks in. gVisor has called Init
		// before. A second call does no harm while nothing is traced.
		table.Init()
		if table == linux.AMD64 {
			if err := installABIs(entries, trace); err != nil {
				return err
			}
		}
	}
	if opts.Sentry {
		// After Init, whose arrays end at sentry.MaxSyscallNum.
		for table, calls := range earlier {
			for sysno, old := range calls {
				table.Table[earlierName|sysno] = old
			}
		}
	}
	return nil
}

// tableOf returns gVisor's table for an ABI, or nil if gVisor has none.
func tableOf(abi ABI) *kernel.SyscallTable {
	switch abi {
	case AMD64:
		return linux.AMD64
	case ARM64:
		return linux.ARM64
	}
	return nil
}
