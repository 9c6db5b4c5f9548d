// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// args is an attack by an args struct that changes while calls read the struct. The first
// three words of the struct are at the end of one page, and the other words are on the next
// page. Changes of memory, such as munmap, change only the second page.
type args struct {
	fd bool // whether calls use CLONE_FD
}

// change is how a struct changes.
type change struct {
	name string

	// open returns the file with the struct; nil for anonymous memory. flags are the
	// flags of mmap.
	open  func() (int, error)
	flags int

	// values is set if the words change between the values of all versions. Otherwise
	// the words keep the values of the first version.
	values bool

	// faults is set if the second page cannot be read some of the time, zeros if its
	// words are 0 some of the time.
	faults, zeros bool

	// do changes the second page, and restores its content from whole. For a file,
	// another process does the same by ops.
	do  func(second, whole []byte)
	ops func(fd int, whole []byte) []rawclone.Op
}

var changes = []change{
	{name: "values", flags: unix.MAP_SHARED, values: true},
	{name: "protection", flags: unix.MAP_PRIVATE, faults: true, do: func(second, _ []byte) {
		unix.Mprotect(second, unix.PROT_NONE)
		unix.Mprotect(second, unix.PROT_READ|unix.PROT_WRITE)
	}},
	{name: "unmapping", flags: unix.MAP_PRIVATE, faults: true, zeros: true, do: func(second, whole []byte) {
		at := rawclone.AddrOf(second)
		unix.RawSyscall(unix.SYS_MUNMAP, at, uintptr(len(second)), 0)
		unix.RawSyscall6(unix.SYS_MMAP, at, uintptr(len(second)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_FIXED, ^uintptr(0), 0)
		copy(second, whole)
	}},
	{name: "MADV_DONTNEED", flags: unix.MAP_PRIVATE, zeros: true, do: func(second, whole []byte) {
		unix.Madvise(second, unix.MADV_DONTNEED)
		copy(second, whole)
	}},
	{name: "truncation", open: memfd, flags: unix.MAP_SHARED, faults: true, zeros: true, ops: truncate},
	{name: "truncation, private", open: memfd, flags: unix.MAP_PRIVATE, faults: true, zeros: true, ops: truncate},
	{name: "truncation, host file", open: hostFile, flags: unix.MAP_SHARED, faults: true, zeros: true, ops: truncate},
}

func memfd() (int, error) { return unix.MemfdCreate("struct", 0) }

// hostFile returns an unlinked file of the host. The test has mounted a directory of the
// host at $TMPDIR.
func hostFile() (int, error) {
	f, err := os.CreateTemp("", "struct-*")
	if err != nil {
		return -1, err
	}
	defer f.Close()
	defer os.Remove(f.Name())
	return unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
}

// truncate returns operations that cut the second page off a file, and restore the page.
func truncate(fd int, whole []byte) []rawclone.Op {
	page := os.Getpagesize()
	return []rawclone.Op{
		rawclone.Sys(unix.SYS_FTRUNCATE, fd, page),
		rawclone.Sys(unix.SYS_FTRUNCATE, fd, 2*page),
		rawclone.Sys(unix.SYS_PWRITE64, fd, whole, len(whole), page),
	}
}

// wordsOnFirstPage are ptid, ctid and stack_start.
const wordsOnFirstPage = 3

// notWritten is the value of a word before a call writes an ID, a descriptor or a result
// there.
const notWritten = 0x5a5a5a5a

// cloneFDFlags are the clonefd flags of the three versions of a struct. Only calls with the
// first succeed: the guest may not use CLONEFD_KILL_ON_CLOSE, and 1 << 20 is an unknown flag.
var cloneFDFlags = []uint32{linux.CLONEFD_CLOEXEC, linux.CLONEFD_KILL_ON_CLOSE, 1 << 20}

const callsOfStruct = 30

func (a args) run(r *run) error {
	abis := kit.ABIs()
	for round := 0; r.goesOn(); round++ {
		c, abi := &changes[round%len(changes)], abis[round/len(changes)%len(abis)]
		if err := a.round(r, c, abi); err != nil {
			return fmt.Errorf("%s, %s: %w", c.name, abi.Name, err)
		}
	}
	return nil
}

func (a args) round(r *run, c *change, abi *kit.ABI) error {
	page := os.Getpagesize()
	fd := -1
	if c.open != nil {
		var err error
		if fd, err = c.open(); err != nil {
			return fmt.Errorf("creating a file: %w", err)
		}
		defer unix.Close(fd)
		if err := unix.Ftruncate(fd, int64(2*page)); err != nil {
			return fmt.Errorf("ftruncate: %w", err)
		}
	}
	mem, err := rawclone.Map(fd, 2*page, unix.PROT_READ|unix.PROT_WRITE, c.flags)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	defer unix.Munmap(mem)
	p := rawclone.NewProgram()
	defer p.Free()

	s := newStructs(p, abi, a.fd)
	at := page - wordsOnFirstPage*abi.Word
	whole := p.Buffer(len(s.versions[0]))[:len(s.versions[0])-wordsOnFirstPage*abi.Word]
	copy(whole, s.versions[0][wordsOnFirstPage*abi.Word:])
	if fd < 0 {
		copy(mem[at:], s.versions[0])
	} else if _, err := unix.Pwrite(fd, s.versions[0], int64(at)); err != nil {
		return fmt.Errorf("pwrite: %w", err)
	}

	var over atomic.Bool
	var changer sync.WaitGroup
	var changerErr error
	changer.Go(func() {
		// changeFile creates children on this thread. The wait4 in failed leaves out
		// the children of other threads (WNOTHREAD).
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		switch {
		case c.values:
			for i := 0; !over.Load(); i++ {
				v := s.versions[i%len(s.versions)]
				for w := 0; w < len(v); w += abi.Word {
					copy(mem[at+w:][:abi.Word], v[w:])
				}
			}
		case c.do != nil:
			for !over.Load() {
				c.do(mem[page:], whole)
			}
		default:
			changerErr = changeFile(c.ops(fd, whole), &over)
		}
	})
	err = s.calls(r, c, rawclone.AddrOf(mem[at:]))
	over.Store(true)
	changer.Wait()
	return errors.Join(err, changerErr)
}

// changeFile creates processes, one after the other, that execute ops until over is set.
func changeFile(ops []rawclone.Op, over *atomic.Bool) error {
	p := rawclone.NewProgram()
	defer p.Free()
	const times = 50
	l := p.NewList(times*len(ops) + 1)
	for range times {
		for _, o := range ops {
			l.Append(o)
		}
	}
	l.Exit(0)
	for !over.Load() {
		pid, errno := l.Start(kit.SIGCHLD)
		if errno != 0 {
			return fmt.Errorf("creating the process that changes the file: %w", errno)
		}
		if err := reap(pid); err != nil {
			return err
		}
	}
	return nil
}

// reap waits for the exit of a child.
func reap(pid int) error {
	for {
		if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != unix.EINTR {
			return err
		}
	}
}

// structs has the versions of an args struct, and the memory to which calls write.
type structs struct {
	abi      *kit.ABI
	flags    uint64
	versions [][]byte

	// The two values of each field.
	ptid, ctid, clonefd [2]*uintptr
	stack, tls          [2]uintptr

	child *rawclone.List
	sp    *rawclone.Op
	tp    func() uintptr // the thread pointer
	p     *rawclone.Program
}

func newStructs(p *rawclone.Program, abi *kit.ABI, fd bool) *structs {
	const flags = linux.CLONE_VM | linux.CLONE_SETTLS | linux.CLONE_PARENT_SETTID | linux.CLONE_CHILD_SETTID
	s := &structs{abi: abi, flags: flags | kit.SIGCHLD, p: p}
	for i := range 2 {
		s.ptid[i], s.ctid[i], s.clonefd[i] = p.Word(), p.Word(), p.Word()
		// No child uses its stack or its thread pointer.
		s.stack[i], s.tls[i] = rawclone.AddrOf(p.Buffer(64)), rawclone.AddrOf(p.Buffer(64))
	}
	versions := 2
	if fd {
		s.flags |= linux.CLONE_FD
		versions = len(cloneFDFlags)
	}
	for i := range versions {
		v := linux.Clone4FDArgs{
			Clone4Args: linux.Clone4Args{
				Ptid:       uint64(rawclone.Addr(s.ptid[i%2])),
				Ctid:       uint64(rawclone.Addr(s.ctid[i%2])),
				StackStart: uint64(s.stack[i%2]),
				TLS:        uint64(s.tls[i%2]),
			},
			Clonefd:      uint64(rawclone.Addr(s.clonefd[i%2])),
			ClonefdFlags: cloneFDFlags[i],
		}
		if fd {
			s.versions = append(s.versions, abi.EncodeFD(v))
		} else {
			s.versions = append(s.versions, abi.Encode(v.Clone4Args))
		}
	}
	s.child = p.NewList(4)
	s.sp, s.tp = s.child.Sys(rawclone.TrapSP), kit.ThreadPointer(s.child)
	s.child.ExitTask(0)
	return s
}

// calls makes calls with the struct at ptr, while c changes the struct.
func (s *structs) calls(r *run, c *change, ptr uintptr) error {
	call := s.p.NewList(1).Append(s.abi.Op(s.flags, uintptr(len(s.versions[0])), ptr, s.child))
	for n := 0; n < callsOfStruct && (n == 0 || time.Now().Before(r.until)); n++ {
		for i := range 2 {
			*s.ptid[i], *s.ctid[i], *s.clonefd[i] = notWritten, notWritten, notWritten
		}
		ret, errno := rawclone.Do(call)
		var err error
		if errno != 0 {
			r.out.Failed++
			err = s.failed(c, errno)
		} else {
			r.out.Made++
			err = reap(int(ret))
			if err == nil {
				err = s.made(c, ret)
			}
		}
		if err != nil {
			return fmt.Errorf("call %d: %w", n, err)
		}
	}
	return nil
}

// failed checks a call that has returned an error: the change c must explain the error, and
// the call must leave neither a child nor a descriptor.
func (s *structs) failed(c *change, errno syscall.Errno) error {
	fd := s.flags&linux.CLONE_FD != 0
	switch {
	case errno == unix.EFAULT && (c.faults || c.zeros && fd):
	case (errno == unix.EPERM || errno == unix.EINVAL) && c.values && fd:
	default:
		return fmt.Errorf("%s, which no version of the struct explains", kit.ErrnoName(errno))
	}
	if pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG|unix.WNOTHREAD, nil); err != unix.ECHILD {
		return fmt.Errorf("after %s, wait4 returns %d, %v, want ECHILD", kit.ErrnoName(errno), pid, err)
	}
	for _, w := range s.clonefd {
		if *w != notWritten {
			return fmt.Errorf("after %s, *clonefd is %#x, want %#x", kit.ErrnoName(errno), *w, notWritten)
		}
	}
	return nil
}

