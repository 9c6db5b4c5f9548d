// SPDX-License-Identifier: Apache-2.0

package storm

import (
	"bufio"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

// The guest makes storms, in waves. A wave is a process of 8 threads without a Go
// runtime, each of which executes a list of random calls, with random children that
// make calls themselves, while the guest sends signals to whatever there is. At the
// end of a wave the guest kills all that is left and waits for it.

// abi is a way to call clone4.
type abi struct {
	nr    uintptr
	entry uintptr // a value of rawclone.Op.Entry
	word  int     // size of a word of the args struct, in bytes
}

const (
	threads       = 8
	callsOfThread = 24

	// waveTime is when a wave is over though its process has not ended, and
	// afterTime how long what it leaves may go on.
	waveTime  = 300 * time.Millisecond
	afterTime = 2 * time.Millisecond

	// patience is how long what is killed may take to be gone.
	patience = time.Minute

	// notMade is the result of a call that has not come back.
	notMade = 0x5a5a5a5a
)

// outcome is what the guest tells of a storm.
type outcome struct {
	Calls    int // that came back
	Children int // that these made
	Execs    int // executions of a program that were asked for, and did not fail
	Waves    int
	Signals  int      // that the guest sent
	Left     []string // tasks that are there and should not be
	Seconds  float64
}

// guest does what standard input says, line by line, and prints the outcome of each
// storm: "storm SEED CALLS" makes one, "older SEED CALLS" the same with clone(2);
// "nothing" does nothing, and "bomb" makes children without end, as they do; for
// the test of the test, "call NUMBER" makes a system call, and "leave" leaves a child.
func guest() error {
	// gVisor sends it to the group of an init process too, in which a child was
	// stopped: that is not what is tested here.
	signal.Ignore(unix.SIGHUP)
	s, err := newStorm()
	if err != nil {
		return err
	}
	var out outcome
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch command, rest, _ := strings.Cut(in.Text(), " "); command {
		case "storm", "older":
			s.older = command == "older"
			var seed uint64
			var calls int
			if _, err := fmt.Sscan(rest, &seed, &calls); err != nil {
				return fmt.Errorf("%q is no seed and number of calls: %w", rest, err)
			}
			if out, err = s.run(seed, calls); err != nil {
				return err
			}
		case "nothing":
		case "bomb":
			if err := s.bomb(); err != nil {
				return err
			}
		case "call":
			nr, err := strconv.Atoi(rest)
			if err != nil {
				return fmt.Errorf("%q is no number of a call: %w", rest, err)
			}
			if _, _, errno := syscall.RawSyscall(uintptr(nr), 0, 0, 0); errno != 0 {
				return fmt.Errorf("call %d: %w", nr, errno)
			}
		case "leave":
			if _, errno := rawclone.Do(s.sleeper); errno != 0 {
				return fmt.Errorf("making a child: %w", errno)
			}
		default:
			return fmt.Errorf("unknown command %q", command)
		}
		if out.Left, err = others(); err != nil {
			return err
		}
		if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
			return err
		}
	}
	return nil
}

// storm has the lists of operations of a wave, and the memory that they use, all of
// which are used again for the next.
type storm struct {
	rng *rand.Rand

	fork    *rawclone.Op   // makes the process of a wave
	sleeper *rawclone.Op   // makes a process that does nothing
	threads [threads]*list // what its threads do; the first begins with making the others
	parents [32]*list      // what children do that have children
	leaves  [32]*list      // what others do; the first are for threads

	ids     []byte // where ptid and ctid point
	structs []byte // args structs, of which the first nStructs are in use
	stacks  []byte
	actions []byte // a struct sigaction for each signal
	code    []byte // of signal handlers
	program int    // file descriptor of what is executed
	nothing []byte // an empty set of signals, an empty string, no time

	older    bool // make the calls by clone(2), as far as it has what clone4 has
	nStructs int
	args4    [maxStructs]linux.Clone4Args // what is in structs
	calls    []*rawclone.Op               // all calls of clone4
	execs    [][2]*rawclone.Op            // what is done just before an execve, and that
}

const (
	maxStructs   = 1024
	sizeOfStruct = 40
	sizeOfStack  = 16 << 10
	sizeOfAction = 32
	restorer     = 64 // where it is in the code
	quiet        = 12 // how many leaves do not end a whole process
)

