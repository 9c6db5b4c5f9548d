// SPDX-License-Identifier: Apache-2.0

// Package linux has what programs need to call clone4: the syscall number on each
// ABI, the flags, and the args struct. It imports nothing.
//
//	long clone4(unsigned flags_high, unsigned flags_low,
//	            unsigned long args_size, struct clone4_args *args);
//
// clone4 is clone(2) with 64 flag bits, in two words, and with the other
// arguments in a struct that can grow. The caller passes the size of its struct.
// Every field that the caller does not pass is 0, and a struct larger than the
// kernel's is EINVAL. The low byte of flags_low is the signal that the parent
// gets when the child exits.
//
// Names and values are those of "[PATCH v2 3/7] Introduce a new clone4 syscall
// with more flag bits and extensible arguments" (Josh Triplett, March 2015). The
// patch takes the flags of clone(2) from released kernels.
//
// # Import from another module
//
// The go command cannot download the module runsc-ext yet. A module that imports this
// package names a local copy of the source:
//
//	go mod edit -require=runsc-ext@v0.0.0 -replace=runsc-ext=/path/to/runsc-ext
//
// The package needs no other module.
package linux

// Numbers of clone4 on each ABI. SYS_CLONE4, on amd64 and arm64, is the number for
// the architecture that the program is compiled for.
const (
	// SYS_CLONE4_AMD64 is for the 64-bit SYSCALL instruction: syscall_64.tbl,
	// "64". Released kernels have userfaultfd(2) there.
	SYS_CLONE4_AMD64 = 323

	// SYS_CLONE4_X32 is for the SYSCALL instruction and a compat struct:
	// syscall_64.tbl, "x32". Released kernels have preadv2(2) there.
	SYS_CLONE4_X32 = X32_SYSCALL_BIT + 546

	// SYS_CLONE4_I386 is for INT $0x80: syscall_32.tbl. Released kernels have
	// socket(2) there.
	SYS_CLONE4_I386 = 359

	// SYS_CLONE4_GENERIC is for arm64 and the other users of
	// asm-generic/unistd.h. Released kernels have userfaultfd(2) there.
	SYS_CLONE4_GENERIC = 282

	// X32_SYSCALL_BIT marks the number of an x32 call. It is __X32_SYSCALL_BIT
	// in arch/x86/include/uapi/asm/unistd.h.
	X32_SYSCALL_BIT = 0x40000000
)

// Flags in the low word, from include/uapi/linux/sched.h. They have the meaning
// that clone(2) documents.
const (
	// CSIGNAL masks the child's exit signal. clone4 accepts any value: 0 and
	// values above 64 mean "no signal".
	CSIGNAL = 0x000000ff

	CLONE_VM             = 0x00000100 // share memory
	CLONE_FS             = 0x00000200 // share root, working directory, umask
	CLONE_FILES          = 0x00000400 // share the file descriptor table
	CLONE_SIGHAND        = 0x00000800 // share signal handlers; needs CLONE_VM
	CLONE_PTRACE         = 0x00002000 // trace the child if the caller is traced
	CLONE_VFORK          = 0x00004000 // wait until the child execs or exits
	CLONE_PARENT         = 0x00008000 // the child's parent is the caller's
	CLONE_THREAD         = 0x00010000 // same thread group; needs CLONE_SIGHAND
	CLONE_NEWNS          = 0x00020000 // new mount namespace; not with CLONE_FS
	CLONE_SYSVSEM        = 0x00040000 // share System V SEM_UNDO values
	CLONE_SETTLS         = 0x00080000 // set the child's TLS from the struct
	CLONE_PARENT_SETTID  = 0x00100000 // write the child's ID to *ptid
	CLONE_CHILD_CLEARTID = 0x00200000 // clear *ctid at the child's exit, wake a futex
	CLONE_UNTRACED       = 0x00800000 // a tracer cannot force CLONE_PTRACE
	CLONE_CHILD_SETTID   = 0x01000000 // write the child's ID to *ctid
	CLONE_NEWUTS         = 0x04000000 // new UTS namespace
	CLONE_NEWIPC         = 0x08000000 // new IPC namespace; not with CLONE_SYSVSEM
	CLONE_NEWUSER        = 0x10000000 // new user namespace; not with CLONE_FS
	CLONE_NEWPID         = 0x20000000 // new PID namespace; not with CLONE_THREAD
	CLONE_NEWNET         = 0x40000000 // new network namespace
	CLONE_IO             = 0x80000000 // share the I/O context
)

// Flags that clone(2) once had. Today clone(2) ignores them, or gives their bits
// another meaning (CLONE_PIDFD, CLONE_NEWCGROUP). clone4 refuses them, which keeps
// the bits free for later flags.
const (
	CLONE_PID      = 0x00001000
	CLONE_DETACHED = 0x00400000
	CLONE_STOPPED  = 0x02000000
)

// CLONE_VALID_FLAGS are the flags of clone(2), including CSIGNAL.
const CLONE_VALID_FLAGS = 0xffffffff &^ (CLONE_PID | CLONE_DETACHED | CLONE_STOPPED)

