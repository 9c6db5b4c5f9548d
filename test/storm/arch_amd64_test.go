// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

var abis = []abi{
	{nr: linux.SYS_CLONE4_AMD64, entry: rawclone.Syscall, word: 8},
	{nr: linux.SYS_CLONE4_X32, entry: rawclone.Syscall, word: 4},
	{nr: linux.SYS_CLONE4_I386, entry: rawclone.Int80, word: 4},
}

var (
	codeExit    = []byte{0xb8, 0xe7, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05} // exit_group(0)
	codeHandler = []byte{0xc3}                                        // ret
	codeRestore = []byte{0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05}             // rt_sigreturn()
)

// olderArgs returns the arguments of clone(2).
func olderArgs(flags uint64, a linux.Clone4Args) [6]uintptr {
	return [6]uintptr{uintptr(flags), uintptr(a.StackStart), uintptr(a.Ptid), uintptr(a.Ctid), uintptr(a.TLS)}
}
