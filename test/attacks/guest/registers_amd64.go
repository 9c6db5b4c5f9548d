// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

// registers is an attack by tracers that change registers at every stop: the number, the
// arguments, the instruction pointer, and RAX and ORIG_RAX to what the sentry keeps
// there. Several tracers attach to the same processes, and detach or die at random.
func registers(r *run) error {
	m := r.mem
	copy(m.code, callerCode)
	copy(m.code[skipAt:], skipCode)
	copy(m.code[restorerAt:], restoreCode)
	binary.LittleEndian.PutUint16(m.code[callerSite:], opSyscall)

	var victims [3]atomic.Int32
	var programs [3]*rawclone.Program
	for i := range programs {
		programs[i] = rawclone.NewProgram()
		defer programs[i].Free()
	}
	start := func(i int) error {
		block := m.data[i*8*wordsOfBlock:][:8*wordsOfBlock]
		n := pick(r, numbers)
		*word(block, blockNumber) = n.rax
		*word(block, blockFlags) = uintptr(pick(r, callFlags))
		// A child whose RAX was changed goes on as a caller, with the same block.
		*word(block, blockLeft) = 400
		p := programs[i]
		p.Reset()
		ops := skipInt80(m)
		ops = append(ops, rawclone.Sys(rawclone.TrapJump, rawclone.AddrOf(m.code), rawclone.AddrOf(block)))
		pid, errno := rawclone.Do(p.List(rawclone.Op{Trap: unix.SYS_CLONE, Args: [6]uintptr{uintptr(unix.SIGCHLD)}, Child: p.List(ops...)}))
		if errno != 0 {
			return fmt.Errorf("making a tracee: %w", errno)
		}
		victims[i].Store(int32(pid))
		return nil
	}

	var stops atomic.Int64
	var stop atomic.Bool
	var all sync.WaitGroup
	for range 3 {
		seed := r.rng.Uint64()
		all.Go(func() {
			// Each tracer is a thread, which exits with its goroutine.
			rng := rand.New(rand.NewPCG(seed, 1))
			for !stop.Load() {
				done := make(chan struct{})
				go func() {
					defer close(done)
					runtime.LockOSThread()
					traceRandomly(rng, victims[:], &stops, &stop)
				}()
				<-done
			}
		})
	}
	over := time.Now().Add(patience)
	var err error
	for err == nil && int(stops.Load()) < r.tries && (stops.Load() == 0 || time.Now().Before(r.until)) {
		if time.Now().After(over) {
			err = fmt.Errorf("%d stops within %v, want %d", stops.Load(), patience, r.tries)
			break
		}
		// The wait is for this thread's children alone: the tracers wait for theirs.
		var ws unix.WaitStatus
		for {
			pid, e := unix.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD|unix.WNOHANG, nil)
			if pid <= 0 || e != nil {
				break
			}
			r.signaled(ws)
			for i := range victims {
				victims[i].CompareAndSwap(int32(pid), 0)
			}
		}
		for i := range victims {
			pid := victims[i].Load()
			switch {
			case pid == 0:
			case unix.Kill(int(pid), 0) != nil:
				// The wait of a tracer in the parent's thread group reaps a tracee.
				victims[i].CompareAndSwap(pid, 0)
			case r.oneIn(50):
				unix.Kill(int(pid), unix.SIGKILL)
			case r.oneIn(3):
				// A tracer that is gone can have left a stopped process.
				unix.Kill(int(pid), unix.SIGCONT)
			}
			if pid == 0 && err == nil {
				err = start(i)
			}
		}
		time.Sleep(time.Millisecond)
	}
	stop.Store(true)
	all.Wait()
	r.out.Stops = int(stops.Load())
	for i := range victims {
		block := m.data[i*8*wordsOfBlock:][:8*wordsOfBlock]
		r.out.Made += int(*word(block, blockMade))
		r.out.Failed += int(*word(block, blockFailed))
	}
	return err
}

