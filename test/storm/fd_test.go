// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// fds has the memory and descriptors of a wave at level fd. All tasks share the slots, so tasks
// use the descriptors of each other's children.
type fds struct {
	slots   []*uintptr      // each has the descriptor of a child in its low half
	buf     []byte          // for calls that read, poll and receive
	signals []byte          // byte n has the value n, which a write sends as signal n
	events  [][]byte        // each a struct epoll_event
	epolls  []*rawclone.Op  // the calls that create epoll instances
	pair    *uintptr        // the descriptors that socketpair(2) returns
	sockets [2]*rawclone.Op // the operations that load the descriptors in pair
	sent    message
	got     message
}

// message is a struct msghdr for a message with one descriptor.
type message struct {
	header  []byte
	control *uintptr // msg_controllen of the header
	passed  *uintptr // the descriptor in the message
}

func newFDs(p *rawclone.Program) *fds {
	f := &fds{buf: p.Buffer(64), signals: p.Buffer(65), pair: rawclone.WordOf(p.Buffer(16))}
	f.sent, f.got = newMessage(p, f.buf), newMessage(p, f.buf)
	for range 16 {
		f.slots = append(f.slots, p.Word())
	}
	for i := range f.signals {
		f.signals[i] = byte(i)
	}
	for _, event := range []uintptr{unix.EPOLLIN, unix.EPOLLIN | unix.EPOLLET, unix.EPOLLIN | unix.EPOLLONESHOT} {
		e := p.Buffer(16)
		*rawclone.WordOf(e) = event
		f.events = append(f.events, e)
	}
	return f
}

const sizeOfControl = 24

// newMessage returns a message with one byte, which is the first of buf, and one descriptor:
// see sendmsg(2) and cmsg(3).
func newMessage(p *rawclone.Program, buf []byte) message {
	const scmRights = 1
	header, iov, control := p.Buffer(56), p.Buffer(16), p.Buffer(sizeOfControl)
	*rawclone.WordOf(iov), *rawclone.WordOf(iov[8:]) = rawclone.AddrOf(buf), 1
	*rawclone.WordOf(control), *rawclone.WordOf(control[8:]) = 16+4, unix.SOL_SOCKET|scmRights<<32
	*rawclone.WordOf(header[16:]), *rawclone.WordOf(header[24:]) = rawclone.AddrOf(iov), 1
	*rawclone.WordOf(header[32:]), *rawclone.WordOf(header[40:]) = rawclone.AddrOf(control), sizeOfControl
	return message{header, rawclone.WordOf(header[40:]), rawclone.WordOf(control[16:])}
}

// begin appends the operations that create the epoll instances and sockets of a wave, and that
// empty the slots.
func (f *fds) begin(l *rawclone.List) {
	f.epolls = nil
	for range 4 {
		f.epolls = append(f.epolls, l.Sys(unix.SYS_EPOLL_CREATE1, 0))
	}
	l.Sys(unix.SYS_SOCKETPAIR, unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0, f.pair)
	f.sockets[0] = kit.LoadFD(l, f.pair)
	f.sockets[1] = l.Sys(rawclone.TrapLoad, rawclone.Addr(f.pair)+4)
	for _, slot := range f.slots {
		l.Sys(rawclone.TrapStore, slot, 1<<32-1)
	}
}

// afterBegin is larger than every descriptor that is open when the threads of a wave start.
const afterBegin = 32

// fdFlags returns CLONE_FD, CLONE_AUTOREAP, both or neither, to be added to flags. A few calls
// become invalid, because CLONE_FD excludes CLONE_THREAD.
func (s *storm) fdFlags(flags uint64) (more uint64) {
	if flags&linux.CLONE_THREAD == 0 && !s.oneIn(5) || s.oneIn(20) {
		more |= linux.CLONE_FD
	}
	if s.oneIn(3) {
		more |= linux.CLONE_AUTOREAP
	}
	return more
}