func newStorm() (*storm, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("becoming a subreaper: %w", err)
	}
	s := &storm{
		ids:     mapped(1<<12, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED),
		structs: mapped(maxStructs*sizeOfStruct, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED),
		stacks:  mapped(64*sizeOfStack, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE),
		actions: mapped(64*sizeOfAction, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED),
		code:    mapped(4<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE),
		nothing: mapped(4<<10, unix.PROT_READ, unix.MAP_PRIVATE),
	}
	newList := func(p *rawclone.Program, max int) *list {
		return &list{first: p.List(make([]rawclone.Op, max)...), max: max}
	}
	p := rawclone.NewProgram()
	for i := range s.leaves {
		s.leaves[i] = newList(p, 10)
		s.parents[i] = newList(p, 18)
	}
	s.threads[0] = newList(p, 200)
	s.fork = p.List(rawclone.Op{Trap: unix.SYS_CLONE, Args: [6]uintptr{uintptr(unix.SIGCHLD)}, Child: s.threads[0].first})
	sleep := p.List(rawclone.Op{Trap: unix.SYS_PPOLL}, rawclone.Op{Trap: unix.SYS_EXIT})
	s.sleeper = p.List(rawclone.Op{Trap: unix.SYS_CLONE, Args: [6]uintptr{uintptr(unix.SIGCHLD)}, Child: sleep})
	p = rawclone.NewProgram()
	for i := range s.threads[1:] {
		s.threads[1+i] = newList(p, 120)
	}

	copy(s.code, codeHandler)
	copy(s.code[restorer:], codeRestore)
	if err := unix.Mprotect(s.code, unix.PROT_READ|unix.PROT_EXEC); err != nil {
		return nil, fmt.Errorf("mprotect: %w", err)
	}

	var err error
	if s.program, err = unix.MemfdCreate("program", 0); err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	if _, err := unix.Write(s.program, exitProgram()); err != nil {
		return nil, fmt.Errorf("writing a program: %w", err)
	}
	return s, nil
}

