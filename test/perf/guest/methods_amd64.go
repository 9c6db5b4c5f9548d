// SPDX-License-Identifier: Apache-2.0

package main

import (
	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

func cloneRegisters(a cloneArgs) [6]uintptr {
	return [6]uintptr{a.flags, 0, a.ptid, a.ctid, a.tls}
}

var archMethods = []method{
	{name: fork, call: func(p *rawclone.Program, a cloneArgs) rawclone.Op {
		if a.flags&linux.CLONE_VFORK != 0 {
			return call(unix.SYS_VFORK)
		}
		return call(unix.SYS_FORK)
	}},
	compat("clone4-x32", linux.SYS_CLONE4_X32, rawclone.Syscall),
	compat("clone4-i386", linux.SYS_CLONE4_I386, rawclone.Int80),
}

// compat returns clone4 by an ABI with 32-bit words.
func compat(name string, trap, entry uintptr) method {
	return method{name: name, call: func(p *rawclone.Program, a cloneArgs) rawclone.Op {
		op := call(trap, 0, a.flags, linux.SizeOfCompatClone4Args, words(p, a.ptid|a.ctid<<32, 0, a.tls))
		op.Entry = entry
		return op
	}}
}

var archEntries = []entry{
	{"clone4-unclean", rawclone.Op{Trap: 1<<32 | linux.SYS_CLONE4_AMD64, Args: tooLarge}},
	{"clone4-x32", rawclone.Op{Trap: linux.SYS_CLONE4_X32, Args: [6]uintptr{1 << 31, 1 << 31, 1 << 31}}},
	{"clone4-i386", rawclone.Op{Trap: linux.SYS_CLONE4_I386, Entry: rawclone.Int80, Args: [6]uintptr{1 << 31, 1 << 31, 1 << 31}}},
	{"unknown-x32", call(linux.X32_SYSCALL_BIT | unknown)},
	{"unknown-i386", rawclone.Op{Trap: unknown, Entry: rawclone.Int80}},
}

// exitCode is exit(0): xor edi, edi; mov eax, 60; syscall.
var exitCode = []byte{0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05}

// handlerCode is ret, restorerCode rt_sigreturn(): mov eax, 15; syscall.
var (
	handlerCode  = []byte{0xc3}
	restorerCode = []byte{0xb8, 15, 0, 0, 0, 0x0f, 0x05}
)
