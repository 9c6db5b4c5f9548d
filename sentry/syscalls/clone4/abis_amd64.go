package clone4

import (
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"

	"runsc-ext/abi/linux"
	extkernel "runsc-ext/sentry/kernel"
)

// enableABIs puts clone4 into the tables that gVisor has not.
func enableABIs(native, compat kernel.Syscall) error {
	stops := func(args arch.SyscallArguments) bool { return cloneFlags(args)&linux.CLONE_VFORK != 0 }
	extkernel.AMD64Low32.Table[linux.SYS_CLONE4_AMD64] = extkernel.Call{Syscall: native, Format: format, Stops: stops}
	extkernel.X32.Table[linux.SYS_CLONE4_X32&^linux.X32_SYSCALL_BIT] = extkernel.Call{Syscall: compat, Format: compatFormat, Stops: stops}
	extkernel.I386.Table[linux.SYS_CLONE4_I386] = extkernel.Call{Syscall: compat, Format: compatFormat, Stops: stops}
	return extkernel.InstallABIs()
}
