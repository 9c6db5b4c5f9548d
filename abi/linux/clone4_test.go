// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"encoding/binary"
	"reflect"
	"slices"
	"testing"
)

// TestStructLayout checks that the structs have the fields, offsets and sizes of the patches.
func TestStructLayout(t *testing.T) {
	type field struct {
		name         string
		offset, size int
	}
	words := func(word int, more ...field) []field {
		var fields []field
		for i, name := range []string{"Ptid", "Ctid", "StackStart", "StackSize", "TLS"} {
			fields = append(fields, field{name, i * word, word})
		}
		return append(fields, more...)
	}
	for _, tc := range []struct {
		v      any
		size   int
		fields []field
	}{
		{Clone4Args{}, SizeOfClone4Args, words(8)},
		{CompatClone4Args{}, SizeOfCompatClone4Args, words(4)},
		{Clone4FDArgs{}, SizeOfClone4FDArgs, words(8, field{"Clonefd", 40, 8}, field{"ClonefdFlags", 48, 4})},
		{CompatClone4FDArgs{}, SizeOfCompatClone4FDArgs, words(4, field{"Clonefd", 20, 4}, field{"ClonefdFlags", 24, 4})},
		{ClonefdInfo{}, SizeOfClonefdInfo, []field{{"Code", 0, 4}, {"Status", 4, 4}, {"Utime", 8, 8}, {"Stime", 16, 8}}},
	} {
		typ := reflect.TypeOf(tc.v)
		if got := binary.Size(tc.v); got != tc.size || int(typ.Size()) != tc.size {
			t.Errorf("%v: %d bytes, in memory %d, want %d", typ, got, typ.Size(), tc.size)
		}
		var got []field
		for _, f := range reflect.VisibleFields(typ) {
			if !f.Anonymous && f.Name != "_" {
				// Fields of an embedded struct come first.
				got = append(got, field{f.Name, int(f.Offset), int(f.Type.Size())})
			}
		}
		if !slices.Equal(got, tc.fields) {
			t.Errorf("%v has the fields (name, offset, size) %v, want %v", typ, got, tc.fields)
		}
	}
}
