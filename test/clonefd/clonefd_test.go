// SPDX-License-Identifier: Apache-2.0

package clonefd

import (
	"encoding/binary"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

const fdInfoSize = linux.SizeOfClonefdInfo

func clonefdInfo(t *testing.T, buf []byte) linux.ClonefdInfo {
	t.Helper()
	var info linux.ClonefdInfo
	if _, err := binary.Decode(buf, binary.LittleEndian, &info); err != nil {
		t.Fatal(err)
	}
	return info
}

// TestFDArgsSize checks that every size up to that of the larger struct is valid, and that the
// kernel reads exactly args_size bytes.
func TestFDArgsSize(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		page := unix.Getpagesize()
		mem := kit.Memory(t, 2)
		if err := unix.Mprotect(mem[page:], unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
		end := rawclone.AddrOf(mem) + uintptr(page)
		for size := uintptr(0); size <= a.FDSize()+1; size++ {
			t.Run(fmt.Sprint(size), func(t *testing.T) {
				s := kit.NewScript(t)
				fits := a.Clone4Raw(s.List, kit.SIGCHLD, size, end-size, s.Exiting(0))
				s.Wait(fits, 0)
				straddles := a.Clone4Raw(s.List, kit.SIGCHLD, size, end-size+1, s.Exiting(0))
				s.Run()
				wantFits, wantStraddles := syscall.Errno(0), unix.EFAULT
				switch size {
				case 0:
					wantStraddles = 0
				case a.FDSize() + 1:
					wantFits, wantStraddles = unix.EINVAL, unix.EINVAL
				}
				kit.CheckErrno(t, "up to an unreadable page", fits, wantFits)
				kit.CheckErrno(t, "ending in an unreadable page", straddles, wantStraddles)
			})
		}
	})
}

// TestFDFlags checks which flags are valid, and that a refused call creates no child and no
// descriptor, and does not write to *clonefd.
func TestFDFlags(t *testing.T) {
	const fd, autoreap = linux.CLONE_FD | kit.SIGCHLD, linux.CLONE_AUTOREAP | kit.SIGCHLD
	type test struct {
		flags   uint64
		fdFlags uint32
		want    syscall.Errno
	}
	tests := []test{
		{flags: fd, fdFlags: unix.O_CLOEXEC | unix.O_NONBLOCK},
		{flags: fd, fdFlags: linux.CLONEFD_CLOEXEC | unix.O_CLOEXEC},
		{flags: fd, fdFlags: linux.CLONEFD_CLOEXEC | linux.CLONEFD_NONBLOCK | linux.CLONEFD_KILL_ON_CLOSE},
		{flags: fd, fdFlags: linux.CLONEFD_CLOEXEC | 8, want: unix.EINVAL},
		{flags: fd | linux.CLONE_AUTOREAP},
		{flags: fd | kit.ThreadFlags, want: unix.EINVAL},
		{flags: fd | kit.ThreadFlags | linux.CLONE_AUTOREAP, want: unix.EINVAL},
		{flags: fd | linux.CLONE_STOPPED, want: unix.EINVAL},
		{flags: fd | 1<<32, want: unix.EINVAL},
		{flags: autoreap},
		{flags: autoreap | 1<<63, want: unix.EINVAL},
		// Without CLONE_FD, clonefd_flags is ignored.
		{flags: kit.SIGCHLD, fdFlags: ^uint32(0)},
		{flags: autoreap, fdFlags: ^uint32(0)},
	}
	for bit := range 32 {
		want := syscall.Errno(0)
		switch f := uint32(1) << bit; f {
		case linux.CLONEFD_CLOEXEC, linux.CLONEFD_NONBLOCK, linux.CLONEFD_KILL_ON_CLOSE, unix.O_CLOEXEC, unix.O_NONBLOCK:
		default:
			want = unix.EINVAL
		}
		tests = append(tests, test{flags: fd, fdFlags: 1 << bit, want: want})
	}
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		for _, tc := range tests {
			t.Run(strings.ReplaceAll(kit.Flags(tc.flags)+","+kit.FDFlags(tc.fdFlags), "|", ","), func(t *testing.T) {
				s := kit.NewScript(t)
				before := s.Sys(unix.SYS_DUP, 0)
				s.Sys(unix.SYS_CLOSE, before)
				call, got := a.Clone4FD(s.List, tc.flags, linux.Clone4FDArgs{ClonefdFlags: tc.fdFlags}, s.Exiting(0))
				after := s.Sys(unix.SYS_DUP, 0)
				s.Sys(unix.SYS_WAIT4, -1, 0, unix.WALL)
				none := s.Sys(unix.SYS_WAIT4, -1, 0, unix.WALL)
				s.Run()
				s.OK(before, after)
				kit.CheckErrno(t, "clone4", call, tc.want)
				kit.CheckErrno(t, "wait4 for a second child", none, unix.ECHILD)
				wantFD, next := kit.NoFD, before.Ret
				if tc.want == 0 && tc.flags&linux.CLONE_FD != 0 {
					wantFD = kit.NoFD&^0xffffffff | before.Ret
					next++
				}
				kit.CheckRet(t, "*clonefd", *got, wantFD)
				kit.CheckRet(t, "the next descriptor", after.Ret, next)
			})
		}
	})
}

