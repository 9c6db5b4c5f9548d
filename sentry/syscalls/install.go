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
// event, even if Linux implements the call. So a guest gains only the calls of the
// extension. In particular, a guest cannot make other calls through their x32 numbers,
// which is a known way around seccomp filters.
package syscalls

import (
	"errors"
	"fmt"

	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/syscalls/linux"
)

// ABI is an interface between programs and Linux that has a system call table.
type ABI int

const (
	// AMD64 is the ABI of SYSCALL. Linux takes the number from EAX and ignores the
	// upper bits of RAX.
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

	// WithoutStop returns arguments with which an untraced task can make the same
	// call without a stop, even if a tracer attaches meanwhile. It returns false if
	// the call may stop the task anyway, as clone with CLONE_VFORK does. If
	// WithoutStop is nil, the call never stops a task.
	WithoutStop func(args arch.SyscallArguments) (arch.SyscallArguments, bool)
}

// Options are options of Install.
type Options struct {
	// Sentry is set in a process that becomes a sentry. OCI seccomp profiles in that
	// process may name an entry's number by gVisor's own name for the number, and by
	// the name of the entry.
	Sentry bool
}

// earlierName is added to an entry's number to keep gVisor's own name for the number in
// the table. No task can call such a number. A profile that has the earlier name gets the
// right number, because gVisor cuts numbers of profiles to 32 bits
// (runsc/specutils/seccomp.lookupSyscallNo).
const earlierName = 1 << 32

// installed is set once Install has been called.
var installed bool

// Install puts entries into the tables that sandboxes run on. Entries of another
// architecture have no effect on calls, but "help syscalls" lists them.
//
// An error means that Install was called before, or that this gVisor version cannot take
// an entry: it implements the number itself, or uses a hook that x32 and i386 calls need.
//
// Install must be called at most once, before the sentry boots: tables have no locks.
func Install(opts Options, entries []Entry) error {
	if installed {
		return errors.New("Install was called before: pass the entries of all calls in one list")
	}
	installed = true
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
		// Init fills the arrays in which the sentry looks calls up. gVisor has called
		// Init before. A second call is harmless as long as nothing is traced.
		table.Init()
		if table == linux.AMD64 {
			if err := installABIs(entries, trace); err != nil {
				return err
			}
		}
	}
	if opts.Sentry {
		// The keys are added after Init, because they exceed its arrays (sentry.MaxSyscallNum).
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
