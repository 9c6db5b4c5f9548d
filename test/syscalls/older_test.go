package syscalls

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

// TestOlderCalls protects that clone and clone3 keep their own idea of the flags
// that clone4 refuses, and that fork and vfork have none. It also passes on a kernel
// without clone4, and its log says what came of each call: stock runsc must say the
// same.
func TestOlderCalls(t *testing.T) {
	const (
		pidfd         = linux.CLONE_PID
		detached      = linux.CLONE_DETACHED
		newcgroup     = linux.CLONE_STOPPED
		clearSighand  = 1 << 32
		intoCgroup    = 1 << 33
		unknownCgroup = true
	)
	for _, tc := range []struct {
		name         string
		flags        uint64
		clone        string
		clone3       string
		configurable bool // depends on whether the kernel has control groups
	}{
		{"none", 0, "child", "child", false},
		{"CLONE_PIDFD", pidfd, "child and pidfd", "child and pidfd", false},
		{"CLONE_DETACHED", detached, "child", "EINVAL", false},
		{"CLONE_PIDFD CLONE_DETACHED", pidfd | detached, "EINVAL", "EINVAL", false},
		{"CLONE_NEWCGROUP", newcgroup, "EINVAL", "EINVAL", unknownCgroup},
		{"CLONE_CLEAR_SIGHAND", clearSighand, "child", "child", false},
		{"CLONE_INTO_CGROUP", intoCgroup, "child", "EINVAL", false},
		{"bit 40", 1 << 40, "child", "EINVAL", false},
	} {
		s := newScript(t)
		fd := s.buffer(8)
		*word(fd) = ^uintptr(0)
		clone := s.op(rawclone.Op{Trap: unix.SYS_CLONE, Args: [6]uintptr{uintptr(tc.flags | sigchld), 0, addr(fd)}, Child: s.exiting(0).first})
		s.wait(clone, 0)

		fd3 := s.buffer(8)
		*word(fd3) = ^uintptr(0)
		const sizeVer0 = 64
		args := s.buffer(sizeVer0)
		for i, v := range []uint64{tc.flags, uint64(addr(fd3)), 0, 0, sigchld, 0, 0, 0} {
			binary.LittleEndian.PutUint64(args[8*i:], v)
		}
		clone3 := s.op(rawclone.Op{Trap: unix.SYS_CLONE3, Args: [6]uintptr{addr(args), sizeVer0}, Child: s.exiting(0).first})
		s.wait(clone3, 0)
		s.run()

		outcome := func(o *rawclone.Op, fd []byte) string {
			switch e := o.Errno(); {
			case e != 0:
				return errName(e)
			case int32(*word(fd)) != -1:
				return "child and pidfd"
			default:
				return "child"
			}
		}
		got, got3 := outcome(clone, fd), outcome(clone3, fd3)
		t.Logf("%s: clone: %s, clone3: %s", tc.name, got, got3)
		if tc.configurable && got == "child" && got3 == "child" {
			continue
		}
		if got != tc.clone || got3 != tc.clone3 {
			t.Errorf("%s: clone: %s, want %s; clone3: %s, want %s", tc.name, got, tc.clone, got3, tc.clone3)
		}
	}
	for _, nr := range forks {
		s := newScript(t)
		call := s.op(rawclone.Op{Trap: nr, Args: [6]uintptr{pidfd | detached | newcgroup, ^uintptr(0), 1}, Child: s.exiting(3).first})
		wait, status := s.wait(call, 0)
		s.run()
		t.Logf("call %d: %s, wait status %#x", nr, errName(call.Errno()), *status)
		if wait.Ret != call.Ret || unix.WaitStatus(*status).ExitStatus() != 3 {
			t.Errorf("call %d: %d, wait4 %d, status %#x; want a child with exit status 3", nr, int(call.Ret), int(wait.Ret), *status)
		}
	}
}
