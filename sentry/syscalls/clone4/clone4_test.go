package clone4

import (
	"reflect"
	"testing"

	"gvisor.dev/gvisor/pkg/sentry/kernel"

	"runsc-ext/abi/linux"
	extkernel "runsc-ext/sentry/kernel"
)

// The struct is five little-endian words in the patch's order, and what a caller
// does not pass is 0, down to part of a word.
func TestDecode(t *testing.T) {
	whole := make([]byte, linux.SizeOfClone4Args)
	for i := range whole {
		whole[i] = byte(0xf1 + i) // 0xf1 to 0xff, 0x00 to 0x18
	}
	for _, tc := range []struct {
		word, size int // size is what the caller passes
		want       linux.Clone4Args
	}{
		{8, 0, linux.Clone4Args{}},
		{8, 1, linux.Clone4Args{Ptid: 0xf1}},
		{8, 8, linux.Clone4Args{Ptid: 0xf8f7f6f5f4f3f2f1}},
		{8, 20, linux.Clone4Args{Ptid: 0xf8f7f6f5f4f3f2f1, Ctid: 0x00fffefdfcfbfaf9, StackStart: 0x04030201}},
		{8, 39, linux.Clone4Args{Ptid: 0xf8f7f6f5f4f3f2f1, Ctid: 0x00fffefdfcfbfaf9, StackStart: 0x0807060504030201, StackSize: 0x100f0e0d0c0b0a09, TLS: 0x17161514131211}},
		{8, 40, linux.Clone4Args{Ptid: 0xf8f7f6f5f4f3f2f1, Ctid: 0x00fffefdfcfbfaf9, StackStart: 0x0807060504030201, StackSize: 0x100f0e0d0c0b0a09, TLS: 0x1817161514131211}},

		// Words of x32 and i386 are not sign-extended.
		{4, 0, linux.Clone4Args{}},
		{4, 3, linux.Clone4Args{Ptid: 0xf3f2f1}},
		{4, 4, linux.Clone4Args{Ptid: 0xf4f3f2f1}},
		{4, 17, linux.Clone4Args{Ptid: 0xf4f3f2f1, Ctid: 0xf8f7f6f5, StackStart: 0xfcfbfaf9, StackSize: 0x00fffefd, TLS: 0x01}},
		{4, 20, linux.Clone4Args{Ptid: 0xf4f3f2f1, Ctid: 0xf8f7f6f5, StackStart: 0xfcfbfaf9, StackSize: 0x00fffefd, TLS: 0x04030201}},
	} {
		buf := make([]byte, fields*tc.word)
		copy(buf, whole[:tc.size])
		if got := decode(buf, tc.word); got != tc.want {
			t.Errorf("%d bytes of %d-byte words: got %#x, want %#x", tc.size, tc.word, got, tc.want)
		}
	}
}

// The larger struct is the smaller one and what it grew by.
func TestDecodeFD(t *testing.T) {
	whole := make([]byte, linux.SizeOfClone4FDArgs)
	for i := range whole {
		whole[i] = byte(i + 1)
	}
	for _, tc := range []struct {
		word, size int // size is what the caller passes
		clonefd    uint64
		flags      uint32
	}{
		{8, 0, 0, 0},
		{8, 40, 0, 0},
		{8, 41, 0x29, 0},
		{8, 48, 0x302f2e2d2c2b2a29, 0},
		{8, 49, 0x302f2e2d2c2b2a29, 0x31},
		{8, 52, 0x302f2e2d2c2b2a29, 0x34333231},
		{8, 56, 0x302f2e2d2c2b2a29, 0x34333231}, // The rest is padding.
		{4, 20, 0, 0},
		{4, 23, 0x171615, 0},
		{4, 24, 0x18171615, 0},
		{4, 28, 0x18171615, 0x1c1b1a19},
	} {
		buf := make([]byte, fdFields*tc.word)
		copy(buf, whole[:tc.size])
		want := linux.Clone4FDArgs{Clone4Args: decode(buf, tc.word), Clonefd: tc.clonefd, ClonefdFlags: tc.flags}
		if got := decodeFD(buf, tc.word); got != want {
			t.Errorf("%d bytes of %d-byte words: got %#x, want %#x", tc.size, tc.word, got, want)
		}
	}
}

// At LevelOff the tables must stay gVisor's own; at LevelOn clone4 is in both,
// also in the array in which the sentry looks calls up.
func TestEnable(t *testing.T) {
	slots := []struct {
		table *kernel.SyscallTable
		sysno uintptr
	}{
		{extkernel.AMD64, linux.SYS_CLONE4_AMD64},
		{extkernel.ARM64, linux.SYS_CLONE4_GENERIC},
	}

	// This order: there is no way back from LevelOn.
	if err := Enable(LevelOff); err != nil {
		t.Fatal(err)
	}
	for _, s := range slots {
		if sc := s.table.Table[s.sysno]; sc.Name != "userfaultfd" || sc.SupportLevel != kernel.SupportUnimplemented {
			t.Errorf("off: %v %d is %q (%v), want gVisor's userfaultfd, unimplemented", s.table.Arch, s.sysno, sc.Name, sc.SupportLevel)
		}
		if isClone4(s.table.Lookup(s.sysno)) {
			t.Errorf("off: %v %d calls Clone4", s.table.Arch, s.sysno)
		}
	}

	if err := Enable(LevelOn); err != nil {
		t.Fatal(err)
	}
	for _, s := range slots {
		if sc := s.table.Table[s.sysno]; sc.Name != "clone4" || sc.SupportLevel == kernel.SupportUnimplemented {
			t.Errorf("on: %v %d is %q (%v), want clone4, supported", s.table.Arch, s.sysno, sc.Name, sc.SupportLevel)
		}
		if !isClone4(s.table.Lookup(s.sysno)) {
			t.Errorf("on: %v %d does not call Clone4", s.table.Arch, s.sysno)
		}
	}
}

func isClone4(fn kernel.SyscallFn) bool {
	return reflect.ValueOf(fn).Pointer() == reflect.ValueOf(Clone4).Pointer()
}
