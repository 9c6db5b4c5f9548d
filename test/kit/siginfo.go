// SPDX-License-Identifier: Apache-2.0

package kit

import (
	"encoding/binary"
	"fmt"
	"syscall"
)

// Siginfo has the fields of siginfo_t for a child.
type Siginfo struct {
	Signo, Errno, Code, _ int32
	PID                   int32
	UID                   uint32
	Status                int32
}

// SizeOfSiginfo is the size of siginfo_t in bytes.
const SizeOfSiginfo = 128

// SiginfoOf returns the siginfo_t in buf.
func SiginfoOf(buf []byte) (info Siginfo) {
	if _, err := binary.Decode(buf, binary.LittleEndian, &info); err != nil {
		panic(fmt.Sprintf("kit: siginfo_t in %d bytes: %v", len(buf), err))
	}
	return info
}

func (i Siginfo) String() string {
	return fmt.Sprintf("%s, si_code %d, si_pid %d, si_uid %d, si_status %d", SignalName(syscall.Signal(i.Signo)), i.Code, i.PID, i.UID, i.Status)
}
