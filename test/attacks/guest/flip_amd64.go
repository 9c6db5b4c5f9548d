// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// callerCode is a caller: machine code that makes clone4 calls by the instruction at
// callerSite, while other tasks change the instruction. A child exits at once.
//
// RSI is the address of the caller's block at first, and R15 is later. The registers have the
// arguments for both SYSCALL and INT $0x80. The size of the struct is 0.
var callerCode = []byte{
	0x49, 0x89, 0xf7, //                         mov %rsi, %r15
	0x49, 0x8b, 0x07, //                      1: mov blockNumber(%r15), %rax
	0x49, 0x8b, 0x77, 8 * blockFlags, //         mov blockFlags(%r15), %rsi
	0x48, 0x89, 0xf1, //                         mov %rsi, %rcx
	0x31, 0xff, //                               xor %edi, %edi
	0x31, 0xdb, //                               xor %ebx, %ebx
	0x31, 0xd2, //                               xor %edx, %edx
	0x45, 0x31, 0xd2, //                         xor %r10d, %r10d
	0x45, 0x31, 0xc0, //                         xor %r8d, %r8d
	0x90,       //                               nop
	0x0f, 0x05, //                  callerSite:  syscall
	0x48, 0x85, 0xc0, //                         test %rax, %rax
	0x74, 0x34, //                               jz 3f
	0x78, 0x19, //                               js 2f
	0x49, 0xff, 0x47, 8 * blockMade, //          incq blockMade(%r15)
	0x89, 0xc7, //                               mov %eax, %edi
	0xb8, unix.SYS_WAIT4, 0, 0, 0, //            mov $SYS_wait4, %eax
	0x31, 0xf6, //                               xor %esi, %esi
	0xba, 0, 0, 0, 0x40, //                      mov $__WALL, %edx
	0x45, 0x31, 0xd2, //                         xor %r10d, %r10d
	0x0f, 0x05, //                               syscall
	0xeb, 0x08, //                               jmp 4f
	0x49, 0xff, 0x47, 8 * blockFailed, //     2: incq blockFailed(%r15)
	0x49, 0x89, 0x47, 8 * blockError, //         mov %rax, blockError(%r15)
	0x49, 0xff, 0x4f, 8 * blockLeft, //       4: decq blockLeft(%r15)
	0x7f, 0xb9, //                               jg 1b
	0xb8, unix.SYS_EXIT_GROUP, 0, 0, 0, //    5: mov $SYS_exit_group, %eax
	0x31, 0xff, //                               xor %edi, %edi
	0x0f, 0x05, //                               syscall
	0xeb, 0xf5, //                               jmp 5b
	0xb8, unix.SYS_EXIT, 0, 0, 0, //          3: mov $SYS_exit, %eax
	0x31, 0xff, //                               xor %edi, %edi
	0x0f, 0x05, //                               syscall
	0xeb, 0xf5, //                               jmp 3b
}

// Words of the caller's block.
const (
	blockNumber = iota
	blockFlags
	blockLeft // number of calls to make
	blockMade
	blockFailed
	blockError // the last error
	wordsOfBlock
)

// callerSite is the offset of the instruction in callerCode.
const callerSite = 26

// flipperCode writes the instructions in DX and R10W to the address in RSI, in turn and
// without end. Now and then, flipperCode yields the processor.
var flipperCode = []byte{
	0x49, 0x89, 0xd1, //                      mov %rdx, %r9
	0x41, 0xb8, 0, 0x20, 0, 0, //          1: mov $0x2000, %r8d
	0x66, 0x44, 0x89, 0x0e, //             2: mov %r9w, (%rsi)
	0xf3, 0x90, //                            pause
	0x66, 0x44, 0x89, 0x16, //                mov %r10w, (%rsi)
	0xf3, 0x90, //                            pause
	0x41, 0xff, 0xc8, //                      dec %r8d
	0x75, 0xef, //                            jnz 2b
	0xb8, unix.SYS_SCHED_YIELD, 0, 0, 0, //   mov $SYS_sched_yield, %eax
	0x0f, 0x05, //                            syscall
	0xeb, 0xe0, //                            jmp 1b
}

