// SPDX-License-Identifier: Apache-2.0

package main

func cloneRegisters(a cloneArgs) [6]uintptr {
	return [6]uintptr{a.flags, 0, a.ptid, a.tls, a.ctid}
}

var (
	archMethods []method
	archEntries []entry
)

// exitCode is exit(0): mov x0, #0; mov x8, #93; svc #0.
var exitCode = []byte{0x00, 0x00, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4}

// handlerCode is ret, restorerCode rt_sigreturn(): mov x8, #139; svc #0.
var (
	handlerCode  = []byte{0xc0, 0x03, 0x5f, 0xd6}
	restorerCode = []byte{0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4}
)
