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

// A storm is a series of waves. A wave is a process of 8 threads without a Go runtime. Each
// thread executes a list of random clone4 calls, most of them followed by another random
// operation, such as a signal or a wait. The children execute lists too. Many children share
// one list, and some of these lists call clone4 again.
//
// In three cases, gVisor keeps memory of tasks that have exited: see docs/upstream.md. A tidy
// storm avoids these cases:
//
//   - Only its parent and its tracer wait for a task.
//   - No process is killed while it may be in clone4. A task sends SIGKILL only to itself and
//     to children that make no calls. Other signals are blocked, handled or ignored. The
//     process of a wave exits with its last thread.
//   - No process ignores SIGCHLD.
//
// In a tidy storm, no operation can wait forever, so the guest need not kill a wave.
// A wild storm avoids nothing.
const (
	threads       = 8
	callsOfThread = 100

	// opsOfThread is an upper bound for the length of a thread's list.
	opsOfThread = 1400

	// notMade is the result of a call that has not returned.
	notMade = 0x5a5a5a5a
)

// storm has the lists of operations of a wave, and the memory that the operations use. The
// next wave uses the same lists and memory again.
type storm struct {
	rng  *rand.Rand
	tidy bool
	fd   bool // whether to use the flags and descriptors of level fd

	threads [threads]*rawclone.List // of the 8 threads; threads[0], the leader's, creates the others
	plain   []*rawclone.List        // of children that may be threads
	process []*rawclone.List        // of children that are processes
	alone   []*rawclone.List        // of processes with memory of their own
	callers []*rawclone.List        // of processes that call clone4

	ids     []byte   // the words to which ptid and ctid usually point
	structs []byte   // args structs, of which nStructs are in use
	shaky   []byte   // more args structs, in memory that shake unmaps, protects and drops
	file    []byte   // more args structs, in a file that shake truncates
	stacks  []byte   // of threads and children
	actions []byte   // a struct sigaction for each signal
	code    []byte   // the signal handler, its restorer and the snippets
	nothing []byte   // zeros, read-only: an empty set of signals and an empty string
	filters [][]byte // seccomp filters, each a struct sock_fprog
	all     []byte   // a set of all signals
	short   []byte   // a struct timespec of half a millisecond
	program int      // descriptor of the program that children execute
	memory  int      // descriptor of the file that is mapped at file
	fds     *fds

	nStructs int
	calls    []call            // all clone4 calls of the lists
	execs    [][2]*rawclone.Op // pairs of a getpid and the execve that follows
}

// call is a clone4 call in a list.
type call struct {
	op *rawclone.Op

	// quiet is set if the child makes no clone4 calls.
	quiet bool
}