// skipCode is a handler of SIGSEGV for machines without INT $0x80: the caller continues behind
// the instruction, with ENOSYS. The handler returns to restorerAt.
var skipCode = []byte{
	0x48, 0x83, 0x82, 168, 0, 0, 0, 2, //                          addq $2, RIP(%rdx)
	0x48, 0xc7, 0x82, 144, 0, 0, 0, 0xda, 0xff, 0xff, 0xff, //     movq $-ENOSYS, RAX(%rdx)
	0xc3, //                                                       ret
}

// restoreCode returns from a signal handler. If a tracer skips rt_sigreturn, restoreCode repeats
// the call. restoreCode writes RAX, as C libraries do. systrap patches a restorer that writes
// EAX, and the handler then returns to a wrong address (docs/upstream.md).
var restoreCode = []byte{
	0x48, 0xc7, 0xc0, unix.SYS_RT_SIGRETURN, 0, 0, 0, // mov $SYS_rt_sigreturn, %rax
	0x0f, 0x05, //                                       syscall
	0xeb, 0xf5, //                                       jmp to the start
}

// Offsets of the code in memory.code. callerCode is at 0.
const (
	flipperAt  = 512
	skipAt     = 1024
	restorerAt = 1088
)

// skipInt80 returns operations that install skipCode and reset all other signal handlers. The
// handlers of the Go runtime need their own stack and thread-local memory, but the caller shares
// both with its threads.
func skipInt80(m *memory) []rawclone.Op {
	const saSiginfo, saRestorer, saNodefer = 4, 0x04000000, 0x40000000
	action, none := m.data[2048:], m.data[2048+64:]
	*word(action, 0) = rawclone.AddrOf(m.code) + skipAt
	*word(action, 1) = saSiginfo | saRestorer | saNodefer
	*word(action, 2) = rawclone.AddrOf(m.code) + restorerAt
	*word(action, 3), *word(none, 0) = 0, 0
	byDefault := m.data[2048+128:][:32]
	clear(byDefault)
	var ops []rawclone.Op
	for sig := unix.SIGHUP; sig <= unix.SIGSYS; sig++ {
		if sig != unix.SIGKILL && sig != unix.SIGSTOP {
			ops = append(ops, rawclone.Sys(unix.SYS_RT_SIGACTION, int(sig), rawclone.AddrOf(byDefault), 0, 8))
		}
	}
	return append(ops,
		rawclone.Sys(unix.SYS_RT_SIGACTION, int(unix.SIGSEGV), rawclone.AddrOf(action), 0, 8),
		rawclone.Sys(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, rawclone.AddrOf(none), 0, 8),
	)
}

const (
	opSyscall = 0x050f // the instructions, as 16-bit words
	opInt80   = 0x80cd
	opNothing = 0x9090
)

// number is a syscall number of clone4. Calls with the number are made by both instructions.
type number struct {
	name string
	rax  uintptr
	site uintptr // the instruction for which the number is valid
}

var numbers = []number{
	{"x32", linux.SYS_CLONE4_X32, opSyscall},
	{"i386", linux.SYS_CLONE4_I386, opInt80},
	{"upper", linux.SYS_CLONE4_AMD64 | 0xdeadbeef<<32, opSyscall},
}

// callFlags are the flags of calls, one entry for each round. No child uses its stack, so all
// children can share one. Most children share the guest's memory, because a copy of the memory
// takes longer than the rest of a call.
var callFlags = []uint64{
	linux.CLONE_VFORK | linux.CLONE_VM | kit.SIGCHLD,
	linux.CLONE_VFORK | linux.CLONE_VM,
	linux.CLONE_VFORK | kit.SIGCHLD,
	linux.CLONE_VFORK | linux.CLONE_VM | linux.CLONE_UNTRACED | kit.SIGCHLD,
	linux.CLONE_VM | kit.SIGCHLD,
	kit.ThreadFlags,
	linux.CLONE_VM | linux.CLONE_PTRACE | kit.SIGCHLD,
	linux.CLONE_VM,
	kit.SIGCHLD,
}

