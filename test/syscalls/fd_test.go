package syscalls

import (
	"encoding/binary"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

// fdSize returns the size of the args struct with the fields of CLONE_FD.
func (a *abi) fdSize() uintptr {
	if a.word == 4 {
		return linux.SizeOfCompatClone4FDArgs
	}
	return linux.SizeOfClone4FDArgs
}

// encodeFD is encode for the larger struct.
func (s *script) encodeFD(a *abi, args linux.Clone4FDArgs) []byte {
	buf := s.buffer(int(a.fdSize()))
	for i, v := range []uint64{args.Ptid, args.Ctid, args.StackStart, args.StackSize, args.TLS, args.Clonefd, uint64(args.ClonefdFlags)} {
		if a.word == 8 {
			binary.LittleEndian.PutUint64(buf[8*i:], v)
		} else {
			binary.LittleEndian.PutUint32(buf[4*i:], uint32(v))
		}
	}
	return buf
}

// clone4FD appends a call of clone4 with the larger struct. Without a Clonefd, the
// descriptor goes where the second result points to.
func (l *list) clone4FD(a *abi, flags uint64, args linux.Clone4FDArgs, child *list) (call *rawclone.Op, fd *uintptr) {
	fd = l.s.p.Word()
	*fd = noFD
	if args.Clonefd == 0 {
		args.Clonefd = uint64(rawclone.Addr(fd))
	}
	return l.clone4Raw(a, flags, a.fdSize(), addr(l.s.encodeFD(a, args)), child), fd
}

// noFD is in memory that the kernel has not written a descriptor to. One is 4 bytes,
// so that the upper half has to stay.
const noFD = 0x5a5a5a5a00000000 | 0xdeadbeef

// fdIn appends an operation whose result is the descriptor at fd, under what else is
// in the word: system calls take 32 bits.
func (l *list) fdIn(fd *uintptr) *rawclone.Op {
	return l.sys(rawclone.TrapLoad, fd)
}

const fdInfoSize = linux.SizeOfClonefdInfo

func clonefdInfo(t *testing.T, buf []byte) linux.ClonefdInfo {
	t.Helper()
	var info linux.ClonefdInfo
	if _, err := binary.Decode(buf, binary.LittleEndian, &info); err != nil {
		t.Fatal(err)
	}
	return info
}

const (
	cldExited = 1
	cldKilled = 2
)

// TestFDArgsSize protects that the struct has grown and nothing else has changed: any
// size up to the larger one is read, and not one byte more.
func TestFDArgsSize(t *testing.T) {
	onEachABI(t, func(t *testing.T, a *abi) {
		page := unix.Getpagesize()
		mem := memory(t, 2)
		if err := unix.Mprotect(mem[page:], unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
		end := addr(mem) + uintptr(page)
		for size := uintptr(0); size <= a.fdSize()+1; size++ {
			s := newScript(t)
			fits := s.clone4Raw(a, sigchld, size, end-size, s.exiting(0))
			s.wait(fits, 0)
			straddles := s.clone4Raw(a, sigchld, size, end-size+1, s.exiting(0))
			s.run()
			wantFits, wantStraddles := syscall.Errno(0), unix.EFAULT
			switch size {
			case 0:
				wantStraddles = 0
			case a.fdSize() + 1:
				wantFits, wantStraddles = unix.EINVAL, unix.EINVAL
			}
			if e := fits.Errno(); e != wantFits {
				t.Errorf("size %d: %s, want %s", size, errName(e), errName(wantFits))
			}
			if e := straddles.Errno(); e != wantStraddles {
				t.Errorf("size %d, ending in an unreadable page: %s, want %s", size, errName(e), errName(wantStraddles))
			}
		}
	})
}

// TestFDFlags protects which flags there are, and that a call that is refused has
// done nothing: no child, no descriptor, and no number where one would be.
func TestFDFlags(t *testing.T) {
	const fd, autoreap = linux.CLONE_FD | sigchld, linux.CLONE_AUTOREAP | sigchld
	onEachABI(t, func(t *testing.T, a *abi) {
		type test struct {
			flags   uint64
			fdFlags uint32
			want    syscall.Errno
		}
		tests := []test{
			{fd, unix.O_CLOEXEC | unix.O_NONBLOCK, 0},
			{fd, linux.CLONEFD_CLOEXEC | unix.O_CLOEXEC, 0},
			{fd, linux.CLONEFD_CLOEXEC | linux.CLONEFD_NONBLOCK | linux.CLONEFD_KILL_ON_CLOSE, 0},
			{fd, linux.CLONEFD_CLOEXEC | 8, unix.EINVAL},
			{fd | linux.CLONE_AUTOREAP, 0, 0},
			{fd | threadFlags, 0, unix.EINVAL},
			{fd | threadFlags | linux.CLONE_AUTOREAP, 0, unix.EINVAL},
			{fd | linux.CLONE_STOPPED, 0, unix.EINVAL},
			{fd | 1<<32, 0, unix.EINVAL},
			{autoreap, 0, 0},
			{autoreap | 1<<63, 0, unix.EINVAL},
			// Without CLONE_FD nobody looks there.
			{sigchld, ^uint32(0), 0},
			{autoreap, ^uint32(0), 0},
		}
		for bit := range 32 {
			want := syscall.Errno(0)
			switch f := uint32(1) << bit; f {
			case linux.CLONEFD_CLOEXEC, linux.CLONEFD_NONBLOCK, linux.CLONEFD_KILL_ON_CLOSE, unix.O_CLOEXEC, unix.O_NONBLOCK:
			default:
				want = unix.EINVAL
			}
			tests = append(tests, test{fd, 1 << bit, want})
		}
		for _, tc := range tests {
			s := newScript(t)
			before := s.sys(unix.SYS_DUP, 0)
			s.sys(unix.SYS_CLOSE, before)
			call, got := s.clone4FD(a, tc.flags, linux.Clone4FDArgs{ClonefdFlags: tc.fdFlags}, s.exiting(0))
			after := s.sys(unix.SYS_DUP, 0)
			s.sys(unix.SYS_WAIT4, -1, 0, unix.WALL)
			none := s.sys(unix.SYS_WAIT4, -1, 0, unix.WALL)
			s.run()
			s.ok(before, after)
			if e := call.Errno(); e != tc.want {
				t.Errorf("flags %#x, clonefd_flags %#x: %s, want %s", tc.flags, tc.fdFlags, errName(e), errName(tc.want))
			}
			if e := none.Errno(); e != unix.ECHILD {
				t.Errorf("flags %#x, clonefd_flags %#x: two children are left", tc.flags, tc.fdFlags)
			}
			wantFD, next := uintptr(noFD), before.Ret
			if tc.want == 0 && tc.flags&linux.CLONE_FD != 0 {
				wantFD = noFD&^0xffffffff | before.Ret
				next++
			}
			if *got != wantFD || after.Ret != next {
				t.Errorf("flags %#x, clonefd_flags %#x: *clonefd is %#x, and the next descriptor %d; want %#x and %d", tc.flags, tc.fdFlags, *got, after.Ret, wantFD, next)
			}
		}
	})
}

// TestFDNoChild protects that who cannot have the descriptor has no child either, and
// that nothing is left of the attempt.
func TestFDNoChild(t *testing.T) {
	onEachABI(t, func(t *testing.T, a *abi) {
		readOnly := memory(t, 1)
		if err := unix.Mprotect(readOnly, unix.PROT_READ); err != nil {
			t.Fatal(err)
		}
		for _, tc := range []struct {
			name    string
			clonefd uintptr
			noRoom  bool
			size    uintptr // what is left out of the struct
			want    syscall.Errno
		}{
			{name: "NULL", clonefd: 1, size: uintptr(2 * a.word), want: unix.EFAULT},
			{name: "first page", clonefd: 1, want: unix.EFAULT},
			{name: "read-only", clonefd: addr(readOnly), want: unix.EFAULT},
			{name: "table full", noRoom: true, want: unix.EMFILE},
			{name: "table full, read-only", clonefd: addr(readOnly), noRoom: true, want: unix.EMFILE},
		} {
			for _, flags := range []uint64{linux.CLONE_FD | sigchld, linux.CLONE_FD | linux.CLONE_AUTOREAP | sigchld, linux.CLONE_FD | linux.CLONE_VFORK | sigchld} {
				s := newScript(t)
				before := s.sys(unix.SYS_DUP, 0)
				s.sys(unix.SYS_CLOSE, before)
				if tc.noRoom {
					s.limitFiles(0)
				}
				ran := s.p.Word()
				child := s.newList()
				child.sys(rawclone.TrapStore, ran, 1)
				child.exit(0)
				call, fd := s.clone4FD(a, flags, linux.Clone4FDArgs{Clonefd: uint64(tc.clonefd)}, child)
				call.Args[2] -= tc.size
				none := s.sys(unix.SYS_WAIT4, -1, 0, unix.WALL|unix.WUNTRACED)
				pending := s.sys(unix.SYS_RT_SIGTIMEDWAIT, s.allSignals(), 0, addr(s.buffer(16)), 8)
				s.limitFiles(100)
				after := s.sys(unix.SYS_DUP, 0)
				s.run()
				if e := call.Errno(); e != tc.want {
					t.Errorf("%s, flags %#x: %s, want %s", tc.name, flags, errName(e), errName(tc.want))
				}
				if e := none.Errno(); e != unix.ECHILD || *ran != 0 {
					t.Errorf("%s, flags %#x: there is a child; it ran: %d", tc.name, flags, *ran)
				}
				if e := pending.Errno(); e != unix.EAGAIN {
					t.Errorf("%s, flags %#x: signal %d came", tc.name, flags, int(pending.Ret))
				}
				if *fd != noFD || after.Ret != before.Ret {
					t.Errorf("%s, flags %#x: *clonefd is %#x, and the next descriptor %d, was %d", tc.name, flags, *fd, after.Ret, before.Ret)
				}
			}
		}
	})
}

// allSignals returns the address of a set of all signals.
func (s *script) allSignals() *uintptr {
	all := s.p.Word()
	*all = ^uintptr(0)
	return all
}

// limitFiles appends a limit on descriptors, which can be raised again.
func (s *script) limitFiles(n uintptr) {
	limit := s.buffer(16)
	*word(limit), *word(limit[8:]) = n, 100
	s.sys(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, addr(limit), 0)
}

// TestFDRead protects what is read from a descriptor: how the child has ended, once,
// however it ended and whoever has waited for it by then.
func TestFDRead(t *testing.T) {
	onEachABI(t, func(t *testing.T, a *abi) {
		for _, tc := range []struct {
			name   string
			flags  uint64
			signal int // that the child ends by
			status int // that it exits with
			waited bool
			want   linux.ClonefdInfo // without times
		}{
			{"exit", sigchld, 0, 7, false, linux.ClonefdInfo{Code: cldExited, Status: 7}},
			{"exit, 8 bits", sigchld, 0, 0x1ff, false, linux.ClonefdInfo{Code: cldExited, Status: 0xff}},
			{"signal", sigchld, int(unix.SIGKILL), 0, false, linux.ClonefdInfo{Code: cldKilled, Status: int32(unix.SIGKILL)}},
			{"waited for", sigchld, 0, 7, true, linux.ClonefdInfo{Code: cldExited, Status: 7}},
			{"signal, waited for", sigchld, int(unix.SIGKILL), 7, true, linux.ClonefdInfo{Code: cldKilled, Status: int32(unix.SIGKILL)}},
			{"no exit signal", 0, 0, 7, false, linux.ClonefdInfo{Code: cldExited, Status: 7}},
			{"autoreap", linux.CLONE_AUTOREAP | sigchld, 0, 7, false, linux.ClonefdInfo{Code: cldExited, Status: 7}},
			{"autoreap, signal", linux.CLONE_AUTOREAP | sigchld, int(unix.SIGKILL), 7, false, linux.ClonefdInfo{Code: cldKilled, Status: int32(unix.SIGKILL)}},
			{"autoreap, no exit signal", linux.CLONE_AUTOREAP, 0, 7, false, linux.ClonefdInfo{Code: cldExited, Status: 7}},
			{"vfork", linux.CLONE_VFORK | sigchld, 0, 7, false, linux.ClonefdInfo{Code: cldExited, Status: 7}},
		} {
			s := newScript(t)
			buf, pollfd := s.buffer(32), s.buffer(8)
			child := s.newList()
			if tc.signal != 0 {
				child.sys(unix.SYS_KILL, child.sys(unix.SYS_GETPID), tc.signal)
			}
			child.exit(tc.status)
			call, fdAt := s.clone4FD(a, tc.flags|linux.CLONE_FD, linux.Clone4FDArgs{}, child)
			fd := s.fdIn(fdAt)
			if tc.waited {
				s.wait(call, unix.WALL)
			}
			copied := s.sys(unix.SYS_DUP, fd)
			small := s.sys(unix.SYS_READ, fd, addr(buf), fdInfoSize-1)
			unreadable := s.sys(unix.SYS_READ, fd, 1, fdInfoSize)
			first := s.sys(unix.SYS_READ, fd, addr(buf), len(buf))
			second := s.sys(unix.SYS_READ, copied, addr(s.buffer(fdInfoSize)), fdInfoSize)
			pread := s.sys(unix.SYS_PREAD64, fd, addr(s.buffer(fdInfoSize)), fdInfoSize, 0)
			seek := s.sys(unix.SYS_LSEEK, fd, 0, 0)
			s.store32(pollfd, 0, fd)
			binary.LittleEndian.PutUint16(pollfd[4:], unix.POLLIN)
			poll := s.sys(unix.SYS_PPOLL, addr(pollfd), 1, addr(s.buffer(16)), 0, 0)
			wait, _ := s.wait(call, unix.WALL)
			s.run()
			s.ok(call)
			got := clonefdInfo(t, buf)
			if got.Utime > 60e6 || got.Stime > 60e6 {
				t.Errorf("%s: the child took %d and %d us", tc.name, got.Utime, got.Stime)
			}
			got.Utime, got.Stime = 0, 0
			if got != tc.want || first.Ret != fdInfoSize {
				t.Errorf("%s: read %d bytes, %+v, want %d, %+v", tc.name, int(first.Ret), got, fdInfoSize, tc.want)
			}
			wantWait := syscall.Errno(0)
			if tc.waited || tc.flags&linux.CLONE_AUTOREAP != 0 {
				wantWait = unix.ECHILD
			}
			for _, check := range []struct {
				what string
				op   *rawclone.Op
				want syscall.Errno
			}{
				{"read into less than the info", small, unix.EINVAL},
				{"read into unmapped memory", unreadable, unix.EFAULT},
				{"second read", second, 0},
				{"pread", pread, unix.ESPIPE},
				{"lseek", seek, unix.ESPIPE},
				{"poll", poll, 0},
				{"wait", wait, wantWait},
			} {
				if e := check.op.Errno(); e != check.want {
					t.Errorf("%s: %s: %s, want %s", tc.name, check.what, errName(e), errName(check.want))
				}
			}
			if second.Ret != 0 || poll.Ret != 1 {
				t.Errorf("%s: the second read returned %d, and poll after it %d; want 0 and 1", tc.name, int(second.Ret), int(poll.Ret))
			}
		}
	})
}

// store32 appends the storing of a result, or a descriptor, at buf[at:at+4]. The word
// around it is written, so what follows it must be stored after.
func (l *list) store32(buf []byte, at int, v any) {
	l.sys(rawclone.TrapStore, addr(buf)+uintptr(at), v)
}
