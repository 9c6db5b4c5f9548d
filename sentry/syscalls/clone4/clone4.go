// SPDX-License-Identifier: Apache-2.0

// Package clone4 implements the system call clone4 for every ABI that has it.
//
// A handler checks the size of the struct, copies the struct in, checks the flags, decodes
// both, and calls package kernel. ABIs and levels differ only in data: the size of a word,
// the number of fields and the valid flags. See abi/linux for what programs pass, and
// kernel.Clone for what the call does.
package clone4

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/marshal"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/syscalls"

	extlinux "runsc-ext/abi/linux"
	extkernel "runsc-ext/sentry/kernel"
	extsyscalls "runsc-ext/sentry/syscalls"
)

// Enable puts clone4 into the sentry's tables, with the flags of level. At LevelOff, Enable
// only counts the calls, and they return ENOSYS as in gVisor without clone4. An error means
// that this gVisor version cannot take clone4, or that Enable was called before.
//
// Enable must be called at most once, before the sentry boots.
func Enable(level Level, opts extsyscalls.Options) error {
	native, compat := newHandler(level, 8), newHandler(level, 4)
	entries := []extsyscalls.Entry{
		{ABI: extsyscalls.AMD64, Number: extlinux.SYS_CLONE4_AMD64, Call: native.call(extsyscalls.AMD64)},
		{ABI: extsyscalls.X32, Number: extlinux.SYS_CLONE4_X32 &^ extlinux.X32_SYSCALL_BIT, Call: compat.call(extsyscalls.X32)},
		{ABI: extsyscalls.I386, Number: extlinux.SYS_CLONE4_I386, Call: compat.call(extsyscalls.I386)},
		{ABI: extsyscalls.ARM64, Number: extlinux.SYS_CLONE4_GENERIC, Call: native.call(extsyscalls.ARM64)},
	}
	if level < LevelOn {
		extsyscalls.Observe(entries, countSwitchedOff)
		return nil
	}
	if level >= LevelFD {
		if err := extkernel.EnableCloneFD(); err != nil {
			return err
		}
	}
	return extsyscalls.Install(opts, entries)
}

// handler is clone4 for one word size, at one level.
type handler struct {
	// word is the size in bytes of a word in the struct: 8, or 4 for x32 and i386
	// (compat_sys_clone4 in the patch).
	word int

	// fields is the number of words in the struct.
	fields int

	// flags are the valid flags.
	flags uint64

	// abi is the ABI under which calls are counted.
	abi extsyscalls.ABI
}

// Numbers of words in the struct. The last word of LevelFD has clonefd_flags, in the lower
// half of an 8-byte word.
const (
	fieldsOn = extlinux.SizeOfClone4Args / 8
	fieldsFD = extlinux.SizeOfClone4FDArgs / 8
)

func newHandler(level Level, word int) handler {
	if level >= LevelFD {
		return handler{word: word, fields: fieldsFD, flags: extlinux.CLONE4_FD_VALID_FLAGS}
	}
	return handler{word: word, fields: fieldsOn, flags: extlinux.CLONE4_VALID_FLAGS}
}

// call returns the entry for the table of an ABI.
func (h handler) call(abi extsyscalls.ABI) extsyscalls.Call {
	h.abi = abi
	return extsyscalls.Call{
		Syscall:     syscalls.PartiallySupported("clone4", h.clone4, "CLONE_SYSVSEM and CLONE_IO have no effect, as in clone.", nil),
		Format:      h.format,
		WithoutStop: withoutStop,
	}
}

// clone4 implements kernel.SyscallFn:
//
//	long clone4(unsigned flags_high, unsigned flags_low,
//	            unsigned long args_size, struct clone4_args *args);
func (h handler) clone4(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
	ntid, ctrl, err := h.clone(t, args)
	count(h.abi, err)
	return ntid, ctrl, err
}

