// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"syscall"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// A wave is a process of 8 threads without a Go runtime. Each thread executes a list of
// random calls of clone4, with something random after each. The children execute lists
// that they share, of which some call clone4 themselves.
//
// A tidy storm leaves out what gVisor keeps memory of, see docs/upstream.md:
//
//   - Nobody but its parent and its tracer waits for a task.
//   - No process is killed that may be in clone4: all signals are blocked where calls are
//     made, and only the leader of a wave's last thread ends its process.
//   - Nobody ignores SIGCHLD.
//
// Nothing in it waits without end, so that a tidy wave comes to its end unaided. A wild
// storm has all of that.
const (
	threads       = 8
	callsOfThread = 100

	// opsOfThread is more than begin and the calls of a thread take.
	opsOfThread = 1400

	// notMade is the result of an operation that has not been executed.
	notMade = 0x5a5a5a5a
)

// storm has the lists of operations of a wave, and the memory that they use, all of
// which are used again for the next.
type storm struct {
	rng  *rand.Rand
	tidy bool
	fd   bool // use what level fd has

	threads [threads]*rawclone.List // the first is the leader's, and begins with creating the others
	plain   []*rawclone.List        // of children of any kind
	process []*rawclone.List        // of children that are processes
	alone   []*rawclone.List        // of processes with memory of their own
	callers []*rawclone.List        // of processes that call clone4

	ids     []byte // where ptid and ctid point
	structs []byte // args structs, of which nStructs are in use
	shaky   []byte // memory for args structs that is unmapped, protected and dropped
	file    []byte // memory for args structs in a file that is truncated
	stacks  []byte
	actions []byte // a struct sigaction for each signal
	code    []byte // handlers of signals, and callers
	nothing []byte // an empty set of signals, an empty string: read-only
	filters [][]byte
	all     []byte // a set of all signals
	short   []byte // a short struct timespec
	program int    // descriptor of what is executed
	memory  int    // descriptor of the file
	fds     *fds

	nStructs int
	calls    []call            // all calls of clone4
	execs    [][2]*rawclone.Op // what is done just before an execve, and the execve
}

// call is a call of clone4 in a list.
type call struct {
	op *rawclone.Op

	// quiet is set if the child makes no calls of clone4.
	quiet bool
}

const (
	maxStructs   = 1024
	sizeOfStruct = linux.SizeOfClone4FDArgs
	stacks       = 256
	sizeOfStack  = 16 << 10
	sizeOfAction = 32
	restorerAt   = 64 // in the code
	callersAt    = 128
	sizeOfCaller = 64
)

func newStorm() (*storm, error) {
	const page, rw = 4 << 10, unix.PROT_READ | unix.PROT_WRITE
	p := rawclone.NewProgram()
	s := &storm{
		ids:     p.Buffer(page),
		structs: p.Buffer(maxStructs * sizeOfStruct),
		actions: p.Buffer(64 * sizeOfAction),
		all:     p.Buffer(8),
		short:   p.Buffer(16),
		fds:     newFDs(p),
	}
	*rawclone.WordOf(s.all) = ^uintptr(0)
	*rawclone.WordOf(s.short[8:]) = 500_000
	for _, f := range filters {
		s.filters = append(s.filters, filterProgram(p, f))
	}
	var err error
	if s.program, err = memFile(exitProgram()); err != nil {
		return nil, err
	}
	if s.memory, err = memFile(make([]byte, page)); err != nil {
		return nil, err
	}
	for _, m := range []struct {
		to                    *[]byte
		fd, size, prot, flags int
	}{
		{&s.stacks, -1, stacks * sizeOfStack, rw, unix.MAP_PRIVATE},
		{&s.code, -1, page, rw | unix.PROT_EXEC, unix.MAP_SHARED},
		{&s.nothing, -1, page, unix.PROT_READ, unix.MAP_PRIVATE},
		{&s.shaky, -1, page, rw, unix.MAP_PRIVATE},
		{&s.file, s.memory, page, rw, unix.MAP_SHARED},
	} {
		if *m.to, err = rawclone.Map(m.fd, m.size, m.prot, m.flags); err != nil {
			return nil, fmt.Errorf("mmap: %w", err)
		}
	}

	p = rawclone.NewProgram()
	lists := func(n, room int) (lists []*rawclone.List) {
		for range n {
			lists = append(lists, p.NewList(room))
		}
		return lists
	}
	s.plain, s.process, s.alone, s.callers = lists(8, 8), lists(12, 8), lists(12, 12), lists(24, 34)
	for i := range s.threads {
		s.threads[i] = rawclone.NewProgram().NewList(opsOfThread)
	}
	return s, nil
}