// TestFDNoChild checks that a call that cannot create the descriptor creates no child either, and
// leaves nothing behind.
func TestFDNoChild(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		readOnly := rawclone.AddrOf(kit.Protected(t, 1, unix.PROT_READ))
		for _, tc := range []struct {
			name    string
			clonefd uintptr
			noRoom  bool
			size    uintptr // bytes that the call leaves out of the struct
			want    syscall.Errno
		}{
			{name: "NULL", clonefd: 1, size: uintptr(2 * a.Word), want: unix.EFAULT},
			{name: "first page", clonefd: 1, want: unix.EFAULT},
			{name: "read-only", clonefd: readOnly, want: unix.EFAULT},
			{name: "table full", noRoom: true, want: unix.EMFILE},
			{name: "table full, read-only", clonefd: readOnly, noRoom: true, want: unix.EMFILE},
		} {
			t.Run(tc.name, func(t *testing.T) {
				kit.OnEach(t, []uint64{
					linux.CLONE_FD | kit.SIGCHLD,
					linux.CLONE_FD | linux.CLONE_AUTOREAP | kit.SIGCHLD,
					linux.CLONE_FD | linux.CLONE_VFORK | kit.SIGCHLD,
				}, func(t *testing.T, flags uint64) {
					s := kit.NewScript(t)
					before := s.Sys(unix.SYS_DUP, 0)
					s.Sys(unix.SYS_CLOSE, before)
					if tc.noRoom {
						limitFiles(s, 0)
					}
					ran := s.Word()
					child := s.NewList()
					child.Sys(rawclone.TrapStore, ran, 1)
					child.Exit(0)
					call, fd := a.Clone4FD(s.List, flags, linux.Clone4FDArgs{Clonefd: uint64(tc.clonefd)}, child)
					call.Args[2] -= tc.size
					none := s.Sys(unix.SYS_WAIT4, -1, 0, unix.WALL|unix.WUNTRACED)
					signal := noSignal(s)
					limitFiles(s, 100)
					after := s.Sys(unix.SYS_DUP, 0)
					s.Run()
					kit.CheckErrno(t, "clone4", call, tc.want)
					kit.CheckErrno(t, "wait4 for any child", none, unix.ECHILD)
					kit.CheckRet(t, "what a child has stored", *ran, 0)
					kit.CheckErrno(t, "waiting for a signal", signal, unix.EAGAIN)
					kit.CheckRet(t, "*clonefd", *fd, kit.NoFD)
					kit.CheckRet(t, "the next descriptor", after.Ret, before.Ret)
				})
			})
		}
	})
}

// limitFiles appends a call that limits descriptors to n. A later call can raise the limit.
func limitFiles(s *kit.Script, n uintptr) {
	limit := s.Buffer(16)
	*rawclone.WordOf(limit), *rawclone.WordOf(limit[8:]) = n, 100
	s.Sys(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, limit, 0)
}