// flip is an attack by an instruction that changes between two reads of the sentry.
type flip struct {
	number number

	// resume has the ptrace requests that continue tracees; nil for no tracer.
	resume []int

	// slow is set if each call takes hundreds of ptrace stops.
	slow bool

	// filter is a seccomp filter of the caller; nil for none.
	filter []unix.SockFilter
}

// Numbers of calls that a caller makes.
const (
	callsOfRound     = 100
	callsOfSlowRound = 3
)

func (f *flip) run(r *run) error {
	for round := 0; r.goesOn(); round++ {
		if err := f.round(r, round); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		if err := killAll(); err != nil {
			return err
		}
	}
	return nil
}

func (f *flip) round(r *run, round int) error {
	m := r.mem
	m.p.Reset()
	clear(m.code)
	copy(m.code, callerCode)
	copy(m.code[flipperAt:], flipperCode)
	copy(m.code[skipAt:], skipCode)
	copy(m.code[restorerAt:], restoreCode)
	binary.LittleEndian.PutUint16(m.code[callerSite:], uint16(f.number.site))
	block := m.data[:8*wordsOfBlock]
	*word(block, blockNumber) = f.number.rax
	*word(block, blockFlags) = uintptr(callFlags[round%len(callFlags)])
	calls := callsOfRound
	if f.slow {
		calls = callsOfSlowRound
	}
	*word(block, blockLeft) = uintptr(calls)
	*word(block, blockMade), *word(block, blockFailed) = 0, 0

	site := rawclone.AddrOf(m.code) + callerSite
	other := uintptr(opSyscall ^ opInt80 ^ f.number.site)
	if round%5 == 4 {
		other = opNothing
	}
	flipper := m.p.List(rawclone.Sys(rawclone.TrapJump, rawclone.AddrOf(m.code)+flipperAt, site, f.number.site, other))
	forkFlipper := rawclone.Op{Trap: unix.SYS_CLONE, Args: [6]uintptr{uintptr(unix.SIGCHLD)}, Child: flipper}

	// The caller reports when its handlers are installed, which a tracer could prevent. Then
	// the caller waits at the gate until its tracer has attached.
	var ready, gate [2]int
	for _, pipe := range []*[2]int{&ready, &gate} {
		if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
			return err
		}
		defer unix.Close(pipe[0])
		defer unix.Close(pipe[1])
	}
	ops := append(skipInt80(m),
		rawclone.Sys(unix.SYS_WRITE, ready[1], rawclone.AddrOf(m.scratch), 1),
		rawclone.Sys(unix.SYS_READ, gate[0], rawclone.AddrOf(m.scratch), 1))
	if f.filter != nil {
		ops = append(ops, installFilter(m, f.filter)...)
	}
	// On systrap, a single-stepped thread may run on without a stop while another thread of
	// its process runs, even without clone4. So a process changes the code of such a caller.
	thread := round%2 == 1 && !slices.Contains(f.resume, unix.PTRACE_SINGLESTEP)
	if thread {
		o := forkFlipper
		o.Args[0] = kit.ThreadFlags
		ops = append(ops, o)
	} else if _, errno := rawclone.Do(m.p.List(forkFlipper)); errno != 0 {
		return fmt.Errorf("creating the process that changes the code: %w", errno)
	}
	ops = append(ops, rawclone.Sys(rawclone.TrapJump, rawclone.AddrOf(m.code), rawclone.AddrOf(block)))
	caller, errno := rawclone.Do(m.p.List(rawclone.Op{Trap: unix.SYS_CLONE, Args: [6]uintptr{uintptr(unix.SIGCHLD)}, Child: m.p.List(ops...)}))
	if errno != 0 {
		return fmt.Errorf("creating the caller: %w", errno)
	}
	if err := waitReady(ready[0]); err != nil {
		return fmt.Errorf("waiting for the caller: %w", err)
	}
	open := func() { unix.Write(gate[1], []byte{0}) }
	var err error
	if f.resume == nil {
		open()
		err = waitFor(r, int(caller))
	} else {
		tr := &tracer{r: r, options: traceOptions[r.rng.IntN(len(traceOptions))], resume: f.resume}
		err = tr.follow(int(caller), open)
	}
	r.out.Made += int(*word(block, blockMade))
	r.out.Failed += int(*word(block, blockFailed))
	if got, want := int(*word(block, blockMade)+*word(block, blockFailed)), calls; err == nil && got < want {
		// The change of code can kill a single-stepped caller by a signal.
		if *word(block, blockLeft) != 0 && len(r.out.Signals) == 0 {
			err = fmt.Errorf("the caller exited after %d calls, want %d", got, want)
		}
	}
	return err
}

