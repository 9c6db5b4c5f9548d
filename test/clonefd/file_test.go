// SPDX-License-Identifier: Apache-2.0

package clonefd

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// In the tests in this file, the parent is the Go program itself.

// fdChild is a child of the test's own process, created with CLONE_FD.
type fdChild struct {
	t   *testing.T
	pid int
	fd  int

	// gate is the write end of a pipe. The child waits until it reads a byte from the pipe.
	gate *os.File
}

// newFDChild creates a child that waits at its gate, executes what then appends, and exits with
// status 7.
func newFDChild(t *testing.T, flags uint64, fdFlags uint32, then func(l *rawclone.List)) *fdChild {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s := kit.NewScript(t)
	l := s.NewList()
	l.Sys(unix.SYS_CLOSE, int(w.Fd()))
	l.Sys(unix.SYS_READ, int(r.Fd()), rawclone.AddrOf(s.Buffer(8)), 1)
	if then != nil {
		then(l)
	}
	l.Exit(7)
	call, fd := kit.Default().Clone4FD(s.NewList(), flags|linux.CLONE_FD, linux.Clone4FDArgs{ClonefdFlags: fdFlags}, l)
	pid, errno := rawclone.Do(call)
	if errno != 0 {
		t.Fatalf("clone4 with flags %s: %v", kit.Flags(flags), errno)
	}
	c := &fdChild{t: t, pid: int(pid), fd: int(int32(*fd)), gate: w}
	t.Cleanup(func() {
		unix.Kill(c.pid, unix.SIGKILL)
		unix.Wait4(c.pid, nil, unix.WALL, nil)
		unix.Close(c.fd)
		w.Close()
	})
	return c
}

// finish opens the gate, so that the child exits.
func (c *fdChild) finish() { c.gate.Write(make([]byte, 1)) }

// read reads the info from fd.
func read(fd int) (info linux.ClonefdInfo, n int, err error) {
	buf := make([]byte, 100)
	for {
		n, err = unix.Read(fd, buf)
		if err != unix.EINTR {
			break
		}
	}
	if n == fdInfoSize {
		info.Code, info.Status = int32(buf[0]), int32(buf[4])
	}
	return info, n, err
}

// await waits until fd reports the exit of the child. It fails the test after 20 seconds.
func await(t *testing.T, fd int) {
	t.Helper()
	if _, err := pollFor(fd, unix.POLLIN, 20*time.Second); err != nil {
		t.Fatalf("the exit of the child is not reported: %v", err)
	}
}

const pollRDNorm = 0x40

// pollFor polls fd for events and returns the events that poll reports.
func pollFor(fd int, events int16, patience time.Duration) (int16, error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		n, err := unix.Poll(fds, int(patience.Milliseconds()))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == 0:
			return 0, errTimeout
		default:
			return fds[0].Revents, nil
		}
	}
}

var errTimeout = errors.New("timeout")

