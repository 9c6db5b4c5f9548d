// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

// children returns the variants that make children and threads. Files are made in
// dir, as by singleCalls.
func children(dir string) ([]variant, error) {
	static := filepath.Join(dir, "static")
	if err := writeStatic(static); err != nil {
		return nil, err
	}
	var all []variant
	for _, m := range there(methods) {
		all = append(all, processes(m))
		if m.partial {
			continue
		}
		all = append(all, spawns(m, static))
		if m.name == fork {
			continue
		}
		all = append(all, threads(m))
	}
	for _, m := range there([]method{clone3, fullClone4}) {
		for _, n := range []int{1, 2, 8, 32} {
			all = append(all, atOnce(m, n))
		}
	}
	return all, nil
}

// singleCalls returns the variants that make none.
func singleCalls(dir string) ([]variant, error) {
	all, err := otherCalls(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range append(entries, archEntries...) {
		all = append(all, variant{"entry/" + e.name, 300, func(s *script) {
			for range 300 {
				s.add(e.op)
			}
		}})
	}
	return all, nil
}

// entry is a call that ends where it begins.
type entry struct {
	name string
	op   rawclone.Op
}

// unknown is a number that no kernel has.
const unknown = 1500

// tooLarge are arguments that clone4 refuses for their size, and for the others what
// released kernels have at its numbers.
var tooLarge = [6]uintptr{1 << 31, 1 << 31, 1 << 63}

var entries = []entry{
	{"getpid", call(unix.SYS_GETPID)},
	{"unknown", call(unknown)},
	{"clone3", call(unix.SYS_CLONE3, 0, 1)},
	{"clone4", rawclone.Op{Trap: linux.SYS_CLONE4, Args: tooLarge}},
}

// processes measures the life of a process: it is made, ends, and is waited for.
func processes(m method) variant {
	const n = 20
	return variant{"process/" + m.name, n, func(s *script) {
		child := s.list()
		for range n {
			s.add(m.process(s.Program, child), wait())
			s.mustWork()
		}
	}}
}

// spawns measures the same, of a process that executes a program, and whose parent
// does not run before it has.
func spawns(m method, program string) variant {
	const n = 5
	return variant{"spawn/" + m.name, n, func(s *script) {
		path := text(s.Program, program)
		argv := words(s.Program, path, 0)
		child := s.list(call(unix.SYS_EXECVE, path, argv, argv+8))
		for range n {
			op := m.call(s.Program, cloneArgs{flags: linux.CLONE_VM | linux.CLONE_VFORK | uintptr(unix.SIGCHLD)})
			op.Child = child
			s.add(op, wait())
			s.mustWork()
		}
	}}
}

// threads measures the life of a thread.
func threads(m method) variant {
	const n = 20
	return variant{"thread/" + m.name, n, func(s *script) {
		create, join := m.thread(s.Program, s.list(), 1)
		for range n {
			s.add(create)
			s.mustWork()
			s.add(join)
		}
	}}
}

// atOnce measures processes that threads make and wait for at the same time.
func atOnce(m method, n int) variant {
	const each = 4
	return variant{fmt.Sprintf("threads-%d/%s", n, m.name), n * each, func(s *script) {
		end := s.list()
		var joins []rawclone.Op
		for range n {
			var ops []rawclone.Op
			for range each {
				ops = append(ops, m.process(s.Program, end), wait())
			}
			create, join := clone.thread(s.Program, s.list(ops...), uintptr(n))
			s.add(create)
			joins = append(joins, join)
		}
		s.add(joins...)
	}}
}

// writeStatic writes the smallest program that there is: it ends.
func writeStatic(path string) error {
	const base, headers = 0x400000, 64 + 56
	header := elf.Header64{
		Ident:     [elf.EI_NIDENT]byte{elf.EI_CLASS: byte(elf.ELFCLASS64), elf.EI_DATA: byte(elf.ELFDATA2LSB), elf.EI_VERSION: byte(elf.EV_CURRENT)},
		Type:      uint16(elf.ET_EXEC),
		Machine:   uint16(map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]),
		Version:   uint32(elf.EV_CURRENT),
		Entry:     base + headers,
		Phoff:     64,
		Ehsize:    64,
		Phentsize: 56,
		Phnum:     1,
	}
	copy(header.Ident[:], elf.ELFMAG)
	size := uint64(headers + len(exitCode))
	prog := elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Align: 0x1000}
	var b bytes.Buffer
	for _, part := range []any{header, prog, exitCode} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			return err
		}
	}
	return os.WriteFile(path, b.Bytes(), 0o755)
}

