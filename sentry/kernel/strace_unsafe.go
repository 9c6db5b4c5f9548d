package kernel

import (
	"fmt"
	"reflect"
	"unsafe"

	"gvisor.dev/gvisor/pkg/sentry/strace"
)

// straceInfo returns what gVisor's strace knows of a call whose name is all that
// there is to know. The fields are not exported; before one is written, it is
// checked to be the string of that name, and what is written is a copy.
func straceInfo(name string) (strace.SyscallInfo, error) {
	var info strace.SyscallInfo
	field, ok := reflect.TypeOf(info).FieldByName("name")
	if !ok || field.Type.Kind() != reflect.String {
		return info, fmt.Errorf("strace.SyscallInfo of this gVisor has no string \"name\", so its strace cannot say %q: build with a gVisor version that has it", name)
	}
	*(*string)(unsafe.Add(unsafe.Pointer(&info), field.Offset)) = name
	return info, nil
}
