// Package clone4 has the handlers of clone4: they copy the args struct in, check
// its size, and hand over to the kernel package. See abi/linux for what the call
// is, and kernel.Clone for what it does.
package clone4

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/marshal"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/syscalls"

	"runsc-ext/abi/linux"
	extkernel "runsc-ext/sentry/kernel"
)

// Enable puts clone4 into the sentry's tables as far as level says. At LevelOff
// the tables stay gVisor's own: ENOSYS, and its event for an unimplemented call.
// An error means that this gVisor cannot take clone4.
//
// Enable must be called at most once, before the sentry boots.
func Enable(level Level) error {
	if level < LevelOn {
		return nil
	}
	native, compat := entry(Clone4), entry(CompatClone4)
	if level >= LevelFD {
		if err := extkernel.CheckCloneFD(); err != nil {
			return err
		}
		native, compat = entry(Clone4FD), entry(CompatClone4FD)
	}
	if err := extkernel.Add(extkernel.AMD64, linux.SYS_CLONE4_AMD64, native); err != nil {
		return err
	}
	if err := extkernel.Add(extkernel.ARM64, linux.SYS_CLONE4_GENERIC, native); err != nil {
		return err
	}
	if err := extkernel.Trace(extkernel.AMD64, linux.SYS_CLONE4_AMD64, format); err != nil {
		return err
	}
	if err := extkernel.Trace(extkernel.ARM64, linux.SYS_CLONE4_GENERIC, format); err != nil {
		return err
	}
	return enableABIs(native, compat)
}

func entry(fn kernel.SyscallFn) kernel.Syscall {
	return syscalls.PartiallySupported("clone4", fn, "CLONE_SYSVSEM and CLONE_IO have no effect, as in clone.", nil)
}

// Clone4 implements the system call clone4:
//
//	long clone4(unsigned flags_high, unsigned flags_low,
//	            unsigned long args_size, struct clone4_args *args);
func Clone4(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
	return clone4(t, args, 8)
}

// CompatClone4 implements the same for x32 and i386: compat_sys_clone4() in the
// patch. A word of the struct has 32 bits, and so has its size.
func CompatClone4(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
	return clone4(t, args, 4)
}

// Clone4FD is Clone4 at LevelFD: it has more flags and a larger struct.
func Clone4FD(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
	return clone4FD(t, args, 8)
}

// CompatClone4FD is CompatClone4 at LevelFD.
func CompatClone4FD(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
	return clone4FD(t, args, 4)
}

// fields is how many words the struct has, fdFields how many at LevelFD: the last
// is the flags of CLONE_FD, in the low half where a word has 64 bits.
const (
	fields   = linux.SizeOfClone4Args / 8
	fdFields = linux.SizeOfClone4FDArgs / 8
)

// clone4 is what all ABIs have in common. word is the size of a word of the struct.
func clone4(t *kernel.Task, args arch.SyscallArguments, word int) (uintptr, *kernel.SyscallControl, error) {
	buf, err := copyIn(t, args, fields, word)
	if err != nil {
		return 0, nil, err
	}
	cloneArgs := decode(buf, word)
	ntid, ctrl, err := extkernel.Clone(t, cloneFlags(args), &cloneArgs)
	return uintptr(ntid), ctrl, err
}

// clone4FD is clone4 at LevelFD.
func clone4FD(t *kernel.Task, args arch.SyscallArguments, word int) (uintptr, *kernel.SyscallControl, error) {
	buf, err := copyIn(t, args, fdFields, word)
	if err != nil {
		return 0, nil, err
	}
	cloneArgs := decodeFD(buf, word)
	ntid, ctrl, err := extkernel.CloneFD(t, cloneFlags(args), &cloneArgs)
	return uintptr(ntid), ctrl, err
}

// copyIn returns the whole struct, of which the caller passes args_size bytes. The
// errors are EINVAL for its size and EFAULT.
func copyIn(cc marshal.CopyContext, args arch.SyscallArguments, fields, word int) ([]byte, error) {
	size := args[2].Uint64()
	if word == 4 {
		size = uint64(args[2].Uint())
	}
	// "New userspace passing in a larger structure than the kernel expects will
	// receive EINVAL, and can use a smaller structure to work with old kernels."
	// - the patch. This is before the pointer is looked at, so before EFAULT.
	if size > uint64(fields*word) {
		return nil, linuxerr.EINVAL
	}
	// The struct is copied once: another thread may change it meanwhile, and must
	// not change what was checked. What is not passed is 0, down to part of a
	// field. With size 0 the pointer is not looked at.
	buf := cc.CopyScratchBuffer(fields * word)
	clear(buf)
	if size != 0 {
		if _, err := cc.CopyInBytes(args[3].Pointer(), buf[:size]); err != nil {
			return nil, err
		}
	}
	return buf, nil
}

// cloneFlags returns the 64 flag bits. They come as two 32-bit words, whatever the
// upper halves of the registers say.
func cloneFlags(args arch.SyscallArguments) uint64 {
	return uint64(args[0].Uint())<<32 | uint64(args[1].Uint())
}

// decode decodes a whole struct.
func decode(buf []byte, word int) linux.Clone4Args {
	return linux.Clone4Args{
		Ptid:       field(buf, word, 0),
		Ctid:       field(buf, word, 1),
		StackStart: field(buf, word, 2),
		StackSize:  field(buf, word, 3),
		TLS:        field(buf, word, 4),
	}
}

// decodeFD decodes a whole struct of LevelFD.
func decodeFD(buf []byte, word int) linux.Clone4FDArgs {
	return linux.Clone4FDArgs{
		Clone4Args:   decode(buf, word),
		Clonefd:      field(buf, word, 5),
		ClonefdFlags: uint32(field(buf, word, 6)),
	}
}

// field returns word i of a struct.
func field(buf []byte, word, i int) uint64 {
	if word == 4 {
		return uint64(binary.LittleEndian.Uint32(buf[4*i:]))
	}
	return binary.LittleEndian.Uint64(buf[8*i:])
}
