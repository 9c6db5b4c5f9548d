// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"fmt"
	"math"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// TestArgsSize checks that every size up to that of the struct is valid, and that the kernel
// reads exactly args_size bytes. A struct that grows depends on both.
func TestArgsSize(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		page := unix.Getpagesize()
		mem := kit.Memory(t, 2)
		if err := unix.Mprotect(mem[page:], unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
		end := rawclone.AddrOf(mem) + uintptr(page)
		for size := uintptr(0); size <= a.Size(); size++ {
			t.Run(fmt.Sprint(size), func(t *testing.T) {
				s := kit.NewScript(t)
				fits := a.Clone4Raw(s.List, kit.SIGCHLD, size, end-size, s.Exiting(0))
				s.Wait(fits, 0)
				straddles := a.Clone4Raw(s.List, kit.SIGCHLD, size, end-size+1, s.Exiting(0))
				s.Run()
				kit.CheckErrno(t, "up to an unreadable page", fits, 0)
				want := unix.EFAULT
				if size == 0 {
					want = 0
				}
				kit.CheckErrno(t, "with one byte in an unreadable page", straddles, want)
			})
		}
	})
}

// TestArgsErrors checks the order of errors: EINVAL for the size, EFAULT for the pointer, and
// then EINVAL for the flags.
func TestArgsErrors(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		sizes := []uint64{0, 1, 4, 8, 20, 21, uint64(a.Size()), uint64(a.Size()) + 1, 4096, math.MaxInt32, 1 << 31, 1 << 32, 1<<32 + 8, math.MaxInt64, 1 << 63, math.MaxUint64}
		if testing.Short() {
			sizes = []uint64{0, 1, uint64(a.Size()), uint64(a.Size()) + 1, 1 << 63}
		}
		for _, p := range []struct {
			name string
			addr uintptr
			bad  bool
		}{
			{name: "good", addr: rawclone.AddrOf(kit.Memory(t, 1))},
			{name: "NULL", bad: true},
			{name: "unreadable", addr: rawclone.AddrOf(kit.Protected(t, 1, unix.PROT_NONE)), bad: true},
			{name: "first page", addr: 1, bad: true},
			{name: "end of user memory", addr: 0x7ffffffff000, bad: true},
			{name: "kernel", addr: 0xffff800000000000, bad: true},
			{name: "non-canonical", addr: 1 << 63, bad: true},
			{name: "last byte", addr: ^uintptr(0), bad: true},
		} {
			for _, size := range sizes {
				t.Run(fmt.Sprintf("%s/size=%#x", p.name, size), func(t *testing.T) {
					flags := []uint64{kit.SIGCHLD, linux.CLONE_DETACHED | kit.SIGCHLD, 1<<32 | kit.SIGCHLD, 1<<63 | kit.SIGCHLD}
					s := kit.NewScript(t)
					var calls []*rawclone.Op
					for _, f := range flags {
						call := a.Clone4Raw(s.List, f, uintptr(size), p.addr, s.Exiting(0))
						s.Wait(call, 0)
						calls = append(calls, call)
					}
					s.Run()
					for i, f := range flags {
						var want syscall.Errno
						switch size := a.Truncate(size); {
						case size > uint64(a.Size()):
							want = unix.EINVAL
						case size > 0 && p.bad:
							want = unix.EFAULT
						case f != kit.SIGCHLD:
							want = unix.EINVAL
						}
						kit.CheckErrno(t, kit.Flags(f), calls[i], want)
					}
				})
			}
		}
	})
}