// waitReady waits until fd can be read.
func waitReady(fd int) error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return fmt.Errorf("nothing to read after %v", patience)
		default:
			return nil
		}
	}
}

// waitFor waits for the exit of a child.
func waitFor(r *run, pid int) error {
	late := time.AfterFunc(patience, func() { unix.Kill(pid, unix.SIGKILL) })
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &ws, unix.WALL, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait4: %w", err)
		}
		break
	}
	r.signaled(ws)
	if !late.Stop() {
		return fmt.Errorf("process %d has not exited within %v", pid, patience)
	}
	return nil
}

// installFilter returns operations by which a task installs a seccomp filter.
func installFilter(m *memory, filter []unix.SockFilter) []rawclone.Op {
	at := m.data[4096:]
	binary.LittleEndian.PutUint16(at, uint16(len(filter)))
	*word(at, 1) = rawclone.AddrOf(at) + 16
	if _, err := binary.Encode(at[16:], binary.LittleEndian, filter); err != nil {
		panic(err)
	}
	return []rawclone.Op{
		rawclone.Sys(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
		rawclone.Sys(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, rawclone.AddrOf(at)),
	}
}

var (
	retAllow = []unix.SockFilter{{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ALLOW}}

	// retTrace returns SECCOMP_RET_TRACE for clone4, and allows other calls.
	retTrace = slices.Concat(
		[]unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}},
		jeq(linux.SYS_CLONE4_X32, unix.SECCOMP_RET_TRACE),
		jeq(linux.SYS_CLONE4_AMD64, unix.SECCOMP_RET_TRACE),
		jeq(linux.SYS_CLONE4_I386, unix.SECCOMP_RET_TRACE),
		retAllow,
	)
)

// jeq returns the instructions of a filter that return action for a syscall number.
func jeq(nr, action uint32) []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_JMP | unix.BPF_JEQ, Jf: 1, K: nr},
		{Code: unix.BPF_RET, K: action},
	}
}

func flips() []Attack {
	var all []Attack
	for _, n := range numbers {
		for _, way := range []struct {
			name  string
			tries int
			flip  flip
		}{
			{"untraced", 2000, flip{}},
			{"syscall", 1200, flip{resume: []int{unix.PTRACE_SYSCALL}}},
			{"sysemu", 400, flip{slow: true, resume: []int{unix.PTRACE_SYSEMU, unix.PTRACE_SYSCALL}}},
			{"step", 200, flip{slow: true, resume: []int{unix.PTRACE_SINGLESTEP, unix.PTRACE_CONT, unix.PTRACE_SYSCALL}}},
			{"events", 400, flip{resume: []int{unix.PTRACE_CONT}}},
			{"filter", 400, flip{filter: retAllow}},
			{"filter-trace", 400, flip{filter: retTrace, resume: []int{unix.PTRACE_CONT, unix.PTRACE_SYSCALL}}},
		} {
			if n.name == "upper" && way.name != "untraced" && way.name != "syscall" {
				continue // The sentry handles this call like an x32 call.
			}
			f := way.flip
			f.number = n
			all = append(all, Attack{Name: "flip/" + n.name + "/" + way.name, Level: "on", Tries: way.tries, run: f.run})
		}
	}
	return all
}

func attacksOfArch() []Attack {
	return append(flips(), Attack{Name: "registers", Level: "on", Tries: 1500, run: registers})
}