// TestFDPoll checks what poll, epoll, select and read report before and after the child exits. The
// exit must also wake tasks that wait in these calls.
func TestFDPoll(t *testing.T) {
	const in, ready = unix.POLLIN | pollRDNorm | unix.POLLOUT | unix.POLLPRI, unix.POLLIN | pollRDNorm | unix.POLLHUP
	epoll := func(fd int, events uint32, patience time.Duration) (int16, error) {
		ep, err := unix.EpollCreate1(0)
		if err != nil {
			return 0, err
		}
		defer unix.Close(ep)
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events}); err != nil {
			return 0, err
		}
		var got [1]unix.EpollEvent
		for {
			n, err := unix.EpollWait(ep, got[:], int(patience.Milliseconds()))
			switch {
			case err == unix.EINTR:
			case err != nil:
				return 0, err
			case n == 0:
				return 0, errTimeout
			default:
				return int16(got[0].Events), nil
			}
		}
	}
	// sel returns 1, 2 and 4 for readable, writable and exceptional.
	sel := func(fd int, patience time.Duration) (int16, error) {
		for {
			var r, w, e unix.FdSet
			r.Set(fd)
			w.Set(fd)
			e.Set(fd)
			tv := unix.NsecToTimeval(patience.Nanoseconds())
			n, err := unix.Select(fd+1, &r, &w, &e, &tv)
			switch {
			case err == unix.EINTR:
				continue
			case err != nil:
				return 0, err
			case n == 0:
				return 0, errTimeout
			}
			var got int16
			for i, set := range []unix.FdSet{r, w, e} {
				if set.IsSet(fd) {
					got |= 1 << i
				}
			}
			return got, nil
		}
	}
	asks := []struct {
		name string
		ask  func(fd int, patience time.Duration) (int16, error)
		want int16
	}{
		{name: "poll", ask: func(fd int, p time.Duration) (int16, error) { return pollFor(fd, in, p) }, want: ready},
		{name: "poll for POLLIN", ask: func(fd int, p time.Duration) (int16, error) { return pollFor(fd, unix.POLLIN, p) }, want: unix.POLLIN | unix.POLLHUP},
		{name: "poll for nothing", ask: func(fd int, p time.Duration) (int16, error) { return pollFor(fd, 0, p) }, want: unix.POLLHUP},
		{name: "epoll", ask: func(fd int, p time.Duration) (int16, error) { return epoll(fd, in, p) }, want: ready},
		{name: "epoll, edge-triggered", ask: func(fd int, p time.Duration) (int16, error) { return epoll(fd, unix.EPOLLET|unix.EPOLLIN, p) }, want: unix.POLLIN | unix.POLLHUP},
		{name: "select", ask: sel, want: 1},
		{name: "read", ask: func(fd int, _ time.Duration) (int16, error) {
			info, n, err := read(fd)
			if n == 0 || info.Status == 7 {
				return -1, err
			}
			return 0, fmt.Errorf("read %d bytes, %+v, %w", n, info, err)
		}, want: -1},
	}
	kit.OnEach(t, []uint64{kit.SIGCHLD, linux.CLONE_AUTOREAP | kit.SIGCHLD}, func(t *testing.T, flags uint64) {
		c := newFDChild(t, flags, 0, nil)
		for _, a := range asks {
			if a.name == "read" {
				continue // would wait
			}
			if got, err := a.ask(c.fd, 0); err != errTimeout {
				t.Errorf("%s: %#x, %v while the child runs", a.name, got, err)
			}
		}
		var waiting sync.WaitGroup
		for _, a := range asks {
			for range 3 {
				waiting.Go(func() {
					if got, err := a.ask(c.fd, 20*time.Second); got != a.want || err != nil {
						t.Errorf("%s, after a wait: %#x, %v, want %#x", a.name, got, err, a.want)
					}
				})
			}
		}
		time.Sleep(50 * time.Millisecond)
		c.finish()
		waiting.Wait()
		for _, a := range asks {
			if got, err := a.ask(c.fd, 0); got != a.want || err != nil {
				t.Errorf("%s: %#x, %v after the exit, want %#x", a.name, got, err, a.want)
			}
		}
	})
}

// TestFDNonblock checks that O_NONBLOCK, from clonefd_flags or set later, decides whether a read
// waits.
func TestFDNonblock(t *testing.T) {
	for _, fdFlags := range []uint32{linux.CLONEFD_NONBLOCK, unix.O_NONBLOCK} {
		t.Run(kit.FDFlags(fdFlags), func(t *testing.T) {
			c := newFDChild(t, kit.SIGCHLD, fdFlags, nil)
			if _, _, err := read(c.fd); err != unix.EAGAIN {
				t.Errorf("read: %v, want EAGAIN", err)
			}
			if err := unix.SetNonblock(c.fd, false); err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(20*time.Millisecond, c.finish)
			if info, n, err := read(c.fd); n != fdInfoSize || info.Status != 7 || err != nil {
				t.Errorf("a read that waits returned %d, %+v, %v", n, info, err)
			}
		})
	}
}

// TestFDWrite checks that a write of one byte sends the signal with that number, under the rules
// of kill(2).
func TestFDWrite(t *testing.T) {
	kit.OnEach(t, []uint64{kit.SIGCHLD, linux.CLONE_AUTOREAP | kit.SIGCHLD}, func(t *testing.T, flags uint64) {
		c := newFDChild(t, flags, 0, nil)
		for _, tc := range []struct {
			bytes []byte
			want  error
		}{
			{nil, unix.EINVAL},
			{[]byte{0, 0}, unix.EINVAL},
			{[]byte{65}, unix.EINVAL},
			{[]byte{255}, unix.EINVAL},
			{[]byte{0}, nil},
			{[]byte{byte(unix.SIGCONT)}, nil},
		} {
			n, err := unix.Write(c.fd, tc.bytes)
			if tc.want == nil && n != len(tc.bytes) || err != tc.want {
				t.Errorf("writing %v: %d, %v, want %v", tc.bytes, n, err, tc.want)
			}
		}
		if _, err := pollFor(c.fd, unix.POLLIN, 0); err != errTimeout {
			t.Fatalf("the child has exited without a signal that kills it: %v", err)
		}
		if n, err := unix.Write(c.fd, []byte{byte(unix.SIGKILL)}); n != 1 || err != nil {
			t.Errorf("writing SIGKILL: %d, %v", n, err)
		}
		if info, n, err := read(c.fd); n != fdInfoSize || info.Code != kit.CLD_KILLED || info.Status != int32(unix.SIGKILL) || err != nil {
			t.Errorf("after SIGKILL, read %d, %+v, %v", n, info, err)
		}
		if flags == kit.SIGCHLD {
			// As for kill(2), a signal to a zombie is not an error.
			if _, err := unix.Write(c.fd, []byte{byte(unix.SIGKILL)}); err != nil {
				t.Errorf("writing to a zombie: %v", err)
			}
			kit.Reap(t, c.pid)
		}
		for _, sig := range []byte{0, byte(unix.SIGKILL)} {
			if _, err := unix.Write(c.fd, []byte{sig}); err != unix.ESRCH {
				t.Errorf("writing %d after the child was reaped: %v, want ESRCH", sig, err)
			}
		}
	})
}

