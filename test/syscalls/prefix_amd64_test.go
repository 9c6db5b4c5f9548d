// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// The caller: machine code that makes an i386 call by the instruction between its two
// parts, and waits for the child. RSI is the address of two words, for the results of both
// calls, and of the wait status.
var (
	beforeInt80 = []byte{
		0x49, 0x89, 0xf7, //                        mov %rsi, %r15
		0x31, 0xdb, //                              xor %ebx, %ebx
		0xb9, byte(unix.SIGCHLD), 0, 0, 0, //       mov $SIGCHLD, %ecx
		0x31, 0xd2, //                              xor %edx, %edx
		0x31, 0xf6, //                              xor %esi, %esi
		0xb8, 0x67, 1, 0, 0, //                     mov $359, %eax
	}
	afterInt80 = []byte{
		0x85, 0xc0, //                              test %eax, %eax
		0x74, 32, //                                jz 1f
		0x41, 0x89, 0x07, //                        mov %eax, (%r15)
		0x89, 0xc7, //                              mov %eax, %edi
		0x49, 0x8d, 0x77, 8, //                     lea 8(%r15), %rsi
		0xba, 0, 0, 0, 0x40, //                     mov $__WALL, %edx
		0x45, 0x31, 0xd2, //                        xor %r10d, %r10d
		0xb8, unix.SYS_WAIT4, 0, 0, 0, //           mov $SYS_wait4, %eax
		0x0f, 0x05, //                              syscall
		0x41, 0x89, 0x47, 4, //                     mov %eax, 4(%r15)
		0x31, 0xff, //                              xor %edi, %edi
		0xeb, 5, //                                 jmp 2f
		0xbf, madeStatus, 0, 0, 0, //            1: mov $madeStatus, %edi
		0xb8, unix.SYS_EXIT_GROUP, 0, 0, 0, //   2: mov $SYS_exit_group, %eax
		0x0f, 0x05, //                              syscall
	}
)

// TestInt80Prefix checks that an INT $0x80 with prefixes calls clone4 as one without does:
// the processor ignores them.
func TestInt80Prefix(t *testing.T) {
	for _, tc := range []struct {
		name   string
		prefix []byte
	}{
		{name: "none"},
		{name: "ES", prefix: []byte{0x26}},
		{name: "CS", prefix: []byte{0x2e}},
		{name: "SS", prefix: []byte{0x36}},
		{name: "DS", prefix: []byte{0x3e}},
		{name: "FS", prefix: []byte{0x64}},
		{name: "GS", prefix: []byte{0x65}},
		{name: "operand size", prefix: []byte{0x66}},
		{name: "address size", prefix: []byte{0x67}},
		{name: "REPNE", prefix: []byte{0xf2}},
		{name: "REP", prefix: []byte{0xf3}},
		{name: "REX", prefix: []byte{0x40}},
		{name: "REX.B", prefix: []byte{0x41}},
		{name: "REX.W", prefix: []byte{0x48}},
		{name: "several", prefix: []byte{0x2e, 0x66, 0xf2, 0x4f}},
		{name: "longest instruction", prefix: bytes.Repeat([]byte{0x66}, 13)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := kit.NewScript(t)
			code := kit.Memory(t, 1)
			copy(code, slices.Concat(beforeInt80, tc.prefix, []byte{0xcd, 0x80}, afterInt80))
			if err := unix.Mprotect(code, unix.PROT_READ|unix.PROT_EXEC); err != nil {
				t.Fatal(err)
			}
			results := s.Buffer(16)
			s.Sys(rawclone.TrapJump, code, results)
			s.Run()
			call, wait := int32(binary.LittleEndian.Uint32(results)), int32(binary.LittleEndian.Uint32(results[4:]))
			if call <= 0 || wait != call {
				t.Fatalf("clone4 returned %d and wait4 %d, want a child from both", call, wait)
			}
			kit.CheckStatus(t, "the child", binary.LittleEndian.Uint32(results[8:]), "exit status 9")
		})
	}
}
