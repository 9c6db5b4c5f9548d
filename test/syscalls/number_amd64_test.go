// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"fmt"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// TestNumber checks which numbers are clone4: the low half of RAX decides, with the
// instruction, and every near miss is ENOSYS. Among these are numbers by which gVisor
// tells ABIs apart inside, and those that the sentry keeps for itself.
func TestNumber(t *testing.T) {
	const (
		x32bit  = linux.X32_SYSCALL_BIT
		garbage = 0xdeadbeef << 32
	)
	type number struct {
		entry uintptr
		rax   uint64
		want  syscall.Errno
	}
	tests := []number{
		{rawclone.Syscall, linux.SYS_CLONE4_AMD64, 0},
		{rawclone.Syscall, linux.SYS_CLONE4_AMD64 | 1<<32, 0},
		{rawclone.Syscall, linux.SYS_CLONE4_AMD64 | garbage, 0},
		{rawclone.Syscall, linux.SYS_CLONE4_AMD64 | 1<<63, 0},
		{rawclone.Syscall, linux.SYS_CLONE4_X32, 0},
		{rawclone.Syscall, linux.SYS_CLONE4_X32 | garbage, 0},
		{rawclone.Int80, linux.SYS_CLONE4_I386, 0},
		{rawclone.Int80, linux.SYS_CLONE4_I386 | 1<<32, 0},
		{rawclone.Int80, linux.SYS_CLONE4_I386 | garbage, 0},
		{rawclone.Int80, linux.SYS_CLONE4_I386 | 1<<63, 0},

		{rawclone.Syscall, linux.SYS_CLONE4_X32 &^ x32bit, unix.ENOSYS},
		{rawclone.Syscall, linux.SYS_CLONE4_X32&^x32bit | garbage, unix.ENOSYS},
		{rawclone.Syscall, linux.SYS_CLONE4_AMD64 | x32bit, unix.ENOSYS},
		{rawclone.Syscall, linux.SYS_CLONE4_AMD64 | x32bit | garbage, unix.ENOSYS},
		{rawclone.Syscall, linux.SYS_CLONE4_AMD64 | 1<<31, unix.ENOSYS},
		{rawclone.Syscall, linux.SYS_CLONE4_I386, unix.ENOSYS},
		{rawclone.Syscall, linux.SYS_CLONE4_I386 | garbage, unix.ENOSYS},
		{rawclone.Syscall, linux.SYS_CLONE4_I386 | x32bit, unix.ENOSYS},
		{rawclone.Syscall, 0x86000000 + linux.SYS_CLONE4_I386, unix.ENOSYS},
		{rawclone.Int80, linux.SYS_CLONE4_I386 | x32bit, unix.ENOSYS},
		{rawclone.Int80, linux.SYS_CLONE4_I386 | 1<<31, unix.ENOSYS},
		{rawclone.Int80, linux.SYS_CLONE4_X32, unix.ENOSYS},
		{rawclone.Int80, 0x86000000 + linux.SYS_CLONE4_I386, unix.ENOSYS},
		{rawclone.Int80, 0x80000000 - 0x06000000 + linux.SYS_CLONE4_AMD64, unix.ENOSYS}, // + 0x86000000 is 323
		{rawclone.Int80, 0xba000000 + 546, unix.ENOSYS},                                 // + 0x86000000 is x32's
		{rawclone.Syscall, 0xffffffff, unix.ENOSYS},
	}
	for nr := uint64(1985); nr < 2005; nr++ {
		tests = append(tests, number{rawclone.Syscall, nr, unix.ENOSYS}, number{rawclone.Int80, nr, unix.ENOSYS})
	}
	instructions := map[uintptr]string{rawclone.Syscall: "SYSCALL", rawclone.Int80: "INT 0x80"}
	for _, tc := range tests {
		t.Run(fmt.Sprintf("%s RAX=%#x", instructions[tc.entry], tc.rax), func(t *testing.T) {
			s := kit.NewScript(t)
			call := s.Append(rawclone.Op{
				Trap:  uintptr(tc.rax),
				Entry: tc.entry,
				Args:  [6]uintptr{0, uintptr(kit.SIGCHLD)},
				Child: s.Exiting(0).First(),
			})
			s.Wait(call, 0)
			if tc.entry == rawclone.Int80 && tc.want != 0 && !kit.HasInt80() {
				// clone4 alone has the instruction, and other numbers fault as in stock runsc.
				kit.CheckStatus(t, "the caller", s.RunTo(), "SIGSEGV")
				return
			}
			s.Run()
			kit.CheckErrno(t, "clone4", call, tc.want)
		})
	}
}
