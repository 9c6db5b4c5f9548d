// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

var abis = []abi{{nr: linux.SYS_CLONE4_GENERIC, entry: rawclone.Syscall, word: 8}}

var (
	codeExit    = []byte{0xc8, 0x0b, 0x80, 0xd2, 0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4} // exit_group(0)
	codeHandler = []byte{0xc0, 0x03, 0x5f, 0xd6}                                                 // ret
	codeRestore = []byte{0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4}                         // rt_sigreturn()
)

// olderArgs returns the arguments of clone(2).
func olderArgs(flags uint64, a linux.Clone4Args) [6]uintptr {
	return [6]uintptr{uintptr(flags), uintptr(a.StackStart), uintptr(a.Ptid), uintptr(a.TLS), uintptr(a.Ctid)}
}