// exitProgram returns a program that does nothing, as an ELF file.
func exitProgram() []byte {
	const base = 0x400000
	machine := elf.EM_X86_64
	if abis[0].nr == linux.SYS_CLONE4_GENERIC {
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

// run makes a storm of at least so many calls.
func (s *storm) run(seed uint64, calls int) (outcome, error) {
	var out outcome
	s.rng = rand.New(rand.NewPCG(seed, 0))
	start := time.Now()
	for out.Calls < calls {
		s.prepare()
		if err := s.wave(&out); err != nil {
			return out, err
		}
	}
	out.Seconds = time.Since(start).Seconds()
	return out, nil
}

// bomb starts a fork bomb.
func (s *storm) bomb() error {
	p := rawclone.NewProgram()
	l := &list{first: p.List(make([]rawclone.Op, 4)...), max: 4}
	a := &abis[0]
	for range 3 {
		l.op(rawclone.Op{Trap: a.nr, Args: [6]uintptr{0, uintptr(unix.SIGCHLD)}, Child: l.first})
	}
	l.sys(unix.SYS_PPOLL, 0, 0, 0, 0, 0)
	_, errno := rawclone.Do(p.List(rawclone.Op{Trap: a.nr, Args: [6]uintptr{0, uintptr(unix.SIGCHLD)}, Child: l.first}))
	if errno != 0 {
		return fmt.Errorf("making the first process of a bomb: %w", errno)
	}
	return nil
}

// others returns the processes that there are beside this one and its parent.
func others() ([]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var left []string
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || pid == os.Getppid() {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err == nil {
			left = append(left, string(stat))
		}
	}
	return left, nil
}

// wave runs what prepare has made, to its end.
func (s *storm) wave(out *outcome) error {
	leader, errno := rawclone.Do(s.fork)
	if errno != 0 {
		return fmt.Errorf("making the process of a wave: %w", errno)
	}
	over := time.Now().Add(waveTime)
	for leading := true; time.Now().Before(over); {
		time.Sleep(500 * time.Microsecond)
		if pid, err := unix.Wait4(-1, nil, unix.WNOHANG|unix.WALL, nil); err == nil && pid == int(leader) && leading {
			leading = false
			over = time.Now().Add(afterTime)
		}
		for range 64 {
			call := s.calls[s.rng.IntN(len(s.calls))]
			id := int(int32(atomic.LoadUintptr(&call.Ret)))
			if id <= 1 || id == notMade {
				continue
			}
			sig := s.signal()
			if s.oneIn(40) {
				sig = unix.SIGKILL
			}
			// Of a process or of a thread of the wave's: not of this one's.
			if unix.Tgkill(id, id, sig) == nil || unix.Tgkill(int(leader), id, sig) == nil {
				out.Signals++
				break
			}
		}
	}
	for over := time.Now().Add(patience); ; {
		// Whoever escapes by being made meanwhile is killed the next time.
		if err := unix.Kill(-1, unix.SIGKILL); err != nil && err != unix.ESRCH {
			return fmt.Errorf("killing what is left: %w", err)
		}
		var err error
		for pid := 1; pid > 0; {
			if pid, err = unix.Wait4(-1, nil, unix.WNOHANG|unix.WALL, nil); err == unix.EINTR {
				pid, err = 1, nil
			}
		}
		if err == unix.ECHILD {
			break
		}
		if err != nil {
			return fmt.Errorf("waiting for what is left: %w", err)
		}
		if time.Now().After(over) {
			left, _ := others()
			return fmt.Errorf("killed, and after %v not gone: %q", patience, left)
		}
		time.Sleep(100 * time.Microsecond)
	}

	out.Waves++
	for _, call := range s.calls {
		if call.Ret != notMade {
			out.Calls++
			if int(call.Ret) > 0 {
				out.Children++
			}
		}
	}
	for _, exec := range s.execs {
		if before, exec := exec[0], exec[1]; before.Ret != notMade && exec.Ret == notMade {
			out.Execs++
		}
	}
	return nil
}

// list is a list of operations that one task executes, see package rawclone.
type list struct {
	first  *rawclone.Op
	n, max int
}

// op appends an operation.
func (l *list) op(o rawclone.Op) *rawclone.Op {
	if l.n == l.max {
		panic("list is full")
	}
	next := rawclone.At(l.first, l.n)
	*next = o
	l.n++
	return next
}

func (l *list) sys(nr uintptr, args ...any) *rawclone.Op { return l.op(rawclone.Sys(nr, args...)) }

// prepare makes the lists of a wave.
func (s *storm) prepare() {
	s.calls, s.execs, s.nStructs = s.calls[:0], s.execs[:0], 0
	for i, l := range s.leaves {
		l.n = 0
		s.acts(l, 3)
		if i >= quiet {
			s.end(l)
		}
		l.sys(unix.SYS_EXIT, 0)
	}
	for _, l := range s.parents {
		l.n = 0
		for range 1 + s.rng.IntN(3) {
			s.after(l, s.call(l, nil), false)
		}
		s.acts(l, 2)
		s.end(l)
		l.sys(unix.SYS_EXIT, 0)
	}
	for i, l := range s.threads {
		l.n = 0
		if i == 0 {
			s.begin(l)
		}
		for range callsOfThread {
			var child *list
			if s.oneIn(8) {
				child = s.parents[s.rng.IntN(len(s.parents))]
			}
			s.after(l, s.call(l, child), true)
			// The end of all threads.
			switch s.rng.IntN(1000) {
			case 0, 1:
				s.exec(l)
			case 2, 3:
				l.sys(unix.SYS_EXIT_GROUP, 0)
			}
		}
		if i == 0 && s.oneIn(2) {
			l.sys(unix.SYS_EXIT_GROUP, 0)
		}
		l.sys(unix.SYS_EXIT, 0)
	}
}

// begin appends what the process of a wave begins with: signals that do not end it
// most of the time, and its threads.
func (s *storm) begin(l *list) {
	l.sys(unix.SYS_SETPGID, 0, 0) // for what the end of a stopped process does to others
	for sig := 1; sig <= 64; sig++ {
		action := s.actions[(sig-1)*sizeOfAction : sig*sizeOfAction]
		clear(action)
		switch {
		case s.oneIn(40): // SIG_DFL
		case s.oneIn(3):
			*word(action) = 1 // SIG_IGN
		default:
			const saRestorer, saRestart, saNodefer = 0x04000000, 0x10000000, 0x40000000
			*word(action) = addr(s.code)
			*word(action[8:]) = saRestorer | saNodefer | saRestart*uintptr(s.rng.IntN(2))
			*word(action[16:]) = addr(s.code[restorer:])
		}
		l.sys(unix.SYS_RT_SIGACTION, sig, addr(action), 0, 8)
	}
	l.sys(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, addr(s.nothing), 0, 8)
	for i, thread := range s.threads[1:] {
		a := &abis[s.rng.IntN(len(abis))]
		s.clone4(l, a, threadFlags, 5*uintptr(a.word), s.args(a, linux.Clone4Args{StackStart: s.stack(i)}), thread)
	}
}

const threadFlags = linux.CLONE_VM | linux.CLONE_FS | linux.CLONE_FILES | linux.CLONE_SIGHAND | linux.CLONE_THREAD | linux.CLONE_SYSVSEM

// clone4 appends a call of clone4.
func (s *storm) clone4(l *list, a *abi, flags uint64, size, ptr uintptr, child *list) *rawclone.Op {
	call := l.op(rawclone.Op{
		Trap: a.nr, Entry: a.entry, Child: child.first, Ret: notMade,
		Args: [6]uintptr{uintptr(flags >> 32), uintptr(uint32(flags)), size, ptr},
	})
	if i := (ptr - addr(s.structs)) / sizeOfStruct; s.older && i < uintptr(s.nStructs) {
		args := s.args4[i]
		call.Trap, call.Entry = unix.SYS_CLONE, rawclone.Syscall
		call.Args = olderArgs(flags, args)
	}
	s.calls = append(s.calls, call)
	return call
}

// args puts an args struct into memory and returns its address.
func (s *storm) args(a *abi, args linux.Clone4Args) uintptr {
	buf := s.structs[s.nStructs*sizeOfStruct:][:sizeOfStruct]
	s.args4[s.nStructs] = args
	s.nStructs++
	for i, v := range []uint64{args.Ptid, args.Ctid, args.StackStart, args.StackSize, args.TLS} {
		if a.word == 8 {
			binary.LittleEndian.PutUint64(buf[8*i:], v)
		} else {
			binary.LittleEndian.PutUint32(buf[4*i:], uint32(v))
		}
	}
	return addr(buf)
}

// call appends a random call of clone4, with a random leaf if child is nil.
func (s *storm) call(l *list, child *list) *rawclone.Op {
	a := &abis[s.rng.IntN(len(abis))]
	signal := uint64(unix.SIGCHLD)
	switch s.rng.IntN(8) {
	case 0:
		signal = 0
	case 1:
		signal = s.rng.Uint64N(256)
	}
	var flags uint64
	switch n := s.rng.IntN(100); {
	case n < 25:
		flags = signal
	case n < 50:
		flags = threadFlags
	case n < 65:
		flags = linux.CLONE_VM | linux.CLONE_VFORK | signal
	case n < 70:
		flags = linux.CLONE_VFORK | signal
	case n < 75:
		flags = linux.CLONE_VM | signal
	case n < 80:
		flags = linux.CLONE_VM | linux.CLONE_SIGHAND | signal
	case n < 90:
		flags = signal
		for _, ns := range []uint64{linux.CLONE_NEWNS, linux.CLONE_NEWUTS, linux.CLONE_NEWIPC, linux.CLONE_NEWUSER, linux.CLONE_NEWPID, linux.CLONE_NEWNET} {
			if s.oneIn(5) {
				flags |= ns
			}
		}
	case n < 96:
		flags = linux.CLONE4_VALID_FLAGS & s.rng.Uint64() & s.rng.Uint64()
	default:
		flags = s.rng.Uint64() & s.rng.Uint64() & s.rng.Uint64()
	}
	if child == nil {
		// What ends a thread with its whole process would soon end every wave.
		n := len(s.leaves)
		if flags&linux.CLONE_THREAD != 0 && !s.oneIn(30) {
			n = quiet
		}
		child = s.leaves[s.rng.IntN(n)]
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

	args := linux.Clone4Args{Ptid: s.id(), Ctid: s.id(), StackSize: s.rng.Uint64(), TLS: uint64(addr(s.ids))}
	if flags&linux.CLONE_VM != 0 || s.oneIn(2) {
		args.StackStart = s.stack(threads + s.rng.IntN(len(s.stacks)/sizeOfStack-threads))
	}
	if s.oneIn(20) {
		args.StackStart, args.TLS = s.rng.Uint64(), s.rng.Uint64()
	}
	size, ptr := 5*uintptr(a.word), s.args(a, args)
	switch s.rng.IntN(20) {
	case 0:
		size = uintptr(s.rng.IntN(48))
	case 1:
		ptr = uintptr(s.rng.Uint64() >> s.rng.IntN(64))
	case 2:
		size = uintptr(s.rng.Uint64() >> s.rng.IntN(64))
	}
	return s.clone4(l, a, flags, size, ptr, child)
}

// id returns a ptid or ctid.
func (s *storm) id() uint64 {
	switch s.rng.IntN(10) {
	case 0:
		return s.rng.Uint64() >> s.rng.IntN(64)
	case 1:
		return uint64(addr(s.nothing)) // is not to be written
	case 2:
		return s.stack(s.rng.IntN(threads)) &^ (sizeOfStack - 1)
	}
	return uint64(addr(s.ids)) + s.rng.Uint64N(uint64(len(s.ids)/4))*4
}

// after appends what a task does after a call. own says that no other task makes this
// call: then the ID is one that the task knows.
func (s *storm) after(l *list, call *rawclone.Op, own bool) {
	n := s.rng.IntN(16)
	if !own && (n == 8 || n == 9) {
		return
	}
	switch n {
	case 0, 1, 2, 3, 4:
		l.sys(unix.SYS_WAIT4, -1, 0, unix.WNOHANG|unix.WALL)
	case 5:
		l.sys(unix.SYS_WAIT4, call, 0, unix.WALL)
	case 6:
		s.kill(l, call, s.signal())
	case 7:
		if call.Args[1]&linux.CLONE_THREAD == 0 || s.oneIn(30) {
			s.kill(l, call, unix.SIGKILL)
		}
	case 8:
		l.sys(unix.SYS_PTRACE, unix.PTRACE_SEIZE, call, 0, s.rng.IntN(1<<8)|unix.PTRACE_O_EXITKILL*s.rng.IntN(2))
	case 9:
		request := []int{unix.PTRACE_CONT, unix.PTRACE_SYSCALL, unix.PTRACE_DETACH, unix.PTRACE_INTERRUPT, unix.PTRACE_ATTACH}
		l.sys(unix.SYS_PTRACE, request[s.rng.IntN(len(request))], call, 0, 0)
	case 10:
		l.sys(unix.SYS_SCHED_YIELD)
	}
}

// kill appends a signal for what call has made. Where another task has made the call
// too, the ID may be one of another PID namespace. It must not be taken for one of the
// guest's threads, so a task is always named by its process as well.
func (s *storm) kill(l *list, call *rawclone.Op, sig syscall.Signal) {
	process := call
	if call.Args[1]&linux.CLONE_THREAD != 0 {
		process = l.sys(unix.SYS_GETPID)
	}
	l.sys(unix.SYS_TGKILL, process, call, int(sig))
}

// acts appends things for a child to do.
func (s *storm) acts(l *list, max int) {
	for range s.rng.IntN(max + 1) {
		switch s.rng.IntN(5) {
		case 0:
			l.sys(unix.SYS_SCHED_YIELD)
		case 1:
			l.sys(unix.SYS_TKILL, l.sys(unix.SYS_GETTID), int(s.signal()))
		case 2:
			l.sys(unix.SYS_PTRACE, unix.PTRACE_TRACEME)
		case 3:
			l.sys(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, addr(s.nothing), 0, 8)
		case 4:
			l.sys(unix.SYS_UNSHARE, linux.CLONE_FILES|linux.CLONE_FS)
		}
	}
}

// end appends the end of a child: on its own, by a signal, by a program, or when it
// is killed.
func (s *storm) end(l *list) {
	switch n := s.rng.IntN(20); {
	case n < 2:
		s.exec(l)
	case n < 4:
		l.sys(unix.SYS_TKILL, l.sys(unix.SYS_GETTID), int(unix.SIGKILL))
	case n < 5:
		l.sys(unix.SYS_PPOLL, 0, 0, 0, 0, 0) // does not come back
	case n < 6:
		l.sys(unix.SYS_EXIT_GROUP, 0)
	}
}

// exec appends an execution of the program.
func (s *storm) exec(l *list) {
	before := l.op(rawclone.Op{Trap: unix.SYS_GETPID, Ret: notMade})
	exec := l.sys(unix.SYS_EXECVEAT, s.program, addr(s.nothing), 0, 0, unix.AT_EMPTY_PATH)
	exec.Ret = notMade
	s.execs = append(s.execs, [2]*rawclone.Op{before, exec})
}

func (s *storm) oneIn(n int) bool { return s.rng.IntN(n) == 0 }

func (s *storm) signal() syscall.Signal { return syscall.Signal(1 + s.rng.IntN(64)) }

// stack returns the end of a stack as a stack pointer.
func (s *storm) stack(i int) uint64 {
	return uint64(addr(s.stacks)) + uint64(i+1)*sizeOfStack - 64
}
