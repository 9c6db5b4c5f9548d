// SPDX-License-Identifier: Apache-2.0

package clone4

import (
	"testing"

	extlinux "runsc-ext/abi/linux"
)

// TestFormatFlags checks that every bit is printed: by name, or as a number if the bit has no
// name.
func TestFormatFlags(t *testing.T) {
	for _, tc := range []struct {
		flags uint64
		want  string
	}{
		{0, "0x0"},
		{17, "SIGCHLD"},
		{255, "255"},
		{extlinux.CLONE_VM, "CLONE_VM"},
		{extlinux.CLONE_VM | extlinux.CLONE_VFORK | 17, "CLONE_VM|CLONE_VFORK|SIGCHLD"},
		{extlinux.CLONE_AUTOREAP | extlinux.CLONE_FD | extlinux.CLONE_STOPPED | 65, "CLONE_AUTOREAP|CLONE_FD|CLONE_STOPPED|65"},
		{1<<63 | extlinux.CLONE_IO, "CLONE_IO|0x8000000000000000"},
	} {
		if got := formatFlags(tc.flags); got != tc.want {
			t.Errorf("flags %#x: got %q, want %q", tc.flags, got, tc.want)
		}
	}
	var named uint64
	for _, f := range flagNames {
		if named&f.Flag != 0 {
			t.Errorf("%s is named twice", f.Name)
		}
		named |= f.Flag
	}
	if missing := extlinux.CLONE4_FD_VALID_FLAGS &^ named &^ extlinux.CSIGNAL; missing != 0 {
		t.Errorf("the flags %#x have no names", missing)
	}
}

// TestFormatFields checks that exactly the fields that the caller passes are printed,
// including a field that is passed in part.
func TestFormatFields(t *testing.T) {
	buf := make([]byte, extlinux.SizeOfClone4FDArgs)
	for i := range buf {
		buf[i] = byte(i)
	}
	for _, tc := range []struct {
		size uint64
		word int
		want string
	}{
		{1, 4, "ptid: 0x3020100"},
		{20, 4, "ptid: 0x3020100, ctid: 0x7060504, stack_start: 0xb0a0908, stack_size: 0xf0e0d0c, tls: 0x13121110"},
		{9, 8, "ptid: 0x706050403020100, ctid: 0xf0e0d0c0b0a0908"},
		{40, 8, "ptid: 0x706050403020100, ctid: 0xf0e0d0c0b0a0908, stack_start: 0x1716151413121110, stack_size: 0x1f1e1d1c1b1a1918, tls: 0x2726252423222120"},
		{28, 4, "ptid: 0x3020100, ctid: 0x7060504, stack_start: 0xb0a0908, stack_size: 0xf0e0d0c, tls: 0x13121110, clonefd: 0x17161514, clonefd_flags: 0x1b1a1918"},
		{56, 8, "ptid: 0x706050403020100, ctid: 0xf0e0d0c0b0a0908, stack_start: 0x1716151413121110, stack_size: 0x1f1e1d1c1b1a1918, tls: 0x2726252423222120, clonefd: 0x2f2e2d2c2b2a2928, clonefd_flags: 0x33323130"},
	} {
		if got := newHandler(LevelFD, tc.word).formatFields(buf, tc.size); got != tc.want {
			t.Errorf("%d bytes of %d-byte words: got %q, want %q", tc.size, tc.word, got, tc.want)
		}
	}
}