// made checks a call whose child has exited: each value that the call used must be in a
// version of the struct.
func (s *structs) made(c *change, tid uintptr) error {
	if err := written("ptid", s.ptid, tid); err != nil {
		return err
	}
	if err := written("ctid", s.ctid, tid); err != nil {
		return err
	}
	if sp := s.sp.Ret; sp != s.stack[0] && sp != s.stack[1] {
		return fmt.Errorf("the child's stack pointer is %#x, want one of %#x", sp, s.stack)
	}
	if tp := s.tp(); tp != s.tls[0] && tp != s.tls[1] && !(c.zeros && tp == 0) {
		return fmt.Errorf("the child's thread pointer is %#x, want one of %#x", tp, s.tls)
	}
	if s.flags&linux.CLONE_FD == 0 {
		return nil
	}
	fd := *s.clonefd[0]
	if fd == notWritten {
		fd = *s.clonefd[1]
	}
	if err := written("clonefd", s.clonefd, fd); err != nil {
		return err
	}
	defer unix.Close(int(fd))
	flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0)
	if err != nil || flags != unix.FD_CLOEXEC && !c.zeros {
		return fmt.Errorf("F_GETFD of the descriptor: %#x, %v, want FD_CLOEXEC", flags, err)
	}
	return nil
}

// written checks that one of two words is want, and that the other has not been written.
func written(field string, words [2]*uintptr, want uintptr) error {
	got := [2]uintptr{*words[0], *words[1]}
	if want == notWritten || got != [2]uintptr{want, notWritten} && got != [2]uintptr{notWritten, want} {
		return fmt.Errorf("the two words for *%s are %#x, want %#x in one, and no write to the other", field, got, want)
	}
	return nil
}