// clone is clone4 without the counters.
func (h handler) clone(t *kernel.Task, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
	buf, err := h.copyIn(t, args)
	if err != nil {
		return 0, nil, err
	}
	flags := cloneFlags(args)
	if flags&^h.flags != 0 {
		return 0, nil, linuxerr.EINVAL
	}
	cloneArgs := h.decode(buf)
	if flags&(extlinux.CLONE_FD|extlinux.CLONE_AUTOREAP) == 0 {
		ntid, ctrl, err := extkernel.Clone(t, flags, &cloneArgs.Clone4Args)
		return uintptr(ntid), ctrl, err
	}
	return cloneWithFD(t, flags, cloneArgs)
}

// cloneWithFD is a function of its own because its arguments escape to the heap. Calls
// without its flags therefore do not allocate.
func cloneWithFD(t *kernel.Task, flags uint64, args extlinux.Clone4FDArgs) (uintptr, *kernel.SyscallControl, error) {
	ntid, ctrl, err := extkernel.CloneWithFD(t, flags, &args)
	return uintptr(ntid), ctrl, err
}

// withoutStop implements extsyscalls.Call.WithoutStop. A call with CLONE_VFORK always stops
// its task, to wait for the child. Any other call of an untraced task stops only for a tracer
// that attaches during the call. CLONE_UNTRACED silences the events for that tracer
// (kernel.Task.ptraceClone), and without CLONE_PTRACE the tracer does not trace the child.
func withoutStop(args arch.SyscallArguments) (arch.SyscallArguments, bool) {
	if cloneFlags(args)&(extlinux.CLONE_VFORK|extlinux.CLONE_PTRACE) != 0 {
		return args, false
	}
	args[1].Value |= extlinux.CLONE_UNTRACED
	return args, true
}

// size returns args_size, which is an unsigned long of the ABI.
func (h handler) size(args arch.SyscallArguments) uint64 {
	if h.word == 4 {
		return uint64(args[2].Uint())
	}
	return args[2].Uint64()
}

// copyIn returns the whole struct, padded with zeros behind the args_size bytes that the
// caller passes. The errors are EINVAL for the size and EFAULT for the pointer.
func (h handler) copyIn(cc marshal.CopyContext, args arch.SyscallArguments) ([]byte, error) {
	// "New userspace passing in a larger structure than the kernel expects will
	// receive EINVAL, and can use a smaller structure to work with old kernels."
	// - the patch. EINVAL for the size comes before EFAULT for the pointer.
	size := h.size(args)
	if size > uint64(h.fields*h.word) {
		return nil, linuxerr.EINVAL
	}
	// The struct is copied once, so another thread cannot change what was checked.
	// Bytes that are not passed are 0, even within a field. If the size is 0, the
	// pointer is not used.
	buf := cc.CopyScratchBuffer(h.fields * h.word)
	clear(buf)
	if size != 0 {
		if _, err := cc.CopyInBytes(args[3].Pointer(), buf[:size]); err != nil {
			return nil, err
		}
	}
	return buf, nil
}

// cloneFlags returns the 64 flag bits. Each register has 32 of them in its lower half.
func cloneFlags(args arch.SyscallArguments) uint64 {
	return uint64(args[0].Uint())<<32 | uint64(args[1].Uint())
}

// decode decodes a struct. The fields of LevelFD are 0 at LevelOn.
func (h handler) decode(buf []byte) extlinux.Clone4FDArgs {
	return extlinux.Clone4FDArgs{
		Clone4Args: extlinux.Clone4Args{
			Ptid:       h.field(buf, 0),
			Ctid:       h.field(buf, 1),
			StackStart: h.field(buf, 2),
			StackSize:  h.field(buf, 3),
			TLS:        h.field(buf, 4),
		},
		Clonefd:      h.field(buf, 5),
		ClonefdFlags: uint32(h.field(buf, 6)),
	}
}

// field returns word i of a struct, or 0 if the level has no such field.
func (h handler) field(buf []byte, i int) uint64 {
	switch {
	case i >= h.fields:
		return 0
	case h.word == 4:
		return uint64(binary.LittleEndian.Uint32(buf[4*i:]))
	default:
		return binary.LittleEndian.Uint64(buf[8*i:])
	}
}
