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

	// codeRestore calls rt_sigreturn() with MOV to RAX, as C libraries do. systrap patches
	// the shorter form, MOV to EAX, after which a handler returns to a wrong address
	// (docs/upstream.md).
	codeRestore = []byte{0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05}
)

// snippet is machine code that makes one clone4 call and exits. The child of the call exits
// too. Meanwhile, other tasks replace the instruction that enters the kernel: see storm.flip.
//
// storm.jump passes the flags in RSI, the size in RDX and the pointer in R10.
type snippet struct {
	number uint64 // value of RAX
	int80  bool   // whether the snippet uses INT $0x80 instead of SYSCALL
}

var snippets = []snippet{
	{number: linux.SYS_CLONE4_X32},
	{number: linux.SYS_CLONE4_I386, int80: true},
	{number: 0xdeadbeef<<32 | linux.SYS_CLONE4_AMD64},
}

// siteAt is the offset of the instruction that enters the kernel. The offset is aligned, so
// that a single store replaces the 8 bytes there.
const siteAt = 24

// code returns the machine code.
func (c snippet) code() []byte {
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
		0xeb, 0xf5, //       jump to the start of exit(0)
	})
}

// sites returns the possible values of the 8 bytes at siteAt. The first value has the
// snippet's own instruction, the second the other instruction, the third two NOPs. The start
// of exit(0) follows in each.
func (c snippet) sites() [][]byte {
	all := [][]byte{{0x0f, 0x05}, {0xcd, 0x80}, {0x90, 0x90}}
	if c.int80 {
		all[0], all[1] = all[1], all[0]
	}
	for i := range all {
		all[i] = append(all[i], 0xb8, 0x3c, 0, 0, 0, 0x31)
	}
	return all
}
