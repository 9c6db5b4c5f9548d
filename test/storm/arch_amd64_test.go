// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"encoding/binary"
	"slices"

	"runsc-ext/abi/linux"
)

var (
	codeExit    = []byte{0xb8, 0xe7, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05} // exit_group(0)
	codeHandler = []byte{0xc3}                                        // ret

	// codeRestore is rt_sigreturn() as libraries have it. systrap patches the shorter
	// form, MOV to EAX, and the handler then returns to a wrong address.
	codeRestore = []byte{0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05}
)

// caller is machine code that makes one call of clone4, by an instruction that other tasks
// change meanwhile, and exits, as the child of the call does. The flags, the size and the
// pointer are in RSI, RDX and R10, where rawclone.TrapJump puts its arguments.
type caller struct {
	number uint64 // in RAX
	int80  bool   // whether the number is for INT $0x80
}

var callers = []caller{
	{number: linux.SYS_CLONE4_X32},
	{number: linux.SYS_CLONE4_I386, int80: true},
	{number: 0xdeadbeef<<32 | linux.SYS_CLONE4_AMD64},
}

// siteAt is the offset of the instruction, in a word that one store changes.
const siteAt = 24

// code returns the machine code.
func (c caller) code() []byte {
	code := []byte{
		0x31, 0xff, // xor %edi, %edi
		0x31, 0xdb, // xor %ebx, %ebx
		0x89, 0xf1, // mov %esi, %ecx
	}
	if c.int80 {
		code = append(code, 0x44, 0x89, 0xd6) // mov %r10d, %esi
	}
	code = binary.LittleEndian.AppendUint64(append(code, 0x48, 0xb8), c.number) // mov $number, %rax
	nops := slices.Repeat([]byte{0x90}, siteAt-len(code))
	return slices.Concat(code, nops, c.sites()[0], []byte{
		0xff, 0x0f, 0x05, // the rest of exit(0)
		0xeb, 0xf5, //       jmp to the begin of exit(0)
	})
}

// sites returns what the word at siteAt can be: the right instruction, the other one and
// none, each with the begin of exit(0) behind it.
func (c caller) sites() [][]byte {
	all := [][]byte{{0x0f, 0x05}, {0xcd, 0x80}, {0x90, 0x90}}
	if c.int80 {
		all[0], all[1] = all[1], all[0]
	}
	for i := range all {
		all[i] = append(all[i], 0xb8, 0x3c, 0, 0, 0, 0x31)
	}
	return all
}
