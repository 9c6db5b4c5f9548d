// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"encoding/binary"
	"maps"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// TestOlderCalls checks that clone and clone3 keep their own meaning of the flags that clone4
// refuses, and that fork and vfork still work. The test also passes on a kernel without clone4,
// and logs the result of each call. TestOlderCallsAsInStock compares the log with stock runsc.
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
		configurable bool // the result depends on whether the kernel has control groups
	}{
		{name: "none", clone: "child", clone3: "child"},
		{name: "CLONE_PIDFD", flags: pidfd, clone: "child and pidfd", clone3: "child and pidfd"},
		{name: "CLONE_DETACHED", flags: detached, clone: "child", clone3: "EINVAL"},
		{name: "CLONE_PIDFD CLONE_DETACHED", flags: pidfd | detached, clone: "EINVAL", clone3: "EINVAL"},
		{name: "CLONE_NEWCGROUP", flags: newcgroup, clone: "EINVAL", clone3: "EINVAL", configurable: unknownCgroup},
		{name: "CLONE_CLEAR_SIGHAND", flags: clearSighand, clone: "child", clone3: "child"},
		{name: "CLONE_INTO_CGROUP", flags: intoCgroup, clone: "child", clone3: "EINVAL"},
		{name: "bit 40", flags: 1 << 40, clone: "child", clone3: "EINVAL"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := kit.NewScript(t)
			fd := s.Buffer(8)
			*rawclone.WordOf(fd) = ^uintptr(0)
			clone := s.Append(rawclone.Op{Trap: unix.SYS_CLONE, Args: [6]uintptr{uintptr(tc.flags | kit.SIGCHLD), 0, rawclone.AddrOf(fd)}, Child: s.Exiting(0).First()})
			s.Wait(clone, 0)

			fd3 := s.Buffer(8)
			*rawclone.WordOf(fd3) = ^uintptr(0)
			const sizeVer0 = 64
			args := s.Buffer(sizeVer0)
			for i, v := range []uint64{tc.flags, uint64(rawclone.AddrOf(fd3)), 0, 0, kit.SIGCHLD, 0, 0, 0} {
				binary.LittleEndian.PutUint64(args[8*i:], v)
			}
			clone3 := s.Append(rawclone.Op{Trap: unix.SYS_CLONE3, Args: [6]uintptr{rawclone.AddrOf(args), sizeVer0}, Child: s.Exiting(0).First()})
			s.Wait(clone3, 0)
			s.Run()

			outcome := func(o *rawclone.Op, fd []byte) string {
				switch e := o.Errno(); {
				case e != 0:
					return kit.ErrnoName(e)
				case int32(*rawclone.WordOf(fd)) != -1:
					return "child and pidfd"
				default:
					return "child"
				}
			}
			got, got3 := outcome(clone, fd), outcome(clone3, fd3)
			t.Logf("%s: clone: %s, clone3: %s", tc.name, got, got3)
			if tc.configurable && got == "child" && got3 == "child" {
				return
			}
			if got != tc.clone || got3 != tc.clone3 {
				t.Errorf("clone: %s, want %s; clone3: %s, want %s", got, tc.clone, got3, tc.clone3)
			}
		})
	}
	forks := kit.Forks()
	for _, name := range slices.Sorted(maps.Keys(forks)) {
		t.Run(name, func(t *testing.T) {
			s := kit.NewScript(t)
			call := s.Append(rawclone.Op{Trap: forks[name], Args: [6]uintptr{pidfd | detached | newcgroup, ^uintptr(0), 1}, Child: s.Exiting(3).First()})
			wait, status := s.Wait(call, 0)
			s.Run()
			t.Logf("%s: %s, the child: %s", name, kit.ErrnoName(call.Errno()), kit.Status(*status))
			kit.CheckWait(t, "the child", call, wait, status, "exit status 3")
		})
	}
}
