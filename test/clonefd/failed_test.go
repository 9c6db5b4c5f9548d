// SPDX-License-Identifier: Apache-2.0

package clonefd

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// TestFDEscaped checks a descriptor that another thread duplicates before the call fails. The
// duplicate must behave like the descriptor of a child that has been reaped.
func TestFDEscaped(t *testing.T) {
	readOnly := kit.Memory(t, 1)
	if err := unix.Mprotect(readOnly, unix.PROT_READ); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		flags   uint64
		fdFlags uint32
		escape  func(t *testing.T) (try func(fd int) bool, escaped func() int)
	}{
		{name: "duplicated", flags: kit.SIGCHLD, escape: byDup},
		{name: "sent", flags: kit.SIGCHLD, escape: bySocket},
		{name: "duplicated, AUTOREAP", flags: linux.CLONE_AUTOREAP, escape: byDup},
		{name: "sent, AUTOREAP", flags: linux.CLONE_AUTOREAP, escape: bySocket},
		{name: "sent, VFORK", flags: linux.CLONE_VFORK | kit.SIGCHLD, escape: bySocket},
		{name: "duplicated, KILL_ON_CLOSE", fdFlags: linux.CLONEFD_KILL_ON_CLOSE, flags: linux.CLONE_AUTOREAP, escape: byDup},
		{name: "sent, KILL_ON_CLOSE", fdFlags: linux.CLONEFD_KILL_ON_CLOSE, flags: linux.CLONE_AUTOREAP, escape: bySocket},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := kit.NewScript(t)
			call, _ := kit.Default().Clone4FD(s.NewList(), tc.flags|linux.CLONE_FD|linux.CLONE_VM, linux.Clone4FDArgs{
				Clonefd:      uint64(rawclone.AddrOf(readOnly)),
				ClonefdFlags: tc.fdFlags,
			}, s.Exiting(7))
			try, escaped := tc.escape(t)
			// next is the number of the next descriptor.
			next, err := unix.Dup(0)
			if err != nil {
				t.Fatal(err)
			}
			unix.Close(next)
			var caught, done atomic.Bool
			var thief sync.WaitGroup
			thief.Go(func() {
				for !done.Load() && !caught.Load() {
					caught.Store(try(next))
				}
			})
			for deadline := time.Now().Add(30 * time.Second); !caught.Load() && time.Now().Before(deadline); {
				if ret, errno := rawclone.Do(call); errno != unix.EFAULT {
					t.Errorf("clone4 returned %d, %s, want EFAULT", int(ret), kit.ErrnoName(errno))
					break
				}
			}
			done.Store(true)
			thief.Wait()
			if !caught.Load() {
				t.Skip("the other thread did not duplicate a descriptor in time")
			}
			fd := escaped()
			defer unix.Close(fd)
			if got, err := pollFor(fd, unix.POLLIN, 20*time.Second); got != unix.POLLIN|unix.POLLHUP || err != nil {
				t.Fatalf("the descriptor is ready for %#x, %v, want POLLIN and POLLHUP", got, err)
			}
			if _, n, err := read(fd); n != 0 || err != nil {
				t.Errorf("read %d bytes, %v, want end of file", n, err)
			}
			if _, err := unix.Write(fd, []byte{0}); err != unix.ESRCH {
				t.Errorf("write: %v, want ESRCH", err)
			}
			if pid, err := unix.IoctlRetInt(fd, linux.CLONEFD_IOC_GETPID); pid != 0 || err != nil {
				t.Errorf("CLONEFD_IOC_GETPID: %d, %v, want 0", pid, err)
			}
		})
	}
}

// byDup duplicates a descriptor in the descriptor table of the caller.
func byDup(*testing.T) (try func(fd int) bool, escaped func() int) {
	dup := -1
	return func(fd int) bool {
		var err error
		dup, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 500)
		return err == nil
	}, func() int { return dup }
}

// bySocket sends a descriptor over a socket.
func bySocket(t *testing.T) (try func(fd int) bool, escaped func() int) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(pair[0])
		unix.Close(pair[1])
	})
	return func(fd int) bool {
		return unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(fd), nil, 0) == nil
	}, func() int { return receiveFD(t, pair[1]) }
}

// receiveFD receives a descriptor from a socket.
func receiveFD(t *testing.T, socket int) int {
	t.Helper()
	oob := make([]byte, 64)
	_, oobn, _, _, err := unix.Recvmsg(socket, make([]byte, 1), oob, 0)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		t.Fatalf("control messages %v, %v", messages, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("descriptors %v, %v", fds, err)
	}
	return fds[0]
}
