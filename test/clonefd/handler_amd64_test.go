// SPDX-License-Identifier: Apache-2.0

package clonefd

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// TestFDReadSignalHandler checks that a read or a poll that waits for the exit reports the exit,
// even if a SIGCHLD handler without SA_RESTART runs at that moment. gVisor's wait4 returns EINTR
// in this case.
func TestFDReadSignalHandler(t *testing.T) {
	const saRestorer = 0x04000000
	for _, tc := range []struct {
		name string
		poll bool
	}{
		{name: "read"},
		{name: "poll", poll: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for range 20 {
				s := kit.NewScript(t)
				code := kit.Mapping(t, -1, 1, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_SHARED)
				const handled, restorer = 64, 32
				// The handler: movl $1, handled(%rip); ret.
				copy(code, []byte{0xc7, 0x05, handled - 10, 0, 0, 0, 1, 0, 0, 0, 0xc3})
				// movl $SYS_rt_sigreturn, %eax; syscall.
				copy(code[restorer:], []byte{0xb8, unix.SYS_RT_SIGRETURN, 0, 0, 0, 0x0f, 0x05})
				action, none := s.Buffer(32), s.Buffer(8)
				*rawclone.WordOf(action) = rawclone.AddrOf(code)
				*rawclone.WordOf(action[8:]) = saRestorer
				*rawclone.WordOf(action[16:]) = rawclone.AddrOf(code) + restorer
				s.Sys(unix.SYS_RT_SIGACTION, int(unix.SIGCHLD), action, 0, 8)
				s.Sys(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, none, 0, 8)

				child := s.NewList()
				s.Sleep(child, 2e6)
				child.Exit(7)
				call, fdAt := kit.Default().Clone4FD(s.List, linux.CLONE_FD|kit.SIGCHLD, linux.Clone4FDArgs{}, child)
				fd := kit.LoadFD(s.List, fdAt)
				var poll *rawclone.Op
				if tc.poll {
					pollfd := s.Buffer(8)
					store32(s.List, pollfd, 0, fd)
					binary.LittleEndian.PutUint16(pollfd[4:], unix.POLLIN)
					poll = s.Sys(unix.SYS_POLL, pollfd, 1, -1)
				}
				buf := s.Buffer(fdInfoSize)
				read := s.Sys(unix.SYS_READ, fd, buf, len(buf))
				s.Run()
				s.OK(call)
				if code[handled] != 1 {
					t.Fatal("the handler did not run")
				}
				if poll != nil && poll.Ret != 1 {
					t.Fatalf("poll returned %d, %s, want 1", int(poll.Ret), kit.ErrnoName(poll.Errno()))
				}
				if read.Ret != fdInfoSize {
					t.Fatalf("read returned %d, %s, want %d", int(read.Ret), kit.ErrnoName(read.Errno()), fdInfoSize)
				}
			}
		})
	}
}
