// SPDX-License-Identifier: Apache-2.0

package linux_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"syscall"

	"runsc-ext/abi/linux"
)

// A program asks for clone4 before its first call. Released kernels gave the numbers of
// clone4 to other calls, and such a call may succeed. The arguments below are invalid
// for every one of these calls. clone4 copies the struct in before it checks the flags,
// so only clone4 returns EFAULT.
func Example() {
	const all = ^uintptr(0)
	_, _, errno := syscall.RawSyscall6(linux.SYS_CLONE4, all, all, 8, all, 0, 0)
	if errno == syscall.EFAULT {
		fmt.Println("clone4")
	} else {
		fmt.Println("no clone4: use clone(2)")
	}
}

// The kernel reads as many bytes of the struct as args_size says. Every field that
// the caller leaves out is 0. A child that needs only a stack takes 24 bytes.
func ExampleClone4Args() {
	args := linux.Clone4Args{StackStart: 0x7f0000001000}
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, args); err != nil {
		panic(err)
	}
	fmt.Println(b.Len() == linux.SizeOfClone4Args)
	fmt.Printf("% x\n", b.Bytes()[16:24])
	// Output:
	// true
	// 00 10 00 00 00 7f 00 00
}

// clone4 takes its flags in two words. The exit signal is the lowest byte of the second
// word.
func Example_flags() {
	flags := uint64(linux.CLONE_VM|linux.CLONE_VFORK) | uint64(syscall.SIGCHLD)
	fmt.Printf("flags_high %#x, flags_low %#x\n", flags>>32, uint32(flags))
	fmt.Println("accepted:", flags&^linux.CLONE4_VALID_FLAGS == 0)
	// Output:
	// flags_high 0x0, flags_low 0x4111
	// accepted: true
}
