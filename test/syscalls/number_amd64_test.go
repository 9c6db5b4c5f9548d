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

// TestNumber checks which numbers are clone4. The low half of RAX and the instruction decide,
// and every other number nearby is ENOSYS. The rows include the numbers that platforms add to
// i386 calls, and the numbers that the sentry uses internally.
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
		{entry: rawclone.Syscall, rax: linux.SYS_CLONE4_AMD64},
		{entry: rawclone.Syscall, rax: linux.SYS_CLONE4_AMD64 | 1<<32},
		{entry: rawclone.Syscall, rax: linux.SYS_CLONE4_AMD64 | garbage},
		{entry: rawclone.Syscall, rax: linux.SYS_CLONE4_AMD64 | 1<<63},
		{entry: rawclone.Syscall, rax: linux.SYS_CLONE4_X32},
		{entry: rawclone.Syscall, rax: linux.SYS_CLONE4_X32 | garbage},
		{entry: rawclone.Int80, rax: linux.SYS_CLONE4_I386},
		{entry: rawclone.Int80, rax: linux.SYS_CLONE4_I386 | 1<<32},
		{entry: rawclone.Int80, rax: linux.SYS_CLONE4_I386 | garbage},
		{entry: rawclone.Int80, rax: linux.SYS_CLONE4_I386 | 1<<63},

		{entry: rawclone.Syscall, rax: linux.SYS_CLONE4_X32 &^ x32bit, want: unix.ENOSYS},
		{entry: rawclone.Syscall, rax: linux.SYS_CLONE4_X32&^x32bit | garbage, want: unix.ENOSYS},
		{entry: rawclone.Syscall, rax: linux.SYS_CLONE4_AMD64 | x32bit, want: unix.ENOSYS},
		{entry: rawclone.Syscall, rax: linux.SYS_CLONE4_AMD64 | x32bit | garbage, want: unix.ENOSYS},
		{entry: rawclone.Syscall, rax: linux.SYS_CLONE4_AMD64 | 1<<31, want: unix.ENOSYS},
		{entry: rawclone.Syscall, rax: linux.SYS_CLONE4_I386, want: unix.ENOSYS},
		{entry: rawclone.Syscall, rax: linux.SYS_CLONE4_I386 | garbage, want: unix.ENOSYS},
		{entry: rawclone.Syscall, rax: linux.SYS_CLONE4_I386 | x32bit, want: unix.ENOSYS},
		{entry: rawclone.Syscall, rax: 0x86000000 + linux.SYS_CLONE4_I386, want: unix.ENOSYS},
		{entry: rawclone.Int80, rax: linux.SYS_CLONE4_I386 | x32bit, want: unix.ENOSYS},
		{entry: rawclone.Int80, rax: linux.SYS_CLONE4_I386 | 1<<31, want: unix.ENOSYS},
		{entry: rawclone.Int80, rax: linux.SYS_CLONE4_X32, want: unix.ENOSYS},
		{entry: rawclone.Int80, rax: 0x86000000 + linux.SYS_CLONE4_I386, want: unix.ENOSYS},
		{entry: rawclone.Int80, rax: 0x80000000 - 0x06000000 + linux.SYS_CLONE4_AMD64, want: unix.ENOSYS}, // + 0x86000000 is 323
		{entry: rawclone.Int80, rax: 0xba000000 + 546, want: unix.ENOSYS},                                 // + 0x86000000 is x32's
		{entry: rawclone.Syscall, rax: 0xffffffff, want: unix.ENOSYS},
	}
	for nr := uint64(1985); nr < 2005; nr++ {
		tests = append(tests, number{entry: rawclone.Syscall, rax: nr, want: unix.ENOSYS}, number{entry: rawclone.Int80, rax: nr, want: unix.ENOSYS})
	}
	for _, tc := range tests {
		t.Run(instruction(tc.entry, tc.rax), func(t *testing.T) {
			s := kit.NewScript(t)
			call := s.Append(rawclone.Op{
				Trap:  uintptr(tc.rax),
				Entry: tc.entry,
				Args:  [6]uintptr{0, uintptr(kit.SIGCHLD)},
				Child: s.Exiting(0).First(),
			})
			s.Wait(call, 0)
			if tc.entry == rawclone.Int80 && tc.want != 0 && !kit.HasInt80() {
				// Only clone4's number works with the instruction. Other numbers fault, as in stock runsc.
				kit.CheckStatus(t, "the caller", s.RunTo(), "SIGSEGV")
				return
			}
			s.Run()
			kit.CheckErrno(t, "clone4", call, tc.want)
		})
	}
}

// instruction returns a name for an instruction with a number in RAX.
func instruction(entry uintptr, rax uint64) string {
	if entry == rawclone.Int80 {
		return fmt.Sprintf("INT 0x80, RAX=%#x", rax)
	}
	return fmt.Sprintf("SYSCALL, RAX=%#x", rax)
}
