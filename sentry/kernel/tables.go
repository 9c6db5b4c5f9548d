package kernel

import (
	"fmt"

	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/syscalls/linux"
)

// The syscall tables that a sandbox can run on. A sentry holds both, whatever it
// was compiled for, and uses the one of its architecture.
var (
	AMD64 = linux.AMD64
	ARM64 = linux.ARM64
)

// OCISeccomp is whether containers have the seccomp filters that their OCI profiles
// describe. Such a profile has names, and gVisor makes a filter of them for the calls
// of its own table alone. So an x32 call then has to pass under the number of its
// namesake as well: a profile that refuses a name has refused the call.
//
// It must be set before the sentry boots.
var OCISeccomp bool

// Add puts a system call into table at sysno, in place of one that gVisor names
// and does not implement. It returns an error if gVisor has come to implement
// sysno: then the two would shadow each other.
//
// Add must be called before the sentry boots: tables are not locked.
func Add(table *kernel.SyscallTable, sysno uintptr, sc kernel.Syscall) error {
	if old, ok := table.Table[sysno]; ok && old.SupportLevel != kernel.SupportUnimplemented && old.Name != sc.Name {
		return fmt.Errorf("system call %d of %v is %q in this gVisor (%v), so it cannot be %q: build with a gVisor version that does not implement %q, or switch %[5]q off", sysno, table.Arch, old.Name, old.SupportLevel, sc.Name, old.Name)
	}
	table.Table[sysno] = sc
	// Init fills the arrays that the sentry looks in. It was called when the
	// table was registered; to call it again does no harm while nothing is
	// traced yet.
	table.Init()
	return nil
}