// TestFDRead checks that the first read returns how the child exited, and that later reads return
// end of file. An earlier wait call for the child makes no difference.
func TestFDRead(t *testing.T) {
	exited := linux.ClonefdInfo{Code: kit.CLD_EXITED, Status: 7}
	killed := linux.ClonefdInfo{Code: kit.CLD_KILLED, Status: int32(unix.SIGKILL)}
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		for _, tc := range []struct {
			name   string
			flags  uint64
			signal int // that the child sends itself
			status int // that it exits with
			waited bool
			want   linux.ClonefdInfo // without times
		}{
			{name: "exit", flags: kit.SIGCHLD, status: 7, want: exited},
			{name: "exit, 8 bits", flags: kit.SIGCHLD, status: 0x107, want: exited},
			{name: "signal", flags: kit.SIGCHLD, signal: int(unix.SIGKILL), want: killed},
			{name: "waited for", flags: kit.SIGCHLD, status: 7, waited: true, want: exited},
			{name: "signal, waited for", flags: kit.SIGCHLD, signal: int(unix.SIGKILL), status: 7, waited: true, want: killed},
			{name: "no exit signal", status: 7, want: exited},
			{name: "autoreap", flags: linux.CLONE_AUTOREAP | kit.SIGCHLD, status: 7, want: exited},
			{name: "autoreap, signal", flags: linux.CLONE_AUTOREAP | kit.SIGCHLD, signal: int(unix.SIGKILL), status: 7, want: killed},
			{name: "autoreap, no exit signal", flags: linux.CLONE_AUTOREAP, status: 7, want: exited},
			{name: "vfork", flags: linux.CLONE_VFORK | kit.SIGCHLD, status: 7, want: exited},
		} {
			t.Run(tc.name, func(t *testing.T) {
				s := kit.NewScript(t)
				buf, pollfd := s.Buffer(32), s.Buffer(8)
				child := s.NewList()
				if tc.signal != 0 {
					child.Sys(unix.SYS_KILL, child.Sys(unix.SYS_GETPID), tc.signal)
				}
				child.Exit(tc.status)
				call, fdAt := a.Clone4FD(s.List, tc.flags|linux.CLONE_FD, linux.Clone4FDArgs{}, child)
				fd := kit.LoadFD(s.List, fdAt)
				if tc.waited {
					s.Wait(call, unix.WALL)
				}
				copied := s.Sys(unix.SYS_DUP, fd)
				empty := s.Sys(unix.SYS_READ, fd, buf, 0)
				unreadable := s.Sys(unix.SYS_READ, fd, 1, fdInfoSize)
				first := s.Sys(unix.SYS_READ, fd, buf, len(buf))
				second := s.Sys(unix.SYS_READ, copied, s.Buffer(fdInfoSize), fdInfoSize)
				pread := s.Sys(unix.SYS_PREAD64, fd, s.Buffer(fdInfoSize), fdInfoSize, 0)
				seek := s.Sys(unix.SYS_LSEEK, fd, 0, 0)
				store32(s.List, pollfd, 0, fd)
				binary.LittleEndian.PutUint16(pollfd[4:], unix.POLLIN)
				poll := s.Sys(unix.SYS_PPOLL, pollfd, 1, s.Timespec(0), 0, 0)
				wait, _ := s.Wait(call, unix.WALL)
				s.Run()
				s.OK(call)
				got := clonefdInfo(t, buf)
				if got.Utime > 60e6 || got.Stime > 60e6 {
					t.Errorf("the CPU times of the child are %d and %d us, want less than a minute", got.Utime, got.Stime)
				}
				got.Utime, got.Stime = 0, 0
				if got != tc.want || first.Ret != fdInfoSize {
					t.Errorf("read %d bytes, %+v, want %d, %+v", int(first.Ret), got, fdInfoSize, tc.want)
				}
				wantWait := syscall.Errno(0)
				if tc.waited || tc.flags&linux.CLONE_AUTOREAP != 0 {
					wantWait = unix.ECHILD
				}
				kit.CheckRet(t, "read of 0 bytes", empty.Ret, 0)
				kit.CheckErrno(t, "read into unmapped memory", unreadable, unix.EFAULT)
				kit.CheckRet(t, "second read", second.Ret, 0)
				kit.CheckErrno(t, "pread", pread, unix.ESPIPE)
				kit.CheckErrno(t, "lseek", seek, unix.ESPIPE)
				kit.CheckRet(t, "poll", poll.Ret, 1)
				kit.CheckErrno(t, "wait4", wait, wantWait)
			})
		}
	})
}

// store32 appends a store of a result or a descriptor at buf[at:at+4]. It stores a whole word, so
// the bytes behind it must be stored later.
func store32(l *rawclone.List, buf []byte, at int, v any) {
	l.Sys(rawclone.TrapStore, rawclone.AddrOf(buf)+uintptr(at), v)
}
