// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"reflect"
	"unsafe"

	"gvisor.dev/gvisor/pkg/sentry/kernel"
)

// Offsets of two unexported gVisor fields, computed by reflection. They are set even if
// CloneWithFD is never called, because a checkpoint can restore children of CloneWithFD.
var (
	leaderOffset, errLeader                   = offsetOf[*kernel.Task](reflect.TypeFor[kernel.ThreadGroup](), "leader")
	exitParentAckedOffset, errExitParentAcked = offsetOf[bool](reflect.TypeFor[kernel.Task](), "exitParentAcked")
)

// EnableCloneFD makes CloneWithFD usable. It must be called before the sentry boots. The
// error names a field that this gVisor lacks, and the way out.
func EnableCloneFD() error {
	registerSink()
	return errors.Join(errLeader, errExitParentAcked, errListenerField)
}

// offsetOf returns the offset of a field of type T, even if the field is in an embedded
// struct.
func offsetOf[T any](typ reflect.Type, name string) (uintptr, error) {
	f, ok := typ.FieldByName(name)
	want := reflect.TypeFor[T]()
	if !ok || f.Type != want {
		return 0, fmt.Errorf("CLONE_AUTOREAP needs the field %s of type %v in %v, which this gVisor version lacks: build with a version that has it, or lower the level to on", name, want, typ)
	}
	var offset uintptr
	for _, i := range f.Index {
		if typ.Kind() != reflect.Struct {
			return 0, fmt.Errorf("CLONE_AUTOREAP needs the field %s in its struct, and this gVisor version has it behind a pointer (%v): build with another version, or lower the level to on", name, typ)
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
