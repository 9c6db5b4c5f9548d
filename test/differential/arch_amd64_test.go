package differential

import (
	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

// abis are the ways to call clone4, the one with 64-bit words first.
var abis = []abi{
	{name: "64bit", nr: linux.SYS_CLONE4_AMD64, entry: rawclone.Syscall, word: 8},
	{name: "x32", nr: linux.SYS_CLONE4_X32, entry: rawclone.Syscall, word: 4},
	{name: "i386", nr: linux.SYS_CLONE4_I386, entry: rawclone.Int80, word: 4},
}

// threadPointer appends what finds out the thread pointer, and returns a function
// that gives it afterwards.
func (l *list) threadPointer() func() uint64 {
	const archGetFS = 0x1003
	fs := l.a.word()
	l.sys(unix.SYS_ARCH_PRCTL, archGetFS, fs)
	return func() uint64 { return uint64(*fs) }
}

// program is machine code that does write(writeFD, 0x10000000, 1), where the program
// is loaded, and exit_group(7).
var program = []byte{
	0xbf, writeFD, 0, 0, 0, // mov $writeFD, %edi
	0xbe, 0, 0, 0, 0x10, // mov $0x10000000, %esi
	0xba, 1, 0, 0, 0, // mov $1, %edx
	0xb8, unix.SYS_WRITE, 0, 0, 0, // mov $SYS_write, %eax
	0x0f, 0x05, // syscall
	0xbf, 7, 0, 0, 0, // mov $7, %edi
	0xb8, unix.SYS_EXIT_GROUP, 0, 0, 0, // mov $SYS_exit_group, %eax
	0x0f, 0x05, // syscall
}

const elfMachine = 62 // EM_X86_64

// cloneArgs returns the arguments of clone(2), whose order depends on the
// architecture.
func cloneArgs(flags uint64, args linux.Clone4Args) [6]uintptr {
	return [6]uintptr{uintptr(flags), uintptr(args.StackStart), uintptr(args.Ptid), uintptr(args.Ctid), uintptr(args.TLS)}
}
