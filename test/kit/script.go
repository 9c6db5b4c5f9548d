// SPDX-License-Identifier: Apache-2.0

package kit

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/internal/rawclone"
)

// Script is a process that executes a list of operations and then exits. It is the caller of
// clone4 in a test. Each test creates its own, by clone(2). A Script shares nothing with the
// Go program but its own memory and the memory from Memory and Mapping. All its signals are
// blocked.
type Script struct {
	*rawclone.List // what the process does
	t              *testing.T
	p              *rawclone.Program
}

// maxOps is the number of operations in a list of a script.
const maxOps = 64

// NewScript returns an empty script.
func NewScript(t *testing.T) *Script {
	t.Helper()
	p := rawclone.NewProgram()
	t.Cleanup(p.Free)
	return &Script{List: p.NewList(maxOps), t: t, p: p}
}

// NewList returns an empty list, for a child.
func (s *Script) NewList() *rawclone.List { return s.p.NewList(maxOps) }

// Exiting returns a list that only exits.
func (s *Script) Exiting(status int) *rawclone.List {
	l := s.p.NewList(1)
	l.Exit(status)
	return l
}

// Word returns a word of shared memory.
func (s *Script) Word() *uintptr { return s.p.Word() }

// Buffer returns size bytes of shared memory.
func (s *Script) Buffer(size int) []byte { return s.p.Buffer(size) }

// Path returns the address of a NUL-terminated string in shared memory.
func (s *Script) Path(name string) uintptr { return s.p.Path(name) }

// Timespec returns a struct timespec in shared memory.
func (s *Script) Timespec(d time.Duration) []byte {
	spec := s.p.Buffer(16)
	*rawclone.WordOf(spec), *rawclone.WordOf(spec[8:]) = uintptr(d/time.Second), uintptr(d%time.Second)
	return spec
}

// AllSignals returns a signal set of all signals, in shared memory.
func (s *Script) AllSignals() *uintptr {
	all := s.p.Word()
	*all = ^uintptr(0)
	return all
}

// Sleep appends to l a pause.
func (s *Script) Sleep(l *rawclone.List, d time.Duration) {
	l.Sys(unix.SYS_NANOSLEEP, s.Timespec(d), 0)
}

// Forever appends to l a wait that ends only by a signal.
func Forever(l *rawclone.List) { l.Sys(unix.SYS_PPOLL, 0, 0, 0, 0, 0) }

// Run runs the script, and fails the test unless the script exits with status 0.
func (s *Script) Run() {
	s.t.Helper()
	if ws := s.RunTo(); ws != 0 {
		s.t.Fatalf("the caller's process: %s, want exit status 0", Status(ws))
	}
}

// RunTo runs the script, and returns its wait status.
func (s *Script) RunTo() unix.WaitStatus {
	s.t.Helper()
	s.Exit(0)
	pid, errno := s.Start(SIGCHLD)
	if errno != 0 {
		s.t.Fatalf("creating the caller's process: %s", ErrnoName(errno))
	}
	return Reap(s.t, pid)
}

// OK fails the test if an operation returned an error.
func (s *Script) OK(ops ...*rawclone.Op) {
	s.t.Helper()
	for _, o := range ops {
		if e := o.Errno(); e != 0 {
			s.t.Fatalf("system call %d with arguments %#x: %s", o.Trap, o.Args, ErrnoName(e))
		}
	}
}

// Reap waits for a child of this process.
func Reap(t *testing.T, pid int) unix.WaitStatus {
	t.Helper()
	var ws unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &ws, unix.WALL, nil); err == nil {
			return ws
		} else if err != unix.EINTR {
			t.Fatalf("waiting for child %d: %v", pid, err)
		}
	}
}

// patience is how long ReapAll waits for children that should exit at once.
const patience = 20 * time.Second

// ReapAll waits for all children of this process, and fails the test if one does not
// exit.
func ReapAll(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		switch pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); {
		case err == unix.ECHILD:
			return
		case err != nil && err != unix.EINTR:
			t.Fatalf("wait4: %v", err)
		case pid == 0 && time.Now().After(end):
			t.Fatal("children are left, and do not exit")
		case pid == 0:
			time.Sleep(time.Millisecond)
		}
	}
}

// Memory maps private pages. Unlike the memory of the script, they are copied for a child
// without CLONE_VM.
func Memory(t *testing.T, pages int) []byte {
	t.Helper()
	return Mapping(t, -1, pages, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
}

// Protected is Memory with a protection.
func Protected(t *testing.T, pages, prot int) []byte {
	t.Helper()
	mem := Memory(t, pages)
	if err := unix.Mprotect(mem, prot); err != nil {
		t.Fatalf("mprotect: %v", err)
	}
	return mem
}

// Mapping maps pages of a file, or anonymous pages if fd is -1, at an address that every ABI
// can pass.
func Mapping(t *testing.T, fd, pages, prot, flags int) []byte {
	t.Helper()
	mem, err := rawclone.Map(fd, pages*unix.Getpagesize(), prot, flags)
	if err != nil {
		t.Fatalf("mmap: %v", err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	return mem
}

// StackTop returns a stack pointer at the end of mem.
func StackTop(mem []byte) uint64 {
	return uint64(rawclone.AddrOf(mem)) + uint64(len(mem)) - 64
}

// Stack returns a stack pointer at the end of a new page.
func Stack(t *testing.T) uint64 {
	t.Helper()
	return StackTop(Memory(t, 1))
}
