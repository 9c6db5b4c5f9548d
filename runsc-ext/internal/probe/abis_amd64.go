// SPDX-License-Identifier: Apache-2.0

package probe

import (
	extlinux "runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

var abis = []abi{
	{name: "amd64", instruction: "syscall", number: extlinux.SYS_CLONE4_AMD64, entry: rawclone.Syscall},
	{name: "x32", instruction: "syscall", number: extlinux.SYS_CLONE4_X32, entry: rawclone.Syscall, compat: true},
	{name: "i386", instruction: "int $0x80", number: extlinux.SYS_CLONE4_I386, entry: rawclone.Int80, compat: true},
}