// memFile returns a descriptor of a file in memory.
func memFile(contents []byte) (int, error) {
	fd, err := unix.MemfdCreate("storm", 0)
	if err != nil {
		return -1, fmt.Errorf("memfd_create: %w", err)
	}
	if _, err := unix.Write(fd, contents); err != nil {
		return -1, fmt.Errorf("writing a file in memory: %w", err)
	}
	return fd, nil
}

// exitProgram returns a program that only exits, as an ELF file.
func exitProgram() []byte {
	const base = 0x400000
	machine := elf.EM_X86_64
	if kit.Default().Number == linux.SYS_CLONE4_GENERIC {
		machine = elf.EM_AARCH64
	}
	ehdr := elf.Header64{
		Ident:   [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:    uint16(elf.ET_EXEC),
		Machine: uint16(machine),
		Version: uint32(elf.EV_CURRENT),
		Phnum:   1,
	}
	ehdr.Ehsize = uint16(binary.Size(ehdr))
	ehdr.Phoff = uint64(ehdr.Ehsize)
	phdr := elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: base, Paddr: base, Align: 1 << 16}
	ehdr.Phentsize = uint16(binary.Size(phdr))
	start := int(ehdr.Ehsize + ehdr.Phentsize)
	ehdr.Entry = base + uint64(start)
	phdr.Filesz = uint64(start + len(codeExit))
	phdr.Memsz = phdr.Filesz
	var file bytes.Buffer
	for _, part := range []any{ehdr, phdr, codeExit} {
		if err := binary.Write(&file, binary.LittleEndian, part); err != nil {
			panic(err)
		}
	}
	return file.Bytes()
}

func (s *storm) oneIn(n int) bool { return s.rng.IntN(n) == 0 }

// pick returns one of choices.
func pick[T any](s *storm, choices []T) T { return choices[s.rng.IntN(len(choices))] }

// faults are signals of the instructions of a task. No handler could return from them.
var faults = map[syscall.Signal]bool{
	unix.SIGILL: true, unix.SIGTRAP: true, unix.SIGBUS: true, unix.SIGFPE: true, unix.SIGSEGV: true, unix.SIGSYS: true,
}

// signal returns a signal that a task may get at any time. In a wild storm a few of the
// signals end or stop the process, whatever its handlers are.
func (s *storm) signal() syscall.Signal {
	for {
		sig := syscall.Signal(1 + s.rng.IntN(64))
		deadly := faults[sig] || sig == unix.SIGKILL || sig == unix.SIGSTOP
		if !deadly || !s.tidy && s.oneIn(20) {
			return sig
		}
	}
}

// prepare writes the lists of a wave.
func (s *storm) prepare() error {
	// A wave may have written to its code, by a random address.
	copy(s.code, codeHandler)
	copy(s.code[restorerAt:], codeRestore)
	for i, c := range callers {
		copy(s.callerCode(i), c.code())
	}
	// A wave may have been killed in the middle of shake.
	if err := unix.Ftruncate(s.memory, int64(len(s.file))); err != nil {
		return fmt.Errorf("ftruncate: %w", err)
	}
	s.calls, s.execs, s.nStructs = s.calls[:0], s.execs[:0], 0
	// The lists of children have descriptors in them that begin creates.
	leader := s.threads[0]
	leader.Reset()
	s.begin(leader)
	for i, lists := range [][]*rawclone.List{s.plain, s.process, s.alone, s.callers} {
		for _, l := range lists {
			l.Reset()
			s.child(l, i)
			l.ExitTask(0)
		}
	}
	for _, l := range s.threads {
		if l != leader {
			l.Reset()
		}
		for range callsOfThread {
			c := s.call(l, s.oneIn(8))
			if c.op.Args[1]&linux.CLONE_THREAD == 0 && s.oneIn(8) {
				s.trace(l, c)
			} else {
				s.after(l, c)
			}
			if !s.tidy && s.oneIn(500) {
				s.end(l)
			}
		}
		l.ExitTask(0)
	}
	return nil
}