// clonefd returns the clonefd and clonefd_flags of a call. A tidy storm sets
// CLONEFD_KILL_ON_CLOSE only for quiet children. A tidy storm also makes each descriptor
// nonblocking, because a read might wait forever.
func (s *storm) clonefd(quiet bool) (at uint64, flags uint32) {
	at = uint64(rawclone.Addr(pick(s, s.fds.slots)))
	if s.oneIn(10) {
		at = s.id() // In most cases, no task then uses the descriptor.
	}
	flags = linux.CLONEFD_NONBLOCK | linux.CLONEFD_CLOEXEC*uint32(s.rng.IntN(2))
	switch {
	case s.tidy && s.oneIn(3) && quiet:
		flags |= linux.CLONEFD_KILL_ON_CLOSE
	case !s.tidy && s.oneIn(10):
		flags = s.rng.Uint32()
	case !s.tidy:
		flags ^= s.rng.Uint32N(8)
	}
	return at, flags
}

// useFD appends operations on the descriptor of a random child.
func (s *storm) useFD(l *rawclone.List) {
	const fioasync = 0x5452
	f := s.fds
	fd := kit.LoadFD(l, pick(s, f.slots))
	switch s.rng.IntN(12) {
	case 0, 1:
		l.Sys(unix.SYS_READ, fd, f.buf, s.rng.IntN(32))
	case 2:
		// The struct pollfd requests no event. poll reports POLLHUP anyway.
		l.Sys(rawclone.TrapStore, f.buf[32:], fd)
		l.Sys(unix.SYS_PPOLL, f.buf[32:], 1, s.short, 0, 0)
	case 3, 4:
		l.Sys(unix.SYS_EPOLL_CTL, pick(s, f.epolls), 1+s.rng.IntN(3), fd, pick(s, f.events))
		l.Sys(unix.SYS_EPOLL_PWAIT, pick(s, f.epolls), f.buf, 1, s.rng.IntN(2), 0, 8)
	case 5:
		// An epoll instance watches only earlier ones in epolls, which prevents loops.
		inner := s.rng.IntN(len(f.epolls) - 1)
		outer := inner + 1 + s.rng.IntN(len(f.epolls)-inner-1)
		l.Sys(unix.SYS_EPOLL_CTL, f.epolls[outer], 1+s.rng.IntN(3), f.epolls[inner], pick(s, f.events))
	case 6:
		l.Sys(unix.SYS_CLOSE, l.Sys(unix.SYS_DUP, fd))
	case 7:
		// gVisor never closes a socket that is passed through itself. fd is the
		// descriptor of a child, never a socket.
		l.Sys(rawclone.TrapStore, f.sent.passed, fd)
		l.Sys(unix.SYS_SENDMSG, f.sockets[0], f.sent.header, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if s.oneIn(2) {
			l.Sys(rawclone.TrapStore, f.got.control, sizeOfControl)
			l.Sys(unix.SYS_RECVMSG, f.sockets[1], f.got.header, unix.MSG_DONTWAIT)
		}
	case 8:
		async := pick(s, []*rawclone.Op{fd, f.epolls[0], f.epolls[3]})
		l.Sys(unix.SYS_FCNTL, async, unix.F_SETOWN, l.Sys(unix.SYS_GETPID))
		l.Sys(unix.SYS_FCNTL, async, unix.F_SETFL, unix.O_NONBLOCK|unix.O_ASYNC*s.rng.IntN(2))
	case 9:
		l.Sys(unix.SYS_WRITE, fd, f.signals[s.signal():], 1)
	case 10:
		l.Sys(unix.SYS_CLOSE, fd)
	case 11:
		if s.oneIn(10) {
			l.Sys(unix.SYS_CLOSE_RANGE, afterBegin, 1<<31-1, 0)
		} else {
			l.Sys(unix.SYS_IOCTL, fd, pick(s, []int{linux.CLONEFD_IOC_GETTID, linux.CLONEFD_IOC_GETPID, fioasync}), f.buf)
		}
	}
}
