// SPDX-License-Identifier: Apache-2.0

package differential

import "golang.org/x/sys/unix"

// program is machine code that calls write(writeFD, 0x10000000, 1) and exit_group(7). It is
// loaded at 0x10000000.
var program = []byte{
	0xbf, writeFD, 0, 0, 0, // mov $writeFD, %edi
	0xbe, 0, 0, 0, 0x10, // mov $0x10000000, %esi
	0xba, 1, 0, 0, 0, // mov $1, %edx
	0xb8, unix.SYS_WRITE, 0, 0, 0, // mov $SYS_write, %eax
	0x0f, 0x05, // syscall
	0xbf, 7, 0, 0, 0, // mov $7, %edi
	0xb8, unix.SYS_EXIT_GROUP, 0, 0, 0, // mov $SYS_exit_group, %eax
	0x0f, 0x05, // syscall
}

const elfMachine = 62 // EM_X86_64
