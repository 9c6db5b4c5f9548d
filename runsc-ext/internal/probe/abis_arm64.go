// SPDX-License-Identifier: Apache-2.0

package probe

import (
	extlinux "runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

var abis = []abi{
	{name: "arm64", instruction: "svc", number: extlinux.SYS_CLONE4_GENERIC, entry: rawclone.Syscall},
}
