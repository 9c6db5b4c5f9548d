package syscalls

import (
	"math"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

const sigchld = uint64(unix.SIGCHLD)

// TestArgsSize protects what makes the struct extensible: any size up to the
// struct's is read, and not one byte more.
func TestArgsSize(t *testing.T) {
	onEachABI(t, func(t *testing.T, a *abi) {
		page := unix.Getpagesize()
		mem := memory(t, 2)
		if err := unix.Mprotect(mem[page:], unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
		end := addr(mem) + uintptr(page)
		for size := uintptr(0); size <= a.size(); size++ {
			s := newScript(t)
			fits := s.clone4Raw(a, sigchld, size, end-size, s.exiting(0))
			s.wait(fits, 0)
			// One byte of it is beyond the readable page.
			straddles := s.clone4Raw(a, sigchld, size, end-size+1, s.exiting(0))
			s.run()
			if e := fits.Errno(); e != 0 {
				t.Errorf("size %d, ending at an unreadable page: %v", size, errName(e))
			}
			want := unix.EFAULT
			if size == 0 {
				want = 0
			}
			if e := straddles.Errno(); e != want {
				t.Errorf("size %d, ending in an unreadable page: %v, want %v", size, errName(e), errName(want))
			}
		}
	})
}

// TestArgsErrors protects which error a call ends with: a wrong size beats a bad
// pointer, and a bad pointer a bad flag.
func TestArgsErrors(t *testing.T) {
	onEachABI(t, func(t *testing.T, a *abi) {
		const badFlag = uint64(linux.CLONE_DETACHED) | sigchld
		good := addr(memory(t, 1))
		unreadable := memory(t, 1)
		if err := unix.Mprotect(unreadable, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
		pointers := []struct {
			name string
			addr uintptr
			bad  bool
		}{
			{"good", good, false},
			{"NULL", 0, true},
			{"unreadable", addr(unreadable), true},
			{"first page", 1, true},
			{"end of user memory", 0x7ffffffff000, true},
			{"kernel", 0xffff800000000000, true},
			{"non-canonical", 1 << 63, true},
			{"last byte", ^uintptr(0), true},
		}
		sizes := []uint64{0, 1, 4, 8, 20, 21, uint64(a.size()), uint64(a.size()) + 1, 4096, math.MaxInt32, 1 << 31, 1 << 32, 1<<32 + 8, math.MaxInt64, 1 << 63, math.MaxUint64}
		if testing.Short() {
			sizes = []uint64{0, 1, uint64(a.size()), uint64(a.size()) + 1, 1 << 63}
		}
		flags := []uint64{sigchld, badFlag, 1<<32 | sigchld, 1<<63 | sigchld}
		for _, p := range pointers {
			for _, size := range sizes {
				s := newScript(t)
				var calls []*rawclone.Op
				for _, f := range flags {
					call := s.clone4Raw(a, f, uintptr(size), p.addr, s.exiting(0))
					s.wait(call, 0)
					calls = append(calls, call)
				}
				s.run()
				for i, f := range flags {
					var want syscall.Errno
					switch size := a.inWord(size); {
					case size > uint64(a.size()):
						want = unix.EINVAL
					case size > 0 && p.bad:
						want = unix.EFAULT
					case f != sigchld:
						want = unix.EINVAL
					}
					if got := calls[i].Errno(); got != want {
						t.Errorf("flags %#x, size %d, pointer %s (%#x): %s, want %s", f, size, p.name, p.addr, errName(got), errName(want))
					}
				}
			}
		}
	})
}

// TestArgsUnreadable protects against memory that is mapped and still not to be
// read.
func TestArgsUnreadable(t *testing.T) {
	onEachABI(t, func(t *testing.T, a *abi) {
		for _, tc := range []struct {
			name string
			prot int
			want syscall.Errno
		}{
			{"PROT_NONE", unix.PROT_NONE, unix.EFAULT},
			{"PROT_READ", unix.PROT_READ, 0},
			{"PROT_WRITE", unix.PROT_WRITE, 0}, // no such thing as write-only on this hardware
		} {
			mem := memory(t, 1)
			if err := unix.Mprotect(mem, tc.prot); err != nil {
				t.Fatal(err)
			}
			s := newScript(t)
			call := s.clone4Raw(a, sigchld, a.size(), addr(mem), s.exiting(0))
			s.wait(call, 0)
			s.run()
			if got := call.Errno(); got != tc.want {
				t.Errorf("%s: %s, want %s", tc.name, errName(got), errName(tc.want))
			}
		}
	})
}

// TestArgsNotPassed protects that what is not passed is 0, down to part of a
// field. The address of a word whose low 3 bytes are 0 is passed in the struct's
// first field, byte by byte: with 4 bytes it is whole, with less it is NULL.
func TestArgsNotPassed(t *testing.T) {
	onEachABI(t, func(t *testing.T, a *abi) {
		const where = 0x60000000
		ptid := wordAt(t, where)
		for size := uintptr(0); size <= a.size(); size++ {
			*ptid = 0
			s := newScript(t)
			call := s.clone4Raw(a, linux.CLONE_PARENT_SETTID|sigchld, size, s.encode(a, linux.Clone4Args{Ptid: where}), s.exiting(0))
			s.wait(call, 0)
			s.run()
			s.ok(call)
			want := call.Ret
			if size < 4 {
				want = 0
			}
			if *ptid != want {
				t.Errorf("size %d: %d at the address passed, want %d", size, *ptid, want)
			}
		}
	})
}

// TestArgsUpperHalves protects that flags_high and flags_low are 32-bit words,
// whatever their registers' upper halves hold.
func TestArgsUpperHalves(t *testing.T) {
	onEachABI(t, func(t *testing.T, a *abi) {
		const garbage = 0xdeadbeef << 32
		s := newScript(t)
		call := s.clone4(a, sigchld, linux.Clone4Args{}, s.exiting(0))
		call.Args[0] |= garbage
		call.Args[1] |= garbage
		wait, _ := s.wait(call, 0)
		bad := s.clone4(a, 1<<32|sigchld, linux.Clone4Args{}, s.exiting(0))
		bad.Args[0] |= garbage
		s.run()
		s.ok(call, wait)
		if got := bad.Errno(); got != unix.EINVAL {
			t.Errorf("flags_high 1 below garbage: %s, want EINVAL", errName(got))
		}
	})
}