// CLONE4_VALID_FLAGS are the flags that clone4 accepts. Any other flag is EINVAL.
// No flag uses the upper 32 bits yet.
const CLONE4_VALID_FLAGS uint64 = CLONE_VALID_FLAGS

// Flags from later patches of the same author. They are valid only in sandboxes in
// which the operator allows them; see Clone4FDArgs and docs/clonefd.md. They reuse
// the bits of CLONE_PID and CLONE_DETACHED.
const (
	// CLONE_AUTOREAP makes the child reap itself when it exits: the child is
	// never a zombie, and no wait call returns it. Its exit signal is sent.
	CLONE_AUTOREAP = 0x00001000

	// CLONE_FD gives the caller a file descriptor from which the child's exit
	// can be read. It is EINVAL with CLONE_THREAD.
	CLONE_FD = 0x00400000
)

// CLONE4_FD_VALID_FLAGS are the flags that clone4 accepts with Clone4FDArgs.
const CLONE4_FD_VALID_FLAGS = CLONE4_VALID_FLAGS | CLONE_AUTOREAP | CLONE_FD

// Flags of Clone4FDArgs.ClonefdFlags. The first two can be written as O_CLOEXEC and
// O_NONBLOCK of open(2) as well; any other flag is EINVAL.
const (
	CLONEFD_CLOEXEC       = 0x1 // close the descriptor on execve(2)
	CLONEFD_NONBLOCK      = 0x2 // read(2) from the descriptor does not wait
	CLONEFD_KILL_ON_CLOSE = 0x4 // closing the last reference kills the child
)

// Requests of ioctl(2) on a descriptor of CLONE_FD. They return the child's thread
// and process ID in the caller's PID namespace, or 0 once the child is reaped.
const (
	CLONEFD_IOC_GETTID = 0x4301 // _IO('C', 1)
	CLONEFD_IOC_GETPID = 0x4302 // _IO('C', 2)
)

// Clone4Args is struct clone4_args for a 64-bit word.
type Clone4Args struct {
	// Ptid is where CLONE_PARENT_SETTID writes the child's ID (4 bytes), in
	// the caller's memory. A bad address is not an error: nothing is written.
	Ptid uint64

	// Ctid is where CLONE_CHILD_SETTID writes the child's ID (4 bytes), in the
	// child's memory, and where CLONE_CHILD_CLEARTID clears it. A bad address is
	// not an error.
	Ctid uint64

	// StackStart is the child's stack pointer; 0 means the caller's. clone3(2)
	// takes the lowest address of the stack instead.
	StackStart uint64

	// StackSize is accepted and not used.
	StackSize uint64

	// TLS is the child's thread pointer if CLONE_SETTLS is set: the FS base on
	// x86, TPIDR_EL0 on arm64. An address that is invalid there is EPERM.
	TLS uint64
}

// SizeOfClone4Args is the size of Clone4Args in bytes.
const SizeOfClone4Args = 40

// CompatClone4Args is struct compat_clone4_args, which x32 and i386 pass. It is
// Clone4Args with 32-bit words.
type CompatClone4Args struct {
	Ptid       uint32
	Ctid       uint32
	StackStart uint32
	StackSize  uint32
	TLS        uint32
}

// SizeOfCompatClone4Args is the size of CompatClone4Args in bytes.
const SizeOfCompatClone4Args = 20

// Clone4FDArgs is struct clone4_args with the fields of CLONE_FD. In a sandbox that
// does not allow CLONE_FD, its size is EINVAL, and Clone4Args still works.
type Clone4FDArgs struct {
	Clone4Args

	// Clonefd is where CLONE_FD writes the descriptor (4 bytes), in the caller's
	// memory. Unlike for Ptid, a bad address is EFAULT, and no child is created.
	Clonefd uint64

	// ClonefdFlags are the CLONEFD flags. They are ignored without CLONE_FD.
	ClonefdFlags uint32

	_ uint32
}

// SizeOfClone4FDArgs is the size of Clone4FDArgs in bytes.
const SizeOfClone4FDArgs = 56

// CompatClone4FDArgs is Clone4FDArgs with 32-bit words.
type CompatClone4FDArgs struct {
	CompatClone4Args
	Clonefd      uint32
	ClonefdFlags uint32
}

// SizeOfCompatClone4FDArgs is the size of CompatClone4FDArgs in bytes.
const SizeOfCompatClone4FDArgs = 28

// ClonefdInfo is struct clonefd_info, which read(2) returns once the child has exited.
type ClonefdInfo struct {
	Code   int32  // as si_code of SIGCHLD: CLD_EXITED, CLD_KILLED or CLD_DUMPED
	Status int32  // as si_status: the exit status or the signal
	Utime  uint64 // user time of the child, in microseconds
	Stime  uint64 // system time of the child, in microseconds
}

// SizeOfClonefdInfo is the size of ClonefdInfo in bytes.
const SizeOfClonefdInfo = 24