// TestFDWritePermission checks that a write needs the permission of kill(2).
func TestFDWritePermission(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	c := newFDChild(t, kit.SIGCHLD, 0, nil)
	s := kit.NewScript(t)
	s.Sys(unix.SYS_SETRESUID, 65534, 65534, 65534)
	buf := s.Buffer(8)
	buf[0] = byte(unix.SIGKILL)
	write := s.Sys(unix.SYS_WRITE, c.fd, buf, 1)
	kill := s.Sys(unix.SYS_KILL, c.pid, int(unix.SIGKILL))
	s.Run()
	if e := write.Errno(); e != unix.EPERM || e != kill.Errno() {
		t.Errorf("as another user, writing SIGKILL: %s, and kill: %s; want EPERM", kit.ErrnoName(e), kit.ErrnoName(kill.Errno()))
	}
}

// TestFDIoctl checks the child's ID in the caller's PID namespace, before and after the child
// exits and is reaped.
func TestFDIoctl(t *testing.T) {
	ids := func(t *testing.T, fd int) (tid, pid int) {
		t.Helper()
		tid, err := unix.IoctlRetInt(fd, linux.CLONEFD_IOC_GETTID)
		if err != nil {
			t.Errorf("CLONEFD_IOC_GETTID: %v", err)
		}
		pid, err = unix.IoctlRetInt(fd, linux.CLONEFD_IOC_GETPID)
		if err != nil {
			t.Errorf("CLONEFD_IOC_GETPID: %v", err)
		}
		return tid, pid
	}
	kit.OnEach(t, []uint64{kit.SIGCHLD, linux.CLONE_AUTOREAP | kit.SIGCHLD, linux.CLONE_NEWPID | kit.SIGCHLD}, func(t *testing.T, flags uint64) {
		c := newFDChild(t, flags, 0, nil)
		if tid, pid := ids(t, c.fd); tid != c.pid || pid != c.pid {
			t.Errorf("tid %d, pid %d, want %d", tid, pid, c.pid)
		}
		if _, err := unix.IoctlRetInt(c.fd, 0x4303); err != unix.ENOTTY {
			t.Errorf("ioctl 0x4303: %v, want ENOTTY", err)
		}
		// A caller in a PID namespace without the child gets 0.
		s := kit.NewScript(t)
		elsewhere := s.NewList()
		pid := elsewhere.Sys(unix.SYS_IOCTL, c.fd, linux.CLONEFD_IOC_GETPID)
		elsewhere.Exit(0)
		call := kit.Default().Clone4(s.List, linux.CLONE_NEWPID|kit.SIGCHLD, linux.Clone4Args{}, elsewhere)
		s.Wait(call, 0)
		s.Run()
		s.OK(call, pid)
		if pid.Ret != 0 {
			t.Errorf("the pid is %d in a PID namespace without the child, want 0", pid.Ret)
		}

		c.finish()
		await(t, c.fd)
		if flags&linux.CLONE_AUTOREAP == 0 {
			if tid, pid := ids(t, c.fd); tid != c.pid || pid != c.pid {
				t.Errorf("tid %d, pid %d of a zombie, want %d", tid, pid, c.pid)
			}
			kit.Reap(t, c.pid)
		}
		if tid, pid := ids(t, c.fd); tid != 0 || pid != 0 {
			t.Errorf("tid %d, pid %d of a child that was reaped, want 0", tid, pid)
		}
	})
}

