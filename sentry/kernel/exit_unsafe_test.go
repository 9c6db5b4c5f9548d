// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"unsafe"

	gvisorlinux "gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
)

// exitedGroup returns a thread group that has exited with a status. EnableCloneFD has checked
// the offsets and types of the fields.
func exitedGroup(leader *kernel.Task, status gvisorlinux.WaitStatus) *kernel.ThreadGroup {
	tg := new(kernel.ThreadGroup)
	*(**kernel.Task)(unsafe.Add(unsafe.Pointer(tg), leaderOffset)) = leader
	*(*bool)(unsafe.Add(unsafe.Pointer(tg), exitingOffset)) = true
	*(*gvisorlinux.WaitStatus)(unsafe.Add(unsafe.Pointer(tg), exitStatusOffset)) = status
	return tg
}
