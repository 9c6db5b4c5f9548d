package kernel

import (
	"errors"
	"fmt"
	"reflect"
	"unsafe"

	"gvisor.dev/gvisor/pkg/sentry/kernel"
)

// Where two fields are that gVisor does not export, as the compiler of this binary
// has it. They are set also where CloneFD is never called: children that are restored
// from a checkpoint can be of CloneFD, and only this same binary restores them.
var (
	leaderOffset, errLeader                   = offsetOf[*kernel.Task](reflect.TypeFor[kernel.ThreadGroup](), "leader")
	exitParentAckedOffset, errExitParentAcked = offsetOf[bool](reflect.TypeFor[kernel.Task](), "exitParentAcked")
)

// CheckCloneFD returns an error if this gVisor cannot take CloneFD.
func CheckCloneFD() error {
	return errors.Join(errLeader, errExitParentAcked)
}

// offsetOf returns the offset of a field of type T, also where it is in an embedded
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

// acknowledgeExit makes the sentry take the end of tg as acknowledged by its parent,
// as it does itself where the parent ignores SIGCHLD.
//
// It is sound because the offsets are those of fields with the types used here, and
// because the TaskSet mutex protects both. The sentry looks at the second one after
// it has told the parent, which is after it has told pidfds.
//
// Preconditions: the TaskSet mutex is locked for writing, and tg has only its leader
// left, which is a zombie.
func acknowledgeExit(tg *kernel.ThreadGroup) {
	leader := *(**kernel.Task)(unsafe.Add(unsafe.Pointer(tg), leaderOffset))
	*(*bool)(unsafe.Add(unsafe.Pointer(leader), exitParentAckedOffset)) = true
}
