// SPDX-License-Identifier: Apache-2.0

package storm

var (
	codeExit    = []byte{0xc8, 0x0b, 0x80, 0xd2, 0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4} // exit_group(0)
	codeHandler = []byte{0xc0, 0x03, 0x5f, 0xd6}                                                 // ret
	codeRestore = []byte{0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4}                         // rt_sigreturn()
)

// Storms on arm64 have no snippets. A snippet replaces one instruction for system calls by
// another: see arch_amd64_test.go. arm64 has only one such instruction.
type snippet struct{}

var snippets []snippet

const siteAt = 0

func (snippet) code() []byte    { return nil }
func (snippet) sites() [][]byte { return nil }