// otherCalls returns the variants that have nothing to do with clone4.
func otherCalls(dir string) ([]variant, error) {
	zero, err := unix.Open("/dev/zero", unix.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "file")
	const page = 4096
	if err := os.WriteFile(path, make([]byte, page), 0o644); err != nil {
		return nil, err
	}
	file, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	var there, back [2]int
	for _, p := range []*[2]int{&there, &back} {
		if err := unix.Pipe(p[:]); err != nil {
			return nil, err
		}
	}
	const atFDCWD = ^uintptr(99)
	first := func(op rawclone.Op, before uintptr) rawclone.Op {
		op.Args[0], op.Deref = before, 1<<0
		return op
	}

	var all []variant
	for _, o := range []struct {
		name string
		n    int
		ops  func(s *script, n int) []rawclone.Op
	}{
		{"clock_gettime", 200, func(s *script, n int) []rawclone.Op {
			return []rawclone.Op{call(unix.SYS_CLOCK_GETTIME, unix.CLOCK_MONOTONIC, buffer(s.Program, 16))}
		}},
		{"sigprocmask", 200, func(s *script, n int) []rawclone.Op {
			return []rawclone.Op{call(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, 0, buffer(s.Program, 8), 8)}
		}},
		{"futex-wake", 200, func(s *script, n int) []rawclone.Op {
			return []rawclone.Op{call(unix.SYS_FUTEX, buffer(s.Program, 8), 1 /* FUTEX_WAKE */, 1)}
		}},
		{"read", 200, func(s *script, n int) []rawclone.Op {
			return []rawclone.Op{call(unix.SYS_READ, uintptr(zero), buffer(s.Program, 8), 8)}
		}},
		{"write", 200, func(s *script, n int) []rawclone.Op {
			return []rawclone.Op{call(unix.SYS_WRITE, uintptr(zero), buffer(s.Program, 8), 8)}
		}},
		{"pread-page", 200, func(s *script, n int) []rawclone.Op {
			return []rawclone.Op{call(unix.SYS_PREAD64, uintptr(file), buffer(s.Program, page), page)}
		}},
		{"statx", 100, func(s *script, n int) []rawclone.Op {
			return []rawclone.Op{call(unix.SYS_STATX, atFDCWD, text(s.Program, path), 0, unix.STATX_BASIC_STATS, buffer(s.Program, 256))}
		}},
		{"open-close", 100, func(s *script, n int) []rawclone.Op {
			return []rawclone.Op{
				call(unix.SYS_OPENAT, atFDCWD, text(s.Program, path), unix.O_RDONLY),
				first(call(unix.SYS_CLOSE), 1),
			}
		}},
		{"mmap-touch-munmap", 50, func(s *script, n int) []rawclone.Op {
			return []rawclone.Op{
				call(unix.SYS_MMAP, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON, ^uintptr(0)),
				first(call(rawclone.TrapStore, 0, 1), 1),
				first(call(unix.SYS_MUNMAP, 0, page), 2),
			}
		}},
		{"pipe-round-trip", 100, func(s *script, n int) []rawclone.Op {
			b := buffer(s.Program, 8)
			var echo []rawclone.Op
			for range n {
				echo = append(echo, call(unix.SYS_READ, uintptr(there[0]), b, 1), call(unix.SYS_WRITE, uintptr(back[1]), b, 1))
			}
			s.setup = append(s.setup, clone.process(s.Program, s.list(echo...)))
			return []rawclone.Op{
				call(unix.SYS_WRITE, uintptr(there[1]), b, 1),
				call(unix.SYS_READ, uintptr(back[0]), b, 1),
			}
		}},
	} {
		all = append(all, variant{"other/" + o.name, o.n, func(s *script) {
			ops := o.ops(s, o.n)
			for range o.n {
				s.add(ops...)
			}
			s.mustWork()
		}})
	}
	return all, nil
}
