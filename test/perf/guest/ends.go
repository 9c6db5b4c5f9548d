// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

// ends returns the variants that differ in how a parent learns that its child has
// ended, and how: each makes a process, waits, and has its status in the end.
func ends(string) ([]variant, error) {
	all := []variant{
		watched("sigchld", func(s *script, child *rawclone.Op) []rawclone.Op {
			suspend := call(unix.SYS_RT_SIGSUSPEND, buffer(s.Program, 8), 8)
			return []rawclone.Op{clone.process(s.Program, child), suspend, waitFor(2)}
		}),
		watched("pidfd", func(s *script, child *rawclone.Op) []rawclone.Op {
			fd := words(s.Program, pollIn)
			create := clone.call(s.Program, cloneArgs{flags: unix.CLONE_PIDFD | uintptr(unix.SIGCHLD), ptid: fd})
			create.Child = child
			const pPIDFD, wEXITED = 3, 4
			waitid := call(unix.SYS_WAITID, pPIDFD, fd, buffer(s.Program, 128), wEXITED)
			waitid.Deref = 1 << 1
			return []rawclone.Op{create, poll(fd), waitid, closeAt(fd)}
		}),
	}
	if hasCloneFD() {
		all = append(all, watched("clonefd", func(s *script, child *rawclone.Op) []rawclone.Op {
			fd := words(s.Program, pollIn)
			create := call(linux.SYS_CLONE4, 0, linux.CLONE_FD|linux.CLONE_AUTOREAP, linux.SizeOfClone4FDArgs, words(s.Program, 0, 0, 0, 0, 0, fd, 0))
			create.Child = child
			read := call(unix.SYS_READ, fd, buffer(s.Program, linux.SizeOfClonefdInfo), linux.SizeOfClonefdInfo)
			read.Deref = 1 << 0
			return []rawclone.Op{create, poll(fd), read, closeAt(fd)}
		}))
	}
	return all, nil
}

// watched returns a variant of 20 lives. All take SIGCHLD if it comes.
func watched(name string, life func(s *script, child *rawclone.Op) []rawclone.Op) variant {
	const n = 20
	return variant{"end/" + name, n, func(s *script) {
		s.setup = append(s.setup, handleSIGCHLD(s.Program)...)
		child := s.list()
		for range n {
			s.add(life(s, child)...)
			s.mustWork()
		}
	}}
}

// handleSIGCHLD returns what makes SIGCHLD call a handler that only returns, on a
// stack of its own: the other is that of a thread which goes on.
func handleSIGCHLD(p *rawclone.Program) []rawclone.Op {
	const saRestorer, saOnstack, size = 0x4000000, 0x8000000, 16 << 10
	code := func(b []byte) uintptr {
		word := make([]byte, 16)
		copy(word, b)
		return words(p, uintptr(binary.LittleEndian.Uint64(word)), uintptr(binary.LittleEndian.Uint64(word[8:])))
	}
	handler, restorer := code(handlerCode), code(restorerCode)
	page := uintptr(os.Getpagesize())
	return []rawclone.Op{
		call(unix.SYS_MPROTECT, handler&^(page-1), 2*page, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC),
		call(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD), words(p, handler, saRestorer|saOnstack, restorer, 0), 0, 8),
		call(unix.SYS_SIGALTSTACK, words(p, buffer(p, size), 0, size)),
	}
}

// pollIn is a struct pollfd that waits for input from a descriptor that is stored in
// its first half.
const pollIn = unix.POLLIN << 32

func poll(fd uintptr) rawclone.Op { return call(unix.SYS_PPOLL, fd, 1) }

// closeAt closes the descriptor at an address.
func closeAt(fd uintptr) rawclone.Op {
	op := call(unix.SYS_CLOSE, fd)
	op.Deref = 1 << 0
	return op
}

// hasCloneFD returns whether there is clone4 with CLONE_FD. It makes no child.
func hasCloneFD() bool {
	p := rawclone.NewProgram()
	_, errno := rawclone.Do(p.List(call(linux.SYS_CLONE4, 0xffffffff, 0xffffffff, linux.SizeOfClone4FDArgs, ^uintptr(0))))
	return errno == unix.EFAULT
}