const (
	maxStructs   = 1024
	sizeOfStruct = linux.SizeOfClone4FDArgs
	stacks       = 256
	sizeOfStack  = 16 << 10
	sizeOfAction = 32

	// Offsets in storm.code. The signal handler is at 0.
	restorerAt    = 64
	snippetsAt    = 128
	sizeOfSnippet = 64
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
	for _, f := range filterActions {
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

// memFile returns the descriptor of a new file in memory.
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

// exitProgram returns an ELF file. The program in it only exits.
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

// pick returns a random element of choices.
func pick[T any](s *storm, choices []T) T { return choices[s.rng.IntN(len(choices))] }

// faults are the signals that an instruction of a task can raise. They have no handler,
// because a task could return from a handler to the same instruction and fault again.
var faults = map[syscall.Signal]bool{
	unix.SIGILL: true, unix.SIGTRAP: true, unix.SIGBUS: true, unix.SIGFPE: true, unix.SIGSEGV: true, unix.SIGSYS: true,
}

// exitSignal returns a random exit signal of a child. The guest can receive the signal, so
// the signal is one that ignoreSignals ignores.
func (s *storm) exitSignal() syscall.Signal {
	for {
		if sig := s.signal(); !faults[sig] && sig != unix.SIGKILL && sig != unix.SIGSTOP {
			return sig
		}
	}
}

// signal returns a random signal. In a tidy storm, the signal neither kills nor stops the
// process that receives the signal. In a wild storm, a few signals do.
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
	// The previous wave may have changed the code by a write to a random address.
	copy(s.code, codeHandler)
	copy(s.code[restorerAt:], codeRestore)
	for i, c := range snippets {
		copy(s.snippetCode(i), c.code())
	}
	// The previous wave may have been killed while the file was truncated.
	if err := unix.Ftruncate(s.memory, int64(len(s.file))); err != nil {
		return fmt.Errorf("ftruncate: %w", err)
	}
	s.calls, s.execs, s.nStructs = s.calls[:0], s.execs[:0], 0
	// begin comes first, because the lists of children use descriptors that begin creates.
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

// child writes a list of one kind: plain, process, alone or callers. storm has a field for the
// lists of each kind.
func (s *storm) child(l *rawclone.List, kind int) {
	const plain, process, alone, callers = 0, 1, 2, 3
	if (kind == plain || kind == process) && !s.tidy {
		// Other tasks may use the same stack, so no handler may run on the stack.
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

// rest may append a pause: a yield, a short sleep, or a sleep without end in a wild storm.
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

// end may append an operation by which the whole process exits, or an execve.
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

// begin appends the first operations of a wave's leader, which install signal handlers and
// create descriptors and the other threads.
func (s *storm) begin(l *rawclone.List) {
	for fd := range 3 {
		l.Sys(unix.SYS_CLOSE, fd) // A wave must not write into the answers of the guest.
	}
	// If the group of a stopped process becomes an orphan, the kernel sends SIGHUP to the
	// whole group (setpgid(2)).
	l.Sys(unix.SYS_SETPGID, 0, 0)
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

// clone4 appends a clone4 call.
func (s *storm) clone4(l *rawclone.List, op rawclone.Op, quiet bool) call {
	op.Ret = notMade
	c := call{l.Append(op), quiet}
	s.calls = append(s.calls, c)
	return c
}

// call appends a random clone4 call. If calling is set, the child calls clone4 too, except with
// flags that share signal handlers or create a PID namespace: see childOf.
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

// flags returns random flags. Most combinations are valid.
func (s *storm) flags() uint64 {
	signal := kit.SIGCHLD
	switch s.rng.IntN(8) {
	case 0:
		signal = 0
	case 1:
		signal = uint64(s.exitSignal())
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
	case n < 82: // like fork
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

// childOf returns a list for the child of a call with flags, and whether the child makes no
// clone4 calls.
func (s *storm) childOf(flags uint64, calling bool) (child *rawclone.List, quiet bool) {
	switch {
	case flags&linux.CLONE_NEWPID != 0:
		// Tasks that execute the same list store the IDs of their children in the
		// same words. An ID from a new PID namespace would name the wrong task.
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

// args writes an args struct for the ABI to memory, and returns the address.
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

// id returns an address for ptid or ctid. Some addresses are invalid.
func (s *storm) id() uint64 {
	switch s.rng.IntN(10) {
	case 0:
		return s.rng.Uint64() >> s.rng.IntN(64)
	case 1:
		return uint64(rawclone.AddrOf(s.nothing)) // read-only
	case 2:
		return s.stack(s.rng.IntN(threads)) &^ (sizeOfStack - 1)
	}
	return uint64(rawclone.AddrOf(s.ids)) + s.rng.Uint64N(uint64(len(s.ids)/4))*4
}

// stack returns the initial stack pointer for stack i.
func (s *storm) stack(i int) uint64 {
	return kit.StackTop(s.stacks[i*sizeOfStack:][:sizeOfStack])
}

// after may append a random operation, often on the child of the call c.
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

// wait appends a wait4. In a tidy storm, the wait4 leaves out children and tracees of other
// threads.
func (s *storm) wait(l *rawclone.List, pid any, options int) *rawclone.Op {
	if s.tidy {
		options |= unix.WNOTHREAD
	}
	return l.Sys(unix.SYS_WAIT4, pid, 0, options|unix.WALL)
}

// seize appends a ptrace request that makes the task the tracer of the child of c.
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

// resumes are ptrace requests that continue or stop a tracee.
var resumes = []int{unix.PTRACE_CONT, unix.PTRACE_SYSCALL, unix.PTRACE_DETACH, unix.PTRACE_INTERRUPT, unix.PTRACE_LISTEN}

// trace appends operations that trace the child of c for a while. A tracee that is stopped
// afterwards continues when its tracer exits.
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

// kill appends a signal for the child of c. If other tasks execute the same list, the ID may
// be that of another task by now. The call names the process too, so that no thread of the
// guest can receive the signal.
func (s *storm) kill(l *rawclone.List, c call, sig syscall.Signal) {
	process := c.op
	if c.op.Args[1]&linux.CLONE_THREAD != 0 {
		process = l.Sys(unix.SYS_GETPID)
	}
	l.Sys(unix.SYS_TGKILL, process, c.op, int(sig))
}

// shake appends operations that unmap, protect, drop or truncate memory with args structs. The
// last operation makes the memory accessible again.
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

// snippetCode returns the memory of snippet i.
func (s *storm) snippetCode(i int) []byte {
	return s.code[snippetsAt+i*sizeOfSnippet:][:sizeOfSnippet]
}

// jump appends a jump to a snippet.
func (s *storm) jump(l *rawclone.List) {
	if len(snippets) == 0 {
		return
	}
	i := s.rng.IntN(len(snippets))
	flags := pick(s, []uint64{0, linux.CLONE_VFORK, linux.CLONE_VFORK | linux.CLONE_VM}) | kit.SIGCHLD
	l.Sys(rawclone.TrapJump, s.snippetCode(i), uintptr(flags), 0, 0)
}

// flip appends stores that replace the instruction of a snippet. A store of the snippet's own
// instruction follows each.
func (s *storm) flip(l *rawclone.List) {
	if len(snippets) == 0 {
		return
	}
	i := s.rng.IntN(len(snippets))
	sites := snippets[i].sites()
	for range 3 {
		for _, site := range [][]byte{pick(s, sites[1:]), sites[0]} {
			l.Sys(rawclone.TrapStore, s.snippetCode(i)[siteAt:], uintptr(binary.LittleEndian.Uint64(site)))
		}
	}
}

// filterActions are the actions of the seccomp filters.
var filterActions = []uint32{unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_ERRNO | uint32(unix.EACCES), unix.SECCOMP_RET_TRACE}

// filterProgram returns a struct sock_fprog. The filter returns action for the clone4 number of
// one ABI, and allows all other calls.
func filterProgram(p *rawclone.Program, action uint32) []byte {
	insns := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the syscall number
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
