// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"fmt"
	"reflect"
	"unsafe"

	"gvisor.dev/gvisor/pkg/sentry/strace"
)

// straceInfo returns gVisor's description of a call for strace, with a name and without
// formats. gVisor exports no way to create one.
//
// The write is sound: the field is checked to be a string at that offset, and info is a
// variable of this function.
func straceInfo(name string) (strace.SyscallInfo, error) {
	var info strace.SyscallInfo
	field, ok := reflect.TypeOf(info).FieldByName("name")
	if !ok || field.Type.Kind() != reflect.String {
		return info, fmt.Errorf("strace.SyscallInfo of this gVisor has no field \"name\" of type string, so strace cannot name %q: build with a gVisor version that has the field", name)
	}
	*(*string)(unsafe.Add(unsafe.Pointer(&info), field.Offset)) = name
	return info, nil
}
