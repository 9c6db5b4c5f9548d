package syscalls

import (
	"encoding/binary"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

// abi is a way to call clone4.
type abi struct {
	name  string
	nr    uintptr
	entry uintptr // a value of rawclone.Op.Entry
	word  int     // size of a word of the args struct, in bytes
}

// size returns the size of the args struct.
func (a *abi) size() uintptr { return uintptr(5 * a.word) }

// inWord returns what is left of v in a word of the struct.
func (a *abi) inWord(v uint64) uint64 {
	if a.word == 4 {
		return uint64(uint32(v))
	}
	return v
}

// onEachABI runs f as a subtest for each ABI.
func onEachABI(t *testing.T, f func(t *testing.T, a *abi)) {
	for i := range abis {
		t.Run(abis[i].name, func(t *testing.T) { f(t, &abis[i]) })
	}
}

// script is a process that executes operations one after the other and then
// exits: the caller of clone4 in a test. It is made anew for each test, by plain
// clone, and shares nothing with the Go program but the memory that the script is
// in and what is made by memory. All its signals are blocked.
type script struct {
	t *testing.T
	p *rawclone.Program
	*list
}

// list is a list of operations, executed by the script or by a child in it.
type list struct {
	s     *script
	first *rawclone.Op
	n     int
}

const maxOps = 64

func newScript(t *testing.T) *script {
	t.Helper()
	s := &script{t: t, p: rawclone.NewProgram()}
	s.list = s.newList()
	return s
}

// newList returns an empty list, for a child.
func (s *script) newList() *list {
	return &list{s: s, first: s.p.List(make([]rawclone.Op, maxOps)...)}
}

// op appends an operation.
func (l *list) op(o rawclone.Op) *rawclone.Op {
	if l.n == maxOps {
		panic("list is full")
	}
	next := rawclone.At(l.first, l.n)
	*next = o
	l.n++
	return next
}

// sys appends what rawclone.Sys returns.
func (l *list) sys(nr uintptr, args ...any) *rawclone.Op {
	return l.op(rawclone.Sys(nr, args...))
}

// exit appends the end of a process.
func (l *list) exit(status any) { l.sys(unix.SYS_EXIT_GROUP, status) }

// exiting returns a list that only ends the process.
func (s *script) exiting(status int) *list {
	l := s.newList()
	l.exit(status)
	return l
}

// clone4 appends a call of clone4 with a whole struct.
func (l *list) clone4(a *abi, flags uint64, args linux.Clone4Args, child *list) *rawclone.Op {
	return l.clone4Raw(a, flags, a.size(), l.s.encode(a, args), child)
}

// clone4Raw appends a call of clone4 with any size and pointer.
func (l *list) clone4Raw(a *abi, flags uint64, size, ptr uintptr, child *list) *rawclone.Op {
	o := rawclone.Op{Trap: a.nr, Entry: a.entry, Args: [6]uintptr{uintptr(flags >> 32), uintptr(uint32(flags)), size, ptr}}
	if child != nil {
		o.Child = child.first
	}
	return l.op(o)
}

// encode puts an args struct into shared memory and returns its address.
func (s *script) encode(a *abi, args linux.Clone4Args) uintptr {
	buf := s.buffer(int(a.size()))
	for i, v := range []uint64{args.Ptid, args.Ctid, args.StackStart, args.StackSize, args.TLS} {
		if a.word == 8 {
			binary.LittleEndian.PutUint64(buf[8*i:], v)
		} else {
			binary.LittleEndian.PutUint32(buf[4*i:], uint32(v))
		}
	}
	return addr(buf)
}

// path puts a NUL-terminated string into shared memory.
func (s *script) path(name string) uintptr {
	buf := s.buffer(len(name) + 1)
	copy(buf, name)
	return addr(buf)
}

// wait appends a wait4 for a child, which it must have ended with, and returns
// its status.
func (l *list) wait(pid any, options int) (*rawclone.Op, *uintptr) {
	status := l.s.p.Word()
	return l.sys(unix.SYS_WAIT4, pid, status, options), status
}

// run runs the script to its end, which must be its exit.
func (s *script) run() {
	s.t.Helper()
	if ws := s.end(); ws != 0 {
		s.t.Fatalf("the caller's process ended with wait status %#x", ws)
	}
}

// end runs the script to whatever its end is.
func (s *script) end() unix.WaitStatus {
	s.t.Helper()
	s.exit(0)
	fork := s.p.List(rawclone.Op{Trap: unix.SYS_CLONE, Args: [6]uintptr{uintptr(unix.SIGCHLD)}, Child: s.first})
	pid, errno := rawclone.Do(fork)
	if errno != 0 {
		s.t.Fatalf("making the caller's process: %v", errno)
	}
	return reap(s.t, int(pid))
}

// ok fails the test if an operation failed.
func (s *script) ok(ops ...*rawclone.Op) {
	s.t.Helper()
	for _, o := range ops {
		if e := o.Errno(); e != 0 {
			s.t.Fatalf("system call %d%#x: %v", o.Trap, o.Args, e)
		}
	}
}

// errName returns the name of an errno, for messages.
func errName(e syscall.Errno) string {
	if e == 0 {
		return "success"
	}
	return unix.ErrnoName(e)
}

// memory maps pages and returns them: private to the script and each child that
// has its own memory, unlike the script's own.
func memory(t *testing.T, pages int) []byte {
	t.Helper()
	return mapping(t, -1, pages, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
}

// mapping maps pages at an address that all ABIs can pass.
func mapping(t *testing.T, fd, pages, prot, flags int) []byte {
	t.Helper()
	mem, err := unix.Mmap(fd, 0, pages*unix.Getpagesize(), prot, flags|rawclone.LowMemory)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	return mem
}

// stackTop returns the end of mem as a stack pointer.
func stackTop(mem []byte) uint64 {
	return uint64(addr(mem)) + uint64(len(mem)) - 64
}