// TestArgsUnreadable checks a struct at addresses that are unmapped, unreadable or invalid. A
// page of userfaultfd(2), which would make its reader wait, does not exist in gVisor.
func TestArgsUnreadable(t *testing.T) {
	page := unix.Getpagesize()
	// file maps pages of a file that has only the first page.
	file := func(t *testing.T, flags int) []byte {
		f, err := os.CreateTemp("", "clone4-args-*")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		defer os.Remove(f.Name())
		if err := f.Truncate(int64(2 * page)); err != nil {
			t.Fatal(err)
		}
		mem := kit.Mapping(t, int(f.Fd()), 2, unix.PROT_READ, flags)
		if err := f.Truncate(int64(page)); err != nil {
			t.Fatal(err)
		}
		return mem
	}
	protected := func(prot int) func(t *testing.T) []byte {
		return func(t *testing.T) []byte { return kit.Protected(t, 1, prot) }
	}
	zero := func(prot, flags int) func(t *testing.T) []byte {
		return func(t *testing.T) []byte {
			fd, err := unix.Open("/dev/zero", unix.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			return kit.Mapping(t, fd, 1, prot, flags)
		}
	}
	const all = unix.PROT_READ | unix.PROT_WRITE | unix.PROT_EXEC
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		for _, tc := range []struct {
			name string
			mem  func(t *testing.T) []byte // the struct is at its end
			want syscall.Errno
		}{
			{name: "PROT_NONE", mem: protected(unix.PROT_NONE), want: unix.EFAULT},
			{name: "PROT_READ", mem: protected(unix.PROT_READ)},
			{name: "PROT_WRITE", mem: protected(unix.PROT_WRITE)}, // this hardware has no write-only pages
			{name: "unmapped", mem: func(t *testing.T) []byte {
				// A hole of one page, which stays unmapped.
				mem := kit.Memory(t, 3)
				unmap(t, mem[page:2*page])
				return mem[:2*page]
			}, want: unix.EFAULT},
			{name: "private file", mem: func(t *testing.T) []byte { return file(t, unix.MAP_PRIVATE)[:page] }},
			{name: "shared file", mem: func(t *testing.T) []byte { return file(t, unix.MAP_SHARED)[:page] }},
			{name: "private file, past its end", mem: func(t *testing.T) []byte { return file(t, unix.MAP_PRIVATE) }, want: unix.EFAULT},
			{name: "shared file, past its end", mem: func(t *testing.T) []byte { return file(t, unix.MAP_SHARED) }, want: unix.EFAULT},
			{name: "shared file, across its end", mem: func(t *testing.T) []byte { return file(t, unix.MAP_SHARED)[:page+1] }, want: unix.EFAULT},
			{name: "private device", mem: zero(unix.PROT_READ, unix.MAP_PRIVATE)},
			{name: "shared device", mem: zero(all, unix.MAP_SHARED)},
			{name: "device not to be read", mem: zero(unix.PROT_NONE, unix.MAP_SHARED), want: unix.EFAULT},
			{name: "below the heap", mem: func(t *testing.T) []byte {
				return kit.Mapping(t, -1, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_GROWSDOWN)
			}},
		} {
			t.Run(tc.name, func(t *testing.T) {
				mem := tc.mem(t)
				s := kit.NewScript(t)
				call := a.Clone4Raw(s.List, kit.SIGCHLD, a.Size(), rawclone.AddrOf(mem)+uintptr(len(mem))-a.Size(), s.Exiting(0))
				s.Wait(call, 0)
				s.Run()
				kit.CheckErrno(t, "clone4", call, tc.want)
			})
		}
	})
}

// TestArgsNotPassed checks that bytes that are not passed are 0, even within a field. The first
// field has an address whose low 3 bytes are 0. With args_size 4 the address is complete, and
// with a smaller size it is NULL.
func TestArgsNotPassed(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		const where = 0x60000000
		ptid := wordAt(t, where)
		for size := uintptr(0); size <= a.Size(); size++ {
			t.Run(fmt.Sprint(size), func(t *testing.T) {
				*ptid = 0
				s := kit.NewScript(t)
				args := kit.Put(s.List, a.Encode(linux.Clone4Args{Ptid: where}))
				call := a.Clone4Raw(s.List, linux.CLONE_PARENT_SETTID|kit.SIGCHLD, size, rawclone.AddrOf(args), s.Exiting(0))
				s.Wait(call, 0)
				s.Run()
				s.OK(call)
				want := call.Ret
				if size < 4 {
					want = 0
				}
				kit.CheckRet(t, "*ptid", *ptid, want)
			})
		}
	})
}

// TestArgsUpperHalves checks that clone4 ignores the upper halves of the registers of flags_high
// and flags_low.
func TestArgsUpperHalves(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		const garbage = 0xdeadbeef << 32
		s := kit.NewScript(t)
		call := a.Clone4(s.List, kit.SIGCHLD, linux.Clone4Args{}, s.Exiting(0))
		call.Args[0] |= garbage
		call.Args[1] |= garbage
		wait, _ := s.Wait(call, 0)
		bad := a.Clone4(s.List, 1<<32|kit.SIGCHLD, linux.Clone4Args{}, s.Exiting(0))
		bad.Args[0] |= garbage
		s.Run()
		s.OK(call, wait)
		kit.CheckErrno(t, "flags_high 1 below garbage", bad, unix.EINVAL)
	})
}