// traceRandomly attaches to one process, follows it for some stops, and detaches or
// leaves it to the exit of the thread.
func traceRandomly(rng *rand.Rand, victims []atomic.Int32, stops *atomic.Int64, stop *atomic.Bool) {
	pid := int(victims[rng.IntN(len(victims))].Load())
	if pid == 0 {
		time.Sleep(time.Millisecond)
		return
	}
	options := traceOptions[rng.IntN(len(traceOptions))] | unix.PTRACE_O_TRACESYSGOOD
	if rng.IntN(4) == 0 {
		options |= unix.PTRACE_O_EXITKILL
	}
	if rng.IntN(3) == 0 {
		if ptrace(unix.PTRACE_ATTACH, pid, 0, 0) != 0 {
			return
		}
	} else {
		if ptrace(unix.PTRACE_SEIZE, pid, 0, uintptr(options)) != 0 {
			return
		}
		ptrace(unix.PTRACE_INTERRUPT, pid, 0, 0)
	}
	resume := []int{unix.PTRACE_SYSCALL, unix.PTRACE_SYSCALL, unix.PTRACE_SYSCALL, unix.PTRACE_CONT, unix.PTRACE_SYSEMU}
	for left, idle := 5+rng.IntN(60), 0; left > 0 && idle < 400 && !stop.Load(); {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD|unix.WNOHANG, nil)
		if err != nil && err != unix.EINTR {
			return
		}
		if got <= 0 || err != nil {
			if idle++; idle%50 == 0 {
				ptrace(unix.PTRACE_INTERRUPT, pid, 0, 0)
			}
			if idle%8 == 0 {
				unix.Nanosleep(&unix.Timespec{Nsec: 50_000}, nil)
			} else {
				unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
			}
			continue
		}
		if !ws.Stopped() {
			continue
		}
		left--
		stops.Add(1)
		var regs unix.PtraceRegs
		if unix.PtraceGetRegs(got, &regs) == nil {
			changeRegisters(rng, &regs)
			unix.PtraceSetRegs(got, &regs)
		}
		request := resume[rng.IntN(len(resume))]
		if rng.IntN(30) == 0 {
			request = unix.PTRACE_DETACH
		}
		sig := ws.StopSignal()
		if ws>>16 != 0 || sig&^0x80 == unix.SIGTRAP || sig == unix.SIGSTOP {
			sig = 0
		}
		ptrace(request, got, 0, uintptr(sig))
	}
	if rng.IntN(2) == 0 {
		ptrace(unix.PTRACE_DETACH, pid, 0, 0)
	}
}

// What the sentry keeps in registers during a call. docs/security.md has the reasons.
const (
	decisionMark = 0x634c34 << 40
	slotNumber   = 2000
)

func changeRegisters(rng *rand.Rand, regs *unix.PtraceRegs) {
	oneIn := func(n int) bool { return rng.IntN(n) == 0 }
	if oneIn(2) {
		regs.Orig_rax = []uint64{
			linux.SYS_CLONE4_AMD64, linux.SYS_CLONE4_X32, linux.SYS_CLONE4_I386,
			linux.SYS_CLONE4_AMD64 | 0xdeadbeef<<32, linux.SYS_CLONE4_X32 | 1<<63,
			slotNumber, slotNumber | 1<<32, ^uint64(0), unix.SYS_GETPID, unix.SYS_CLONE, rng.Uint64(),
		}[rng.IntN(11)]
	}
	if oneIn(2) {
		const erestartsys, erestartBlock = 512, 516
		regs.Rax = []uint64{
			decisionMark | rng.Uint64N(8)<<32 | uint64(rng.Uint32()),
			decisionMark | rng.Uint64N(256)<<32,
			^uint64(unix.ENOSYS) + 1, ^uint64(erestartsys) + 1, ^uint64(erestartBlock) + 1, 0, rng.Uint64(),
		}[rng.IntN(7)]
	}
	if oneIn(3) {
		flags := callFlags[rng.IntN(len(callFlags))]
		regs.Rsi, regs.Rcx = flags, flags
	}
	if oneIn(10) {
		regs.Rsi, regs.Rdi = rng.Uint64()&rng.Uint64(), rng.Uint64()&rng.Uint64()
	}
	if oneIn(10) {
		regs.Rdx, regs.R10 = 40, rng.Uint64()>>rng.IntN(64)
	}
	if oneIn(8) {
		regs.Rip += 2 * uint64(rng.IntN(3)-1)
	}
	if oneIn(200) {
		regs.Rip = rng.Uint64() >> rng.IntN(64)
	}
}
