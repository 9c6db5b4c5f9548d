// Package clone4 has the handlers of clone4: they copy the args struct in, check
// its size, and hand over to the kernel package. See abi/linux for what the call
// is, and kernel.Clone for what it does.
package clone4

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
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
// Enable must be called before the sentry boots.
func Enable(level Level) error {
	if level < LevelOn {
		return nil
	}
	sc := syscalls.PartiallySupported("clone4", Clone4, "CLONE_SYSVSEM and CLONE_IO have no effect, as in clone.", nil)
	if err := extkernel.Add(extkernel.AMD64, linux.SYS_CLONE4_AMD64, sc); err != nil {
		return err
	}
	return extkernel.Add(extkernel.ARM64, linux.SYS_CLONE4_GENERIC, sc)
}

// Clone4 implements the system call clone4 for a struct of 64-bit words:
//
//	long clone4(unsigned flags_high, unsigned flags_low,
//	            unsigned long args_size, struct clone4_args *args);
func Clone4(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
	// The flags are two 32-bit words, whatever the registers' upper halves say.
	flags := uint64(args[0].Uint())<<32 | uint64(args[1].Uint())
	cloneArgs, err := copyInArgs(t, args[3].Pointer(), args[2].Uint64())
	if err != nil {
		return 0, nil, err
	}
	ntid, ctrl, err := extkernel.Clone(t, flags, &cloneArgs)
	return uintptr(ntid), ctrl, err
}

// copyInArgs copies the first size bytes of the struct at addr, once: another
// thread may change it meanwhile, and must not change what was checked. What is
// not passed is 0, down to part of a field. With size 0, addr is not looked at.
func copyInArgs(t *kernel.Task, addr hostarch.Addr, size uint64) (linux.Clone4Args, error) {
	// "New userspace passing in a larger structure than the kernel expects will
	// receive EINVAL, and can use a smaller structure to work with old kernels."
	// - the patch. This is before the pointer is looked at, so before EFAULT.
	if size > linux.SizeOfClone4Args {
		return linux.Clone4Args{}, linuxerr.EINVAL
	}
	buf := t.CopyScratchBuffer(linux.SizeOfClone4Args)
	clear(buf)
	if size != 0 {
		if _, err := t.CopyInBytes(addr, buf[:size]); err != nil {
			return linux.Clone4Args{}, err
		}
	}
	return decodeArgs(buf), nil
}

// decodeArgs decodes a whole struct clone4_args.
func decodeArgs(buf []byte) linux.Clone4Args {
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(buf[8*i:]) }
	return linux.Clone4Args{
		Ptid:       word(0),
		Ctid:       word(1),
		StackStart: word(2),
		StackSize:  word(3),
		TLS:        word(4),
	}
}