// TestFDIsADescriptor checks what /proc shows of the descriptor, that fork and a socket pass it on,
// and that the child does not have it.
func TestFDIsADescriptor(t *testing.T) {
	var inChild *rawclone.Op
	c := newFDChild(t, kit.SIGCHLD, 0, func(l *rawclone.List) {
		inChild = l.Sys(unix.SYS_FCNTL, 0, unix.F_GETFD)
	})
	// The number was not known when the child was created.
	inChild.Args[0] = uintptr(c.fd)

	if link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", c.fd)); link != "anon_inode:[clonefd]" || err != nil {
		t.Errorf("/proc/self/fd: %q, %v", link, err)
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", c.fd)); !strings.Contains(string(b), "flags:\t02\n") || err != nil {
		t.Errorf("/proc/self/fdinfo: %q, %v", b, err)
	}
	if flags, err := unix.FcntlInt(uintptr(c.fd), unix.F_GETFD, 0); flags != 0 || err != nil {
		t.Errorf("descriptor flags %#x, %v, want none", flags, err)
	}
	for _, fdFlags := range []uint32{linux.CLONEFD_CLOEXEC, unix.O_CLOEXEC} {
		other := newFDChild(t, kit.SIGCHLD, fdFlags, nil)
		if flags, err := unix.FcntlInt(uintptr(other.fd), unix.F_GETFD, 0); flags != unix.FD_CLOEXEC || err != nil {
			t.Errorf("clonefd_flags %s: descriptor flags %#x, %v, want FD_CLOEXEC", kit.FDFlags(fdFlags), flags, err)
		}
	}

	// A process inherits the descriptor by fork. A socket passes it under another number.
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	if err := unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(c.fd), nil, 0); err != nil {
		t.Fatal(err)
	}
	passed := receiveFD(t, pair[1])
	defer unix.Close(passed)
	s := kit.NewScript(t)
	buf := s.Buffer(fdInfoSize)
	inherited := s.Sys(unix.SYS_READ, c.fd, buf, len(buf))
	time.AfterFunc(20*time.Millisecond, c.finish)
	s.Run()
	if info := clonefdInfo(t, buf); inherited.Ret != fdInfoSize || info.Status != 7 {
		t.Errorf("a process that is not the child's parent read %d bytes (%s), %+v", int(inherited.Ret), kit.ErrnoName(inherited.Errno()), info)
	}
	if _, n, err := read(passed); n != 0 || err != nil {
		t.Errorf("after the info was read, the descriptor from a socket returns %d bytes, %v", n, err)
	}
	if pid, err := unix.IoctlRetInt(passed, linux.CLONEFD_IOC_GETPID); pid != c.pid || err != nil {
		t.Errorf("the descriptor from a socket is of process %d, %v, want %d", pid, err, c.pid)
	}
	kit.Reap(t, c.pid)
	if e := inChild.Errno(); e != unix.EBADF {
		t.Errorf("in the child, the descriptor: %s, want EBADF", kit.ErrnoName(e))
	}
}

// TestFDKillOnClose checks that closing the last reference to the descriptor, in any process,
// kills the child, and that no earlier close does. Without the flag, no close kills the child.
func TestFDKillOnClose(t *testing.T) {
	kit.OnEach(t, []uint64{kit.SIGCHLD, linux.CLONE_AUTOREAP | kit.SIGCHLD}, func(t *testing.T, flags uint64) {
		// The order matters, because a child inherits open descriptors.
		other := newFDChild(t, flags, 0, nil)
		c := newFDChild(t, flags, linux.CLONEFD_KILL_ON_CLOSE, nil)
		pidfd, err := unix.PidfdOpen(c.pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pidfd)
		second, err := unix.Dup(c.fd)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(c.fd)
		unix.Close(other.fd)
		c.fd, other.fd = -1, -1
		if _, err := pollFor(pidfd, unix.POLLIN, 20*time.Millisecond); err != errTimeout {
			t.Errorf("one of two descriptors was closed, and the child has exited: %v", err)
		}
		// Another process inherits the descriptor, and exits.
		s := kit.NewScript(t)
		s.Sys(unix.SYS_CLOSE, second)
		s.Run()
		if _, err := pollFor(pidfd, unix.POLLIN, 20*time.Millisecond); err != errTimeout {
			t.Errorf("another process closed its descriptor, and the child has exited: %v", err)
		}
		unix.Close(second)
		if _, err := pollFor(pidfd, unix.POLLIN, 20*time.Second); err != nil {
			t.Errorf("the last descriptor was closed, and the child has not exited: %v", err)
		}
		if flags&linux.CLONE_AUTOREAP == 0 {
			kit.CheckStatus(t, "the child", kit.Reap(t, c.pid), "SIGKILL")
		}
		if err := unix.Kill(other.pid, 0); err != nil {
			t.Errorf("the child without the flag: %v", err)
		}
	})
}
