// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"reflect"
	"unsafe"

	gvisorlinux "gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
)

// Offsets of unexported gVisor fields, computed by reflection. They are set even if
// CloneWithFD is never called, because a checkpoint can restore children of CloneWithFD.
var (
	exitingOffset, errExiting                 = offsetOf[bool](reflect.TypeFor[kernel.ThreadGroup](), "exiting")
	exitStatusOffset, errExitStatus           = offsetOf[gvisorlinux.WaitStatus](reflect.TypeFor[kernel.ThreadGroup](), "exitStatus")
	leaderOffset, errLeader                   = offsetOf[*kernel.Task](reflect.TypeFor[kernel.ThreadGroup](), "leader")
	exitParentAckedOffset, errExitParentAcked = offsetOf[bool](reflect.TypeFor[kernel.Task](), "exitParentAcked")
)

// EnableCloneFD makes CloneWithFD usable. It must be called before the sentry boots. The
// error names a field that this gVisor lacks, and the way out.
func EnableCloneFD() error {
	registerSink()
	return errors.Join(errExiting, errExitStatus, errLeader, errExitParentAcked, errListenerField)
}

// offsetOf returns the offset of a field of type T, even if the field is in an embedded
// struct.
func offsetOf[T any](typ reflect.Type, name string) (uintptr, error) {
	f, ok := typ.FieldByName(name)
	want := reflect.TypeFor[T]()
	if !ok || f.Type != want {
		return 0, fmt.Errorf("CLONE_FD needs the field %s of type %v in %v, which this gVisor version lacks: build with a version that has it, or lower the level to on", name, want, typ)
	}
	var offset uintptr
	for _, i := range f.Index {
		if typ.Kind() != reflect.Struct {
			return 0, fmt.Errorf("CLONE_FD needs the field %s in its struct, and this gVisor version has it behind a pointer (%v): build with another version, or lower the level to on", name, typ)
		}
		offset += typ.Field(i).Offset
		typ = typ.Field(i).Type
	}
	return offset, nil
}

// leaderLocked is ThreadGroup.Leader for callers that have locked the TaskSet mutex.
//
// The read is sound: offsetOf has checked the type of the field, and the TaskSet mutex
// protects the field.
//
// Preconditions: the TaskSet mutex is locked.
func leaderLocked(tg *kernel.ThreadGroup) *kernel.Task {
	return *(**kernel.Task)(unsafe.Add(unsafe.Pointer(tg), leaderOffset))
}

// reapedStatusLocked is ThreadGroup.ExitStatus for a group that has been reaped and for callers
// that have locked the TaskSet mutex.
//
// The reads are sound: offsetOf has checked the types of the fields. gVisor writes the fields
// with the group's signal mutex locked, for a task that is not dead. exitNotifyLocked locks that
// mutex between the leader's death and the notification, so every write comes before the reads.
// The status of a zombie cannot be read like this: a SIGKILL to a zombie can change the fields,
// and Task.SendSignal does not lock the TaskSet mutex.
//
// Preconditions: the TaskSet mutex is locked for writing, and no signal mutex is locked. All
// tasks of the group are dead.
func reapedStatusLocked(tg *kernel.ThreadGroup) gvisorlinux.WaitStatus {
	if *(*bool)(unsafe.Add(unsafe.Pointer(tg), exitingOffset)) {
		return *(*gvisorlinux.WaitStatus)(unsafe.Add(unsafe.Pointer(tg), exitStatusOffset))
	}
	return leaderLocked(tg).ExitStatus()
}

// acknowledgeExitLocked marks the exit of a thread group as acknowledged by its parent.
// gVisor does the same if the parent ignores SIGCHLD.
//
// The write is sound: offsetOf has checked the type of the field, and the TaskSet mutex
// protects the field. The write is in time: exitNotifyLocked in gVisor's task_exit.go
// notifies pidfds first, then the parent, and reads the field last.
//
// Preconditions: the TaskSet mutex is locked for writing. The group has only its
// leader left, which is a zombie.
func acknowledgeExitLocked(leader *kernel.Task) {
	*(*bool)(unsafe.Add(unsafe.Pointer(leader), exitParentAckedOffset)) = true
}
