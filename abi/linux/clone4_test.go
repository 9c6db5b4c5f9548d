package linux

import (
	"encoding/binary"
	"reflect"
	"testing"
)

// The two structs must keep the patch's layout: same fields, packed words.
func TestStructLayout(t *testing.T) {
	for _, tc := range []struct {
		v          any
		word, size int
	}{
		{Clone4Args{}, 8, SizeOfClone4Args},
		{CompatClone4Args{}, 4, SizeOfCompatClone4Args},
	} {
		typ := reflect.TypeOf(tc.v)
		if got := binary.Size(tc.v); got != tc.size {
			t.Errorf("%v: %d bytes, want %d", typ, got, tc.size)
		}
		for i, name := range []string{"Ptid", "Ctid", "StackStart", "StackSize", "TLS"} {
			f := typ.Field(i)
			if f.Name != name || int(f.Offset) != i*tc.word || int(f.Type.Size()) != tc.word {
				t.Errorf("%v: field %d is %s (offset %d, %d bytes), want %s (offset %d, %d bytes)", typ, i, f.Name, f.Offset, f.Type.Size(), name, i*tc.word, tc.word)
			}
		}
	}
}
