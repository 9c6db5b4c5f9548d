// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"reflect"
	"unsafe"

	"gvisor.dev/gvisor/pkg/sentry/kernel"
)

// Offsets of two fields that gVisor does not export, as the compiler of this binary
// has them. They are set even if CloneWithFD is never called: children restored from a
// checkpoint can be of CloneWithFD, and only the same binary restores them.
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
		return 0, fmt.Errorf("CLONE_AUTOREAP needs the field %s of type %v in %v, and this gVisor has none: build with a gVisor version that does, or do without the level", name, want, typ)
	}
	var offset uintptr
	for _, i := range f.Index {
		if typ.Kind() != reflect.Struct {
			return 0, fmt.Errorf("CLONE_AUTOREAP needs the field %s, and this gVisor has it behind a pointer (%v): build with a gVisor version that does not, or do without the level", name, typ)
		}
		offset += typ.Field(i).Offset
		typ = typ.Field(i).Type
	}
	return offset, nil
}

// leaderLocked returns the leader of tg, as ThreadGroup.Leader does, which locks the
// TaskSet mutex itself.
//
// It is sound because the offset is the one of a field of this type, and because the
// TaskSet mutex protects the field.
//
// Preconditions: the TaskSet mutex is locked.
func leaderLocked(tg *kernel.ThreadGroup) *kernel.Task {
	return *(**kernel.Task)(unsafe.Add(unsafe.Pointer(tg), leaderOffset))
}

// acknowledgeExitLocked makes the sentry take the exit of a thread group as
// acknowledged by its parent, as the sentry does itself if the parent ignores SIGCHLD.
//
// It is sound because the offset is the one of a field of this type, and because the
// TaskSet mutex protects the field. The sentry reads the field after it has notified
// the parent, which is after it has notified pidfds.
//
// Preconditions: the TaskSet mutex is locked for writing. The group has only its
// leader left, which is a zombie.
func acknowledgeExitLocked(leader *kernel.Task) {
	*(*bool)(unsafe.Add(unsafe.Pointer(leader), exitParentAckedOffset)) = true
}