// child writes the list of a child. The kinds are those of storm's fields, in this order.
func (s *storm) child(l *rawclone.List, kind int) {
	const plain, process, alone, callers = 0, 1, 2, 3
	if (kind == plain || kind == process) && !s.tidy {
		// The stack may be one that others use: no handler may run on it.
		l.Sys(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, s.all, 0, 8)
	}
	if kind == plain {
		s.rest(l)
		return
	}
	if kind == callers {
		if s.oneIn(3) {
			l.Sys(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
			l.Sys(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, pick(s, s.filters))
		}
		for range 1 + s.rng.IntN(3) {
			s.after(l, s.call(l, false))
		}
	}
	if kind == alone {
		if s.oneIn(3) {
			l.Sys(unix.SYS_PTRACE, unix.PTRACE_TRACEME)
		}
		l.Sys(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, s.nothing, 0, 8)
		for range s.rng.IntN(3) {
			l.Sys(unix.SYS_TKILL, l.Sys(unix.SYS_GETTID), int(s.signal()))
		}
	}
	if s.oneIn(4) {
		l.Sys(unix.SYS_UNSHARE, linux.CLONE_FILES|linux.CLONE_FS)
	}
	s.rest(l)
	if kind == alone && s.oneIn(5) {
		s.jump(l)
	}
	s.end(l)
}

// rest appends a rest of some length.
func (s *storm) rest(l *rawclone.List) {
	switch n := s.rng.IntN(40); {
	case n < 12:
		l.Sys(unix.SYS_SCHED_YIELD)
	case n < 15:
		l.Sys(unix.SYS_PPOLL, 0, 0, s.short, 0, 0)
	case n < 16 && !s.tidy:
		kit.Forever(l)
	}
}

// end appends an end of a process.
func (s *storm) end(l *rawclone.List) {
	switch s.rng.IntN(12) {
	case 0, 1:
		before := l.Sys(unix.SYS_GETPID)
		exec := l.Sys(unix.SYS_EXECVEAT, s.program, s.nothing, 0, 0, unix.AT_EMPTY_PATH)
		before.Ret, exec.Ret = notMade, notMade
		s.execs = append(s.execs, [2]*rawclone.Op{before, exec})
	case 2, 3:
		l.Sys(unix.SYS_TKILL, l.Sys(unix.SYS_GETTID), int(unix.SIGKILL))
	case 4:
		l.Exit(0)
	}
}

// begin appends what the leader of a wave begins with: handlers of signals, descriptors,
// and the other threads.
func (s *storm) begin(l *rawclone.List) {
	for fd := range 3 {
		l.Sys(unix.SYS_CLOSE, fd) // No task of a wave can write where the guest answers.
	}
	l.Sys(unix.SYS_SETPGID, 0, 0) // for what the end of a stopped process does to others
	for n := 1; n <= 64; n++ {
		action := s.actions[(n-1)*sizeOfAction : n*sizeOfAction]
		clear(action)
		switch sig := syscall.Signal(n); {
		case faults[sig], s.oneIn(100) && !s.tidy: // SIG_DFL
		case s.oneIn(3) && (sig != unix.SIGCHLD || !s.tidy):
			*rawclone.WordOf(action) = 1 // SIG_IGN
		default:
			const saRestorer, saRestart, saNodefer = 0x04000000, 0x10000000, 0x40000000
			*rawclone.WordOf(action) = rawclone.AddrOf(s.code)
			*rawclone.WordOf(action[8:]) = saRestorer | saNodefer | saRestart*uintptr(s.rng.IntN(2))
			*rawclone.WordOf(action[16:]) = rawclone.AddrOf(s.code[restorerAt:])
		}
		l.Sys(unix.SYS_RT_SIGACTION, n, action, 0, 8)
	}
	if !s.tidy {
		l.Sys(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, s.nothing, 0, 8)
	}
	s.fds.begin(l)
	for i, thread := range s.threads[1:] {
		a := pick(s, kit.ABIs())
		ptr := s.args(a, linux.Clone4FDArgs{Clone4Args: linux.Clone4Args{StackStart: s.stack(i)}})
		s.clone4(l, a.Op(kit.ThreadFlags, a.Size(), ptr, thread), false)
	}
}

// clone4 appends a call of clone4.
func (s *storm) clone4(l *rawclone.List, op rawclone.Op, quiet bool) call {
	op.Ret = notMade
	c := call{l.Append(op), quiet}
	s.calls = append(s.calls, c)
	return c
}

// call appends a random call of clone4. The child calls clone4 itself if calling is set
// and the flags allow that.
func (s *storm) call(l *rawclone.List, calling bool) call {
	flags := s.flags()
	if s.fd {
		flags |= s.fdFlags(flags)
	}
	child, quiet := s.childOf(flags, calling)
	args := linux.Clone4FDArgs{Clone4Args: linux.Clone4Args{
		Ptid: s.id(), Ctid: s.id(), StackSize: s.rng.Uint64(), TLS: uint64(rawclone.AddrOf(s.ids)),
	}}
	if flags&linux.CLONE_VM != 0 || s.oneIn(2) {
		args.StackStart = s.stack(threads + len(s.calls)%(stacks-threads))
	}
	if s.oneIn(20) && (flags&linux.CLONE_THREAD == 0 || !s.tidy && s.oneIn(20)) {
		args.StackStart, args.TLS = s.rng.Uint64(), s.rng.Uint64()
	}
	if s.fd {
		args.Clonefd, args.ClonefdFlags = s.clonefd(quiet)
	}

	a := pick(s, kit.ABIs())
	size := a.Size()
	if s.fd {
		size = a.FDSize()
	}
	ptr := s.args(a, args)
	switch s.rng.IntN(30) {
	case 0:
		size = uintptr(s.rng.IntN(64))
	case 1:
		ptr = uintptr(s.rng.Uint64() >> s.rng.IntN(64))
	case 2:
		size = uintptr(s.rng.Uint64() >> s.rng.IntN(64))
	}
	op := a.Op(flags, size, ptr, child)
	if s.oneIn(8) {
		op.Trap |= uintptr(s.rng.Uint32()) << 32
	}
	return s.clone4(l, op, quiet)
}

// flags returns flags of a call, most of which are valid.
func (s *storm) flags() uint64 {
	signal := kit.SIGCHLD
	switch s.rng.IntN(8) {
	case 0:
		signal = 0
	case 1:
		signal = uint64(s.signal())
	case 2:
		signal = 65 + s.rng.Uint64N(256-65)
	}
	var flags uint64
	switch n := s.rng.IntN(100); {
	case n < 36:
		flags = kit.ThreadFlags
	case n < 56:
		flags = linux.CLONE_VM | linux.CLONE_VFORK
	case n < 66:
		flags = linux.CLONE_VM
	case n < 72:
		flags = linux.CLONE_VM | linux.CLONE_SIGHAND
	case n < 82: // as fork
	case n < 86:
		flags = linux.CLONE_VFORK
	case n < 92:
		flags = linux.CLONE_VM * s.rng.Uint64N(2)
		for bit := range 64 {
			if ns := uint64(1) << bit; kit.NamespaceFlags&ns != 0 && s.oneIn(5) {
				flags |= ns
			}
		}
	case n < 97:
		flags = linux.CLONE4_VALID_FLAGS & s.rng.Uint64() & s.rng.Uint64()
	default:
		flags = s.rng.Uint64() & s.rng.Uint64() & s.rng.Uint64()
	}
	for _, flag := range []uint64{linux.CLONE_PARENT_SETTID, linux.CLONE_CHILD_SETTID, linux.CLONE_CHILD_CLEARTID} {
		if s.oneIn(2) {
			flags |= flag
		}
	}
	for _, flag := range []uint64{linux.CLONE_SETTLS, linux.CLONE_PTRACE, linux.CLONE_UNTRACED, linux.CLONE_IO, linux.CLONE_SYSVSEM, linux.CLONE_FS, linux.CLONE_FILES, linux.CLONE_PARENT} {
		if s.oneIn(12) {
			flags |= flag
		}
	}
	return flags&^linux.CSIGNAL | signal
}

// childOf returns a list for a child that flags create, and whether the child makes no
// calls of clone4.
func (s *storm) childOf(flags uint64, calling bool) (child *rawclone.List, quiet bool) {
	switch {
	case flags&linux.CLONE_NEWPID != 0:
		// The IDs that others use are those of another namespace.
		return pick(s, s.plain), true
	case flags&(linux.CLONE_THREAD|linux.CLONE_SIGHAND) != 0 && (s.tidy || !s.oneIn(300)):
		return pick(s, s.plain), true
	case calling:
		return pick(s, s.callers), false
	case flags&linux.CLONE_VM == 0 && (flags&linux.CLONE_VFORK == 0 || !s.tidy):
		return pick(s, s.alone), false
	default:
		return pick(s, s.process), true
	}
}

// args puts an args struct into memory and returns its address.
func (s *storm) args(a *kit.ABI, args linux.Clone4FDArgs) uintptr {
	buf := s.structs[s.nStructs*sizeOfStruct:][:sizeOfStruct]
	s.nStructs++
	switch s.rng.IntN(12) {
	case 0:
		buf = s.shaky[s.rng.IntN(len(s.shaky)-sizeOfStruct):][:sizeOfStruct]
	case 1:
		buf = s.file[s.rng.IntN(len(s.file)-sizeOfStruct):][:sizeOfStruct]
	}
	copy(buf, a.EncodeFD(args))
	return rawclone.AddrOf(buf)
}

// id returns a ptid or ctid.
func (s *storm) id() uint64 {
	switch s.rng.IntN(10) {
	case 0:
		return s.rng.Uint64() >> s.rng.IntN(64)
	case 1:
		return uint64(rawclone.AddrOf(s.nothing)) // is not to be written
	case 2:
		return s.stack(s.rng.IntN(threads)) &^ (sizeOfStack - 1)
	}
	return uint64(rawclone.AddrOf(s.ids)) + s.rng.Uint64N(uint64(len(s.ids)/4))*4
}

// stack returns the end of a stack as a stack pointer.
func (s *storm) stack(i int) uint64 {
	return kit.StackTop(s.stacks[i*sizeOfStack:][:sizeOfStack])
}

// after appends what a task does after a call.
func (s *storm) after(l *rawclone.List, c call) {
	if s.fd && s.oneIn(2) {
		s.useFD(l)
		return
	}
	switch s.rng.IntN(24) {
	case 0, 1, 2, 3, 4, 5:
		for range 2 {
			changed := s.wait(l, -1, unix.WNOHANG)
			if s.oneIn(4) {
				l.Sys(unix.SYS_PTRACE, pick(s, resumes), changed, 0, 0)
			}
		}
	case 6:
		if !s.tidy {
			s.wait(l, c.op, 0)
		}
	case 7:
		s.kill(l, c, s.signal())
	case 8:
		if c.quiet && c.op.Args[1]&linux.CLONE_THREAD == 0 || !s.tidy && s.oneIn(10) {
			s.kill(l, c, unix.SIGKILL)
		}
	case 9:
		s.seize(l, c)
	case 10, 11:
		l.Sys(unix.SYS_PTRACE, pick(s, resumes), c.op, 0, 0)
	case 12:
		l.Sys(unix.SYS_SCHED_YIELD)
	case 13:
		at := s.structs[s.rng.IntN(s.nStructs)*sizeOfStruct:]
		l.Sys(rawclone.TrapStore, at, uintptr(s.id()|s.id()<<32))
	case 14, 15:
		s.shake(l)
	case 16, 17:
		s.flip(l)
	}
}

// wait appends a wait.
func (s *storm) wait(l *rawclone.List, pid any, options int) *rawclone.Op {
	if s.tidy {
		options |= unix.WNOTHREAD
	}
	return l.Sys(unix.SYS_WAIT4, pid, 0, options|unix.WALL)
}

// seize appends the attachment of a tracer to what a call has created.
func (s *storm) seize(l *rawclone.List, c call) {
	options := s.rng.IntN(1 << 8)
	if !s.tidy {
		options |= unix.PTRACE_O_EXITKILL * s.rng.IntN(2)
	}
	if s.oneIn(4) {
		l.Sys(unix.SYS_PTRACE, unix.PTRACE_ATTACH, c.op, 0, 0)
	} else {
		l.Sys(unix.SYS_PTRACE, unix.PTRACE_SEIZE, c.op, 0, options)
	}
}

// resumes are requests that a tracee goes on by, or is stopped by.
var resumes = []int{unix.PTRACE_CONT, unix.PTRACE_SYSCALL, unix.PTRACE_DETACH, unix.PTRACE_INTERRUPT, unix.PTRACE_LISTEN}

// trace appends a tracer that follows what a call has created for a while. What the tracer
// leaves stopped goes on when the tracer is gone.
func (s *storm) trace(l *rawclone.List, c call) {
	s.seize(l, c)
	if s.oneIn(2) {
		l.Sys(unix.SYS_PTRACE, unix.PTRACE_INTERRUPT, c.op, 0, 0)
	}
	for range 1 + s.rng.IntN(4) {
		l.Sys(unix.SYS_PPOLL, 0, 0, s.short, 0, 0)
		changed := s.wait(l, -1, unix.WNOHANG)
		l.Sys(unix.SYS_PTRACE, pick(s, resumes), changed, 0, 0)
	}
}

// kill appends a signal for what a call has created. Where other tasks make the call too,
// another task may have the ID by now. The task must not be one of the guest's threads, so
// that its process is named as well.
func (s *storm) kill(l *rawclone.List, c call, sig syscall.Signal) {
	process := c.op
	if c.op.Args[1]&linux.CLONE_THREAD != 0 {
		process = l.Sys(unix.SYS_GETPID)
	}
	l.Sys(unix.SYS_TGKILL, process, c.op, int(sig))
}

// shake appends a change of memory that has args structs in it.
func (s *storm) shake(l *rawclone.List) {
	const rw = unix.PROT_READ | unix.PROT_WRITE
	size := len(s.shaky)
	again := func() {
		l.Sys(unix.SYS_MMAP, s.shaky, size, rw, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_FIXED, -1, 0)
	}
	switch s.rng.IntN(5) {
	case 0:
		l.Sys(unix.SYS_MPROTECT, s.shaky, size, pick(s, []int{unix.PROT_NONE, unix.PROT_READ}))
		l.Sys(unix.SYS_MPROTECT, s.shaky, size, rw)
	case 1:
		l.Sys(unix.SYS_MADVISE, s.shaky, size, unix.MADV_DONTNEED)
	case 2:
		l.Sys(unix.SYS_MUNMAP, s.shaky, size)
		again()
	case 3:
		again()
	case 4:
		l.Sys(unix.SYS_FTRUNCATE, s.memory, 0)
		l.Sys(unix.SYS_FTRUNCATE, s.memory, len(s.file))
	}
}

// callerCode returns where the machine code of a caller is.
func (s *storm) callerCode(i int) []byte {
	return s.code[callersAt+i*sizeOfCaller:][:sizeOfCaller]
}

// jump appends a jump to a caller.
func (s *storm) jump(l *rawclone.List) {
	if len(callers) == 0 {
		return
	}
	i := s.rng.IntN(len(callers))
	flags := pick(s, []uint64{0, linux.CLONE_VFORK, linux.CLONE_VFORK | linux.CLONE_VM}) | kit.SIGCHLD
	l.Sys(rawclone.TrapJump, s.callerCode(i), uintptr(flags), 0, 0)
}

// flip appends changes of a caller's instruction. The last one is the right instruction.
func (s *storm) flip(l *rawclone.List) {
	if len(callers) == 0 {
		return
	}
	i := s.rng.IntN(len(callers))
	sites := callers[i].sites()
	for range 3 {
		for _, site := range [][]byte{pick(s, sites[1:]), sites[0]} {
			l.Sys(rawclone.TrapStore, s.callerCode(i)[siteAt:], uintptr(binary.LittleEndian.Uint64(site)))
		}
	}
}

// filters are seccomp filters, by what they return for one of clone4's numbers.
var filters = []uint32{unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_ERRNO | uint32(unix.EACCES), unix.SECCOMP_RET_TRACE}

// filterProgram returns a struct sock_fprog.
func filterProgram(p *rawclone.Program, action uint32) []byte {
	insns := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number
		{Code: unix.BPF_JMP | unix.BPF_JEQ, Jf: 1, K: uint32(kit.ABIs()[len(kit.ABIs())/2].Number)},
		{Code: unix.BPF_RET, K: action},
		{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ALLOW},
	}
	program, code := p.Buffer(16), p.Buffer(binary.Size(insns))
	if _, err := binary.Encode(code, binary.LittleEndian, insns); err != nil {
		panic(err)
	}
	*rawclone.WordOf(program), *rawclone.WordOf(program[8:]) = uintptr(len(insns)), rawclone.AddrOf(code)
	return program
}
