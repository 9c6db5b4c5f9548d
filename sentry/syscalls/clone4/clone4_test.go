// SPDX-License-Identifier: Apache-2.0

package clone4

import (
	"fmt"
	"testing"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/syscalls/linux"

	extlinux "runsc-ext/abi/linux"
	extsyscalls "runsc-ext/sentry/syscalls"
)

// TestDecode checks that the struct is a list of little-endian words in the patch's order,
// and that bytes that a caller does not pass are 0, even within a word.
func TestDecode(t *testing.T) {
	whole := make([]byte, extlinux.SizeOfClone4Args)
	for i := range whole {
		whole[i] = byte(0xf1 + i) // 0xf1 to 0xff, 0x00 to 0x18
	}
	for _, tc := range []struct {
		word, size int // size is what the caller passes
		want       extlinux.Clone4Args
	}{
		{word: 8, size: 0, want: extlinux.Clone4Args{}},
		{word: 8, size: 1, want: extlinux.Clone4Args{Ptid: 0xf1}},
		{word: 8, size: 8, want: extlinux.Clone4Args{Ptid: 0xf8f7f6f5f4f3f2f1}},
		{word: 8, size: 20, want: extlinux.Clone4Args{Ptid: 0xf8f7f6f5f4f3f2f1, Ctid: 0x00fffefdfcfbfaf9, StackStart: 0x04030201}},
		{word: 8, size: 39, want: extlinux.Clone4Args{Ptid: 0xf8f7f6f5f4f3f2f1, Ctid: 0x00fffefdfcfbfaf9, StackStart: 0x0807060504030201, StackSize: 0x100f0e0d0c0b0a09, TLS: 0x17161514131211}},
		{word: 8, size: 40, want: extlinux.Clone4Args{Ptid: 0xf8f7f6f5f4f3f2f1, Ctid: 0x00fffefdfcfbfaf9, StackStart: 0x0807060504030201, StackSize: 0x100f0e0d0c0b0a09, TLS: 0x1817161514131211}},

		// Words of x32 and i386 are not sign-extended.
		{word: 4, size: 0, want: extlinux.Clone4Args{}},
		{word: 4, size: 3, want: extlinux.Clone4Args{Ptid: 0xf3f2f1}},
		{word: 4, size: 4, want: extlinux.Clone4Args{Ptid: 0xf4f3f2f1}},
		{word: 4, size: 17, want: extlinux.Clone4Args{Ptid: 0xf4f3f2f1, Ctid: 0xf8f7f6f5, StackStart: 0xfcfbfaf9, StackSize: 0x00fffefd, TLS: 0x01}},
		{word: 4, size: 20, want: extlinux.Clone4Args{Ptid: 0xf4f3f2f1, Ctid: 0xf8f7f6f5, StackStart: 0xfcfbfaf9, StackSize: 0x00fffefd, TLS: 0x04030201}},
	} {
		for _, level := range []Level{LevelOn, LevelFD} {
			t.Run(fmt.Sprintf("%v,word %d,size %d", level, tc.word, tc.size), func(t *testing.T) {
				h := newHandler(level, tc.word)
				buf := make([]byte, h.fields*h.word)
				copy(buf, whole[:tc.size])
				if got, want := h.decode(buf), (extlinux.Clone4FDArgs{Clone4Args: tc.want}); got != want {
					t.Errorf("got %#x, want %#x", got, want)
				}
			})
		}
	}
}

// TestDecodeFD checks that the struct of level fd is that of level on with two more words.
func TestDecodeFD(t *testing.T) {
	whole := make([]byte, extlinux.SizeOfClone4FDArgs)
	for i := range whole {
		whole[i] = byte(i + 1)
	}
	for _, tc := range []struct {
		word, size int // size is what the caller passes
		clonefd    uint64
		flags      uint32
	}{
		{word: 8, size: 0, clonefd: 0, flags: 0},
		{word: 8, size: 40, clonefd: 0, flags: 0},
		{word: 8, size: 41, clonefd: 0x29, flags: 0},
		{word: 8, size: 48, clonefd: 0x302f2e2d2c2b2a29, flags: 0},
		{word: 8, size: 49, clonefd: 0x302f2e2d2c2b2a29, flags: 0x31},
		{word: 8, size: 52, clonefd: 0x302f2e2d2c2b2a29, flags: 0x34333231},
		{word: 8, size: 56, clonefd: 0x302f2e2d2c2b2a29, flags: 0x34333231}, // The rest is padding.
		{word: 4, size: 20, clonefd: 0, flags: 0},
		{word: 4, size: 23, clonefd: 0x171615, flags: 0},
		{word: 4, size: 24, clonefd: 0x18171615, flags: 0},
		{word: 4, size: 28, clonefd: 0x18171615, flags: 0x1c1b1a19},
	} {
		t.Run(fmt.Sprintf("word %d,size %d", tc.word, tc.size), func(t *testing.T) {
			h := newHandler(LevelFD, tc.word)
			buf := make([]byte, h.fields*h.word)
			copy(buf, whole[:tc.size])
			want := newHandler(LevelOn, tc.word).decode(buf)
			want.Clonefd, want.ClonefdFlags = tc.clonefd, tc.flags
			if got := h.decode(buf); got != want {
				t.Errorf("got %#x, want %#x", got, want)
			}
		})
	}
}

