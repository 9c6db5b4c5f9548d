package differential

import (
	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

// abis are the ways to call clone4.
var abis = []abi{
	{name: "64bit", nr: linux.SYS_CLONE4_GENERIC, entry: rawclone.Syscall, word: 8},
}

// threadPointer appends what finds out the thread pointer, and returns a function
// that gives it afterwards.
func (l *list) threadPointer() func() uint64 {
	o := l.sys(rawclone.TrapTLS)
	return func() uint64 { return uint64(o.Ret) }
}

// program is machine code that does write(writeFD, 0x10000000, 1), where the program
// is loaded, and exit_group(7).
var program = []byte{
	0x20, 0x0c, 0x80, 0xd2, // mov x0, #97, writeFD
	0x01, 0x00, 0xa2, 0xd2, // mov x1, #0x10000000
	0x22, 0x00, 0x80, 0xd2, // mov x2, #1
	0x08, 0x08, 0x80, 0xd2, // mov x8, #64, write
	0x01, 0x00, 0x00, 0xd4, // svc #0
	0xe0, 0x00, 0x80, 0xd2, // mov x0, #7
	0xc8, 0x0b, 0x80, 0xd2, // mov x8, #94, exit_group
	0x01, 0x00, 0x00, 0xd4, // svc #0
}

const elfMachine = 183 // EM_AARCH64

// cloneArgs returns the arguments of clone(2), whose order depends on the
// architecture.
func cloneArgs(flags uint64, args linux.Clone4Args) [6]uintptr {
	return [6]uintptr{uintptr(flags), uintptr(args.StackStart), uintptr(args.Ptid), uintptr(args.TLS), uintptr(args.Ctid)}
}
