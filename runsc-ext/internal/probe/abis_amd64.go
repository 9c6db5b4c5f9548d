package probe

import (
	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

var abis = []abi{
	{name: "amd64", instruction: "syscall", number: linux.SYS_CLONE4_AMD64, entry: rawclone.Syscall, supported: true},
	{name: "x32", instruction: "syscall", number: linux.SYS_CLONE4_X32, entry: rawclone.Syscall, compat: true, supported: true},
	{name: "i386", instruction: "int $0x80", number: linux.SYS_CLONE4_I386, entry: rawclone.Int80, compat: true, supported: true},
}