// TestEnable checks that both tables keep gVisor's calls at LevelOff, and have clone4 at
// LevelOn, in the map and in the array in which the sentry looks calls up.
func TestEnable(t *testing.T) {
	entries := []struct {
		table *kernel.SyscallTable
		sysno uintptr
	}{
		{table: linux.AMD64, sysno: extlinux.SYS_CLONE4_AMD64},
		{table: linux.ARM64, sysno: extlinux.SYS_CLONE4_GENERIC},
	}
	// EINVAL for an unknown flag tells clone4 from gVisor's userfaultfd, which returns
	// ENOSYS and needs a task for its event.
	isClone4 := func(fn kernel.SyscallFn) bool {
		defer func() { recover() }()
		_, _, err := fn(new(kernel.Task), 0, arch.SyscallArguments{{Value: 1}})
		return err == linuxerr.EINVAL
	}

	// LevelOff comes first: a process at LevelOn cannot return to LevelOff.
	if err := Enable(LevelOff, extsyscalls.Options{}); err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if sc := e.table.Table[e.sysno]; sc.Name != "userfaultfd" || sc.SupportLevel != kernel.SupportUnimplemented {
			t.Errorf("off: %v %d is %q (%v), want gVisor's userfaultfd, unimplemented", e.table.Arch, e.sysno, sc.Name, sc.SupportLevel)
		}
		if isClone4(e.table.Lookup(e.sysno)) {
			t.Errorf("off: %v %d calls clone4", e.table.Arch, e.sysno)
		}
	}

	if err := Enable(LevelOn, extsyscalls.Options{}); err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if sc := e.table.Table[e.sysno]; sc.Name != "clone4" || sc.SupportLevel == kernel.SupportUnimplemented {
			t.Errorf("on: %v %d is %q (%v), want clone4, supported", e.table.Arch, e.sysno, sc.Name, sc.SupportLevel)
		}
		if !isClone4(e.table.Lookup(e.sysno)) {
			t.Errorf("on: %v %d does not call clone4", e.table.Arch, e.sysno)
		}
	}
}

// TestWithoutStop checks that withoutStop refuses the flags that stop the caller, and
// otherwise adds CLONE_UNTRACED to the arguments and changes nothing else.
func TestWithoutStop(t *testing.T) {
	for _, tc := range []struct {
		name  string
		flags uint64
		want  bool
	}{
		{name: "fork", flags: 17, want: true},
		{name: "all but those that stop", flags: extlinux.CLONE4_FD_VALID_FLAGS &^ (extlinux.CLONE_VFORK | extlinux.CLONE_PTRACE), want: true},
		{name: "VFORK", flags: extlinux.CLONE_VM | extlinux.CLONE_VFORK | 17, want: false},
		{name: "PTRACE", flags: extlinux.CLONE_PTRACE | 17, want: false},
		{name: "VFORK UNTRACED", flags: extlinux.CLONE_VFORK | extlinux.CLONE_UNTRACED, want: false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			args := arch.SyscallArguments{{Value: 3}, {Value: uintptr(0xdead<<32 | tc.flags)}, {Value: 40}, {Value: 0x1000}}
			got, ok := withoutStop(args)
			if ok != tc.want {
				t.Errorf("withoutStop returns %t, want %t", ok, tc.want)
			}
			want := args
			if tc.want {
				want[1].Value |= extlinux.CLONE_UNTRACED
			}
			if got != want {
				t.Errorf("the arguments are %#x, want %#x", got, want)
			}
		})
	}
}
