package probe

import (
	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

var abis = []abi{
	{name: "arm64", instruction: "svc", number: linux.SYS_CLONE4_GENERIC, entry: rawclone.Syscall, supported: true},
}
