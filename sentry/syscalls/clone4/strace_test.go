package clone4

import (
	"testing"

	"runsc-ext/abi/linux"
)

// What has no name must show as the number that it is, and all bits must show: what
// strace hides, its reader takes for 0.
func TestFormatFlags(t *testing.T) {
	for _, tc := range []struct {
		flags uint64
		want  string
	}{
		{0, "0x0"},
		{17, "SIGCHLD"},
		{255, "255"},
		{linux.CLONE_VM, "CLONE_VM"},
		{linux.CLONE_VM | linux.CLONE_VFORK | 17, "CLONE_VM|CLONE_VFORK|SIGCHLD"},
		{linux.CLONE_AUTOREAP | linux.CLONE_FD | linux.CLONE_STOPPED | 65, "CLONE_AUTOREAP|CLONE_FD|CLONE_STOPPED|65"},
		{1<<63 | linux.CLONE_IO, "CLONE_IO|0x8000000000000000"},
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
	if missing := linux.CLONE4_FD_VALID_FLAGS &^ named &^ linux.CSIGNAL; missing != 0 {
		t.Errorf("the flags %#x have no names", missing)
	}
}

// Fields that were not passed must not show, and one that was passed in part must.
func TestFormatFields(t *testing.T) {
	buf := make([]byte, linux.SizeOfClone4FDArgs)
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
		if got := formatFields(buf, tc.size, tc.word); got != tc.want {
			t.Errorf("%d bytes of %d-byte words: got %q, want %q", tc.size, tc.word, got, tc.want)
		}
	}
}
