// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"encoding/binary"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// Constants of seccomp(2) and its filters.
const (
	sysSeccomp     = 317
	retKillProcess = unix.SECCOMP_RET_KILL_PROCESS
	retKillThread  = unix.SECCOMP_RET_KILL_THREAD
	retTrap        = unix.SECCOMP_RET_TRAP
	retTrace       = unix.SECCOMP_RET_TRACE
	retAllow       = unix.SECCOMP_RET_ALLOW
	retRefuse      = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)

	archAMD64 = unix.AUDIT_ARCH_X86_64
	archI386  = unix.AUDIT_ARCH_I386
)

// rule is the action of a filter for a list of numbers.
type rule struct {
	arch        uint32 // 0 matches any
	first, last uint32
	action      uint32
}

// filter is a seccomp filter. Its first matching rule decides.
type filter struct {
	rules     []rule
	otherwise uint32
}

// program puts the filter into shared memory, as a struct sock_fprog, and returns
// its address.
func (f filter) program(l *rawclone.List) uintptr {
	const (
		load   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		nr     = 0 // offsets in struct seccomp_data
		arch   = 4
		ifEq   = unix.BPF_JMP | unix.BPF_JEQ
		ifGe   = unix.BPF_JMP | unix.BPF_JGE
		ifGt   = unix.BPF_JMP | unix.BPF_JGT
		always = unix.BPF_RET
	)
	var code []unix.SockFilter
	for _, r := range f.rules {
		if r.arch != 0 {
			code = append(code, unix.SockFilter{Code: load, K: arch}, unix.SockFilter{Code: ifEq, Jf: 4, K: r.arch})
		}
		code = append(code,
			unix.SockFilter{Code: load, K: nr},
			unix.SockFilter{Code: ifGe, Jf: 2, K: r.first},
			unix.SockFilter{Code: ifGt, Jt: 1, K: r.last},
			unix.SockFilter{Code: always, K: r.action})
	}
	code = append(code, unix.SockFilter{Code: always, K: f.otherwise})
	const header = 16
	buf := l.Program().Buffer(header + len(code)*binary.Size(code[0]))
	binary.LittleEndian.PutUint16(buf, uint16(len(code)))
	*rawclone.WordOf(buf[8:]) = rawclone.AddrOf(buf) + header
	if _, err := binary.Encode(buf[header:], binary.LittleEndian, code); err != nil {
		panic(err)
	}
	return rawclone.AddrOf(buf)
}

// install appends the calls that install f for the process, by seccomp(2) or by prctl(2).
func (f filter) install(l *rawclone.List, byPrctl bool) {
	program := f.program(l)
	l.Sys(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	if byPrctl {
		l.Sys(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, program)
	} else {
		l.Sys(sysSeccomp, unix.SECCOMP_SET_MODE_FILTER, 0, program)
	}
}

// unblockSIGSYS appends calls that unblock SIGSYS and reset its handler, so that the signal kills
// the process. A script has all signals blocked, and has Go's handlers.
func unblockSIGSYS(l *rawclone.List) {
	l.Sys(unix.SYS_RT_SIGACTION, int(unix.SIGSYS), l.Program().Buffer(32), 0, 8)
	set := l.Program().Word()
	*set = 1 << (unix.SIGSYS - 1)
	l.Sys(unix.SYS_RT_SIGPROCMASK, unix.SIG_UNBLOCK, set, 0, 8)
}

// Outcomes of an attempt to create a child. Other outcomes are the name of an error, or of the
// signal that killed the caller.
const (
	child   = "a child"
	eperm   = "EPERM"
	enosys  = "ENOSYS"
	sigsys  = "SIGSYS"
	sigsegv = "SIGSEGV"
	refused = "EPERM or ENOSYS"
)

// attempt is a call under a filter, and the wait for its child.
type attempt struct {
	call, wait *rawclone.Op
	status     *uintptr // wait status of the child

	end *uintptr // the caller's own wait status
}

const attemptStatus = 9

// attempt appends an attempt to create a child, which exits with attemptStatus, and the exit of
// the process.
func newAttempt(l *rawclone.List, o rawclone.Op, exiting *rawclone.List) *attempt {
	var a attempt
	o.Child = exiting.First()
	a.call = l.Append(o)
	a.wait, a.status = l.Wait(-1, unix.WALL)
	l.Exit(0)
	return &a
}

// outcome returns the outcome of the attempt.
func (a *attempt) outcome() string {
	end, e := unix.WaitStatus(*a.end), a.call.Errno()
	switch {
	case end.Signaled() && a.call.Ret == 0:
		return unix.SignalName(end.Signal())
	case end != 0:
	case a.call.Ret > 0 && a.wait.Ret == a.call.Ret && unix.WaitStatus(*a.status).ExitStatus() == attemptStatus:
		return child
	case e != 0 && a.wait.Errno() == unix.ECHILD:
		return kit.ErrnoName(e)
	case a.wait.Errno() == unix.ECHILD:
		return "no child, and no error"
	}
	return fmt.Sprintf("call %#x, wait %#x, the child: %s, the caller: %s", a.call.Ret, a.wait.Ret, kit.Status(*a.status), kit.Status(end))
}

const garbage = 0xdeadbeef << 32

// slot is the number of the slot of the sentry; see sentry/syscalls.
const slot = 2000

// i386High is the number of i386's clone4 as systrap and KVM report it.
const i386High = 0x86000000 + linux.SYS_CLONE4_I386

// TestSeccomp checks that no number of clone4, or near one, passes a filter that refuses clone4.
//
// INT $0x80 with 323 is not among the rows. On the ptrace platform it is amd64's call, also for
// the filter, as INT $0x80 is for every number of amd64.
func TestSeccomp(t *testing.T) {
	// Kinds of attempts. A filter has one outcome for each kind.
	const (
		viaAMD64 = iota
		viaX32
		viaHigh // SYSCALL with the number that systrap reports for i386
		viaSlot // SYSCALL with the number of the slot
		viaI386
		viaI386High
		kinds
	)
	type number struct {
		kind  int
		entry uintptr
		rax   uintptr
	}
	numbers := []number{
		{kind: viaAMD64, entry: rawclone.Syscall, rax: linux.SYS_CLONE4_AMD64},
		{kind: viaAMD64, entry: rawclone.Syscall, rax: linux.SYS_CLONE4_AMD64 | garbage},
		{kind: viaX32, entry: rawclone.Syscall, rax: linux.SYS_CLONE4_X32},
		{kind: viaX32, entry: rawclone.Syscall, rax: linux.SYS_CLONE4_X32 | garbage},
		{kind: viaHigh, entry: rawclone.Syscall, rax: i386High},
		{kind: viaI386, entry: rawclone.Int80, rax: linux.SYS_CLONE4_I386},
		{kind: viaI386, entry: rawclone.Int80, rax: linux.SYS_CLONE4_I386 | garbage},
		{kind: viaI386High, entry: rawclone.Int80, rax: i386High},
	}
	for nr := uintptr(slot - 10); nr <= slot+1; nr++ {
		numbers = append(numbers, number{kind: viaSlot, entry: rawclone.Syscall, rax: nr})
	}

	const x32bit, last = linux.X32_SYSCALL_BIT, 1<<32 - 1
	onlyAMD64 := func(action uint32) filter {
		return filter{[]rule{{arch: archAMD64, last: last, action: retAllow}}, action}
	}
	allowList := func(action uint32) filter {
		return filter{[]rule{
			{arch: archAMD64, first: unix.SYS_WAIT4, last: unix.SYS_WAIT4, action: retAllow},
			{arch: archAMD64, first: unix.SYS_EXIT_GROUP, last: unix.SYS_EXIT_GROUP, action: retAllow},
		}, action}
	}
	all := func(outcome string) (want [kinds]string) {
		for i := range want {
			want[i] = outcome
		}
		return want
	}
	for _, tc := range []struct {
		name   string
		filter filter
		want   [kinds]string // amd64, x32, high, slot, i386, i386 high

		// int80 is the outcome of INT $0x80 in a sandbox. Its filters see a call
		// of amd64 with another number, so a task with a filter has no i386 call.
		int80 string
	}{
		{name: "none refused", filter: filter{otherwise: retAllow},
			want: [kinds]string{child, child, enosys, enosys, child, enosys}, int80: enosys},
		{name: "only amd64", filter: onlyAMD64(retRefuse),
			want: [kinds]string{child, child, enosys, enosys, eperm, eperm}, int80: enosys},
		{name: "only amd64, KILL_PROCESS", filter: onlyAMD64(retKillProcess),
			want: [kinds]string{child, child, enosys, enosys, sigsys, sigsys}, int80: enosys},
		{name: "only amd64, KILL_THREAD", filter: onlyAMD64(retKillThread),
			want: [kinds]string{child, child, enosys, enosys, sigsys, sigsys}, int80: enosys},
		{name: "no x32", filter: filter{[]rule{{arch: archAMD64, first: x32bit, last: last, action: retRefuse}}, retAllow},
			// The filter may refuse the number of an attempt.
			want: [kinds]string{child, eperm, eperm, enosys, child, enosys}, int80: refused},
		{name: "not 323", filter: filter{[]rule{{first: linux.SYS_CLONE4_AMD64, last: linux.SYS_CLONE4_AMD64, action: retRefuse}}, retAllow},
			want: [kinds]string{eperm, child, enosys, enosys, child, enosys}, int80: enosys},
		{name: "not i386's 359", filter: filter{[]rule{{arch: archI386, first: linux.SYS_CLONE4_I386, last: linux.SYS_CLONE4_I386, action: retRefuse}}, retAllow},
			want: [kinds]string{child, child, enosys, enosys, eperm, enosys}, int80: enosys},
		{name: "allow-list", filter: allowList(retRefuse), want: all(eperm), int80: eperm},
		{name: "allow-list, KILL_PROCESS", filter: allowList(retKillProcess), want: all(sigsys), int80: sigsys},
		{name: "allow-list, KILL_THREAD", filter: allowList(retKillThread), want: all(sigsys), int80: sigsys},
		{name: "allow-list, TRAP", filter: allowList(retTrap), want: all(sigsys), int80: sigsys},
		{name: "allow-list, TRACE without a tracer", filter: allowList(retTrace), want: all(enosys), int80: enosys},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for by, flags := range map[string]uint64{"seccomp": kit.SIGCHLD, "prctl": linux.CLONE_VFORK | kit.SIGCHLD} {
				if testing.Short() && by == "seccomp" {
					continue // takes half a minute in an emulated machine
				}
				t.Run(by, func(t *testing.T) {
					s := kit.NewScript(t)
					exiting := s.Exiting(attemptStatus)
					attempts := make([]*attempt, len(numbers))
					for i, n := range numbers {
						victim := s.NewList()
						unblockSIGSYS(victim)
						tc.filter.install(victim, by == "prctl")
						attempts[i] = newAttempt(victim, rawclone.Op{Trap: n.rax, Entry: n.entry, Args: [6]uintptr{0, uintptr(flags)}}, exiting)
						start := s.Clone(kit.SIGCHLD, victim)
						_, attempts[i].end = s.Wait(start, 0)
					}
					s.Run()
					for i, n := range numbers {
						want := tc.want[n.kind]
						if n.kind == viaX32 && want == child && tc.want[viaAMD64] != child && !kit.Native() {
							want = enosys // an x32 call needs the permission of its amd64 number
						}
						if n.entry == rawclone.Int80 && !kit.Native() {
							want = tc.int80
							if !kit.HasInt80() && n.kind == viaI386High {
								want = sigsegv // as in stock runsc
							}
						}
						got := attempts[i].outcome()
						if got != want && !(want == refused && (got == eperm || got == enosys)) {
							t.Errorf("%s: %s, want %s", instruction(n.entry, uint64(n.rax)), got, want)
						}
					}
				})
			}
		})
	}
}

// TestSeccompInherited checks that a child inherits its parent's filter, whether it is a process or a
// thread. The filter allows clone4 only through the ABI that creates the child.
func TestSeccompInherited(t *testing.T) {
	native := kit.Native()
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		f := filter{otherwise: retAllow}
		for _, abi := range kit.ABIs() {
			// In a sandbox, an x32 call needs the permission of its amd64 number.
			if abi.Name != a.Name && !(a.Name == "x32" && abi.Name == "amd64") {
				f.rules = append(f.rules, rule{first: uint32(abi.Number), last: uint32(abi.Number), action: retRefuse})
			}
		}
		kit.OnEach(t, []uint64{kit.SIGCHLD, linux.CLONE_VFORK | kit.SIGCHLD, kit.ThreadFlags}, func(t *testing.T, flags uint64) {
			s := kit.NewScript(t)
			exiting := s.Exiting(0)
			c := s.NewList()
			var calls []*rawclone.Op
			for _, abi := range kit.ABIs() {
				calls = append(calls, abi.Clone4(c, kit.SIGCHLD, linux.Clone4Args{}, exiting))
			}
			c.ExitTask(0)

			f.install(s.List, false)
			tid := s.Word()
			call := a.Clone4(s.List, flags|linux.CLONE_PARENT_SETTID|linux.CLONE_CHILD_CLEARTID, linux.Clone4Args{
				StackStart: kit.Stack(t),
				Ptid:       uint64(rawclone.Addr(tid)),
				Ctid:       uint64(rawclone.Addr(tid)),
			}, c)
			if flags&linux.CLONE_THREAD != 0 {
				s.FutexWait(tid, call, 0)
			} else {
				s.Wait(call, 0)
			}
			s.Run()
			if a.Name == "i386" && !native {
				kit.CheckErrno(t, "clone4", call, unix.ENOSYS)
				return
			}
			s.OK(call)
			for i, abi := range kit.ABIs() {
				got := calls[i].Errno()
				ok := got == unix.EPERM
				switch {
				case abi.Name == a.Name, a.Name == "x32" && abi.Name == "amd64":
					ok = got == 0
				case abi.Name == "i386" && !native:
					ok = got == unix.EPERM || got == unix.ENOSYS
				}
				if !ok {
					t.Errorf("the child's call through the %s ABI: %s", abi.Name, kit.ErrnoName(got))
				}
			}
		})
	})
}

// TestSeccompTraced checks that a tracer cannot turn a call that the filter allows into clone4, if
// the filter refuses clone4. The tracer may detach during the call. Linux runs the filter again. So
// does this sentry for x32 calls, and for 323 with upper bits set: the call returns ENOSYS if the
// filter refuses it.
//
// 323 without upper bits is not among the rows. As for every call in gVisor's own table, a tracer
// can make the call although the filter refuses it, as on Linux before 4.8.
func TestSeccompTraced(t *testing.T) {
	const (
		offsetRAX, offsetOrigRAX = 8 * 10, 8 * 15 // in struct user_regs_struct

		getpidI386 = 20
		decided    = 0x634c3400 // upper half of RAX in a decision of this sentry, without the position of a call

		// changed is the outcome of a tracee that made another, harmless call.
		changed = "getppid"
	)
	getpid := rawclone.Op{Trap: unix.SYS_GETPID}
	getpid80 := rawclone.Op{Trap: getpidI386, Entry: rawclone.Int80}

	for _, tc := range []struct {
		name string
		call rawclone.Op // the call of the tracee
		nr   uintptr     // the number that the tracer writes

		// Outcomes if the filter allows clone4, and if it refuses clone4, natively and
		// in a sandbox.
		allowed, forbidden               string
		sandboxAllowed, sandboxForbidden string
	}{
		{name: "getppid", call: getpid, nr: unix.SYS_GETPPID, allowed: changed, forbidden: changed, sandboxAllowed: changed, sandboxForbidden: changed},
		{name: "amd64, garbage", call: getpid, nr: linux.SYS_CLONE4_AMD64 | garbage, allowed: child, forbidden: eperm, sandboxAllowed: child, sandboxForbidden: enosys},
		{name: "x32", call: getpid, nr: linux.SYS_CLONE4_X32, allowed: child, forbidden: eperm, sandboxAllowed: child, sandboxForbidden: enosys},
		{name: "x32, garbage", call: getpid, nr: linux.SYS_CLONE4_X32 | garbage, allowed: child, forbidden: eperm, sandboxAllowed: child, sandboxForbidden: enosys},
		{name: "i386 by SYSCALL", call: getpid, nr: linux.SYS_CLONE4_I386, allowed: enosys, forbidden: eperm, sandboxAllowed: enosys, sandboxForbidden: enosys},
		{name: "i386 high by SYSCALL", call: getpid, nr: i386High, allowed: enosys, forbidden: enosys, sandboxAllowed: enosys, sandboxForbidden: enosys},
		{name: "i386", call: getpid80, nr: linux.SYS_CLONE4_I386, allowed: child, forbidden: eperm, sandboxAllowed: enosys, sandboxForbidden: enosys},
		{name: "i386, garbage", call: getpid80, nr: linux.SYS_CLONE4_I386 | garbage, allowed: child, forbidden: eperm, sandboxAllowed: enosys, sandboxForbidden: enosys},
		{name: "i386 high", call: getpid80, nr: i386High, allowed: enosys, forbidden: enosys, sandboxAllowed: enosys, sandboxForbidden: enosys},
		// A tracer that knows the marks of this sentry can forge one.
		{name: "slot of amd64", call: getpid, nr: decided, allowed: enosys, forbidden: enosys, sandboxAllowed: child, sandboxForbidden: enosys},
		{name: "slot of i386", call: getpid, nr: decided | 1, allowed: enosys, forbidden: enosys, sandboxAllowed: enosys, sandboxForbidden: enosys},
		{name: "slot of x32", call: getpid, nr: decided | 2, allowed: enosys, forbidden: enosys, sandboxAllowed: child, sandboxForbidden: enosys},
		{name: "slot of i386 high", call: getpid, nr: decided | 3, allowed: enosys, forbidden: enosys, sandboxAllowed: enosys, sandboxForbidden: enosys},
		{name: "slot of no call", call: getpid, nr: decided | 4, allowed: enosys, forbidden: enosys, sandboxAllowed: enosys, sandboxForbidden: enosys},
	} {
		if tc.call.Entry == rawclone.Int80 && !kit.HasInt80() {
			continue // the machine has no getpid through i386
		}
		t.Run(tc.name, func(t *testing.T) {
			for _, v := range []struct {
				name      string
				atFilter  bool   // at the filter's stop, else at the entry stop
				action    uint32 // action of the filter for clone4
				detaching bool   // the tracer detaches before the call is made
			}{
				{name: "entry, ALLOW", action: retAllow},
				{name: "entry, ERRNO", action: retRefuse},
				{name: "entry, ERRNO, DETACH", action: retRefuse, detaching: true},
				{name: "filter, ALLOW", atFilter: true, action: retAllow},
				{name: "filter, ERRNO", atFilter: true, action: retRefuse},
				{name: "filter, ERRNO, DETACH", atFilter: true, action: retRefuse, detaching: true},
				// The tracer does not ask for seccomp events.
				{name: "entry, TRACE", action: retTrace},
			} {
				t.Run(v.name, func(t *testing.T) {
					f := filter{otherwise: retAllow}
					if v.atFilter {
						for _, nr := range []uint32{unix.SYS_GETPID, getpidI386, 0x86000000 + getpidI386} {
							f.rules = append(f.rules, rule{first: nr, last: nr, action: retTrace})
						}
					}
					for _, abi := range kit.ABIs() {
						f.rules = append(f.rules, rule{first: uint32(abi.Number), last: uint32(abi.Number), action: v.action})
					}
					flags := kit.SIGCHLD
					if v.detaching {
						flags |= linux.CLONE_VFORK // makes the call take the slot, even untraced
					}

					s := kit.NewScript(t)
					tracee := s.NewList()
					me, parent := tracee.Sys(unix.SYS_GETPID), tracee.Sys(unix.SYS_GETPPID)
					f.install(tracee, false)
					tracee.Sys(unix.SYS_PTRACE, unix.PTRACE_TRACEME)
					tracee.Sys(unix.SYS_KILL, me, int(unix.SIGSTOP))
					tc.call.Args = [6]uintptr{0, uintptr(flags)}
					a := newAttempt(tracee, tc.call, s.Exiting(attemptStatus))

					options := unix.PTRACE_O_EXITKILL
					if v.action != retTrace {
						options |= unix.PTRACE_O_TRACESECCOMP
					}
					start := s.Clone(kit.SIGCHLD, tracee)
					_, stopped := s.Wait(start, 0)
					s.Sys(unix.SYS_PTRACE, unix.PTRACE_SETOPTIONS, start, 0, options)
					until, wantStop := unix.PTRACE_SYSCALL, "stopped by SIGTRAP"
					if v.atFilter {
						until, wantStop = unix.PTRACE_CONT, "PTRACE_EVENT_SECCOMP"
					}
					s.Sys(unix.SYS_PTRACE, until, start)
					_, inCall := s.Wait(start, 0)
					nr := tc.nr
					if nr&^0xff == decided {
						s.Sys(unix.SYS_PTRACE, unix.PTRACE_POKEUSR, start, offsetRAX, nr<<32)
						nr = slot
					}
					poke := s.Sys(unix.SYS_PTRACE, unix.PTRACE_POKEUSR, start, offsetOrigRAX, nr)
					release := unix.PTRACE_CONT
					if v.detaching {
						release = unix.PTRACE_DETACH
					}
					s.Sys(unix.SYS_PTRACE, release, start)
					_, a.end = s.Wait(start, 0)
					s.Run()
					kit.CheckStatus(t, "the tracee, before the call", *stopped, "stopped by SIGSTOP")
					kit.CheckStatus(t, "the tracee, in the call", *inCall, wantStop)
					s.OK(poke)
					want, forbidden := tc.allowed, tc.forbidden
					if !kit.Native() {
						want, forbidden = tc.sandboxAllowed, tc.sandboxForbidden
					}
					switch v.action {
					case retRefuse:
						want = forbidden
					case retTrace:
						if want != changed {
							want = enosys
						}
					}
					got := a.outcome()
					if a.call.Ret == parent.Ret {
						got = changed
					}
					if got != want {
						t.Errorf("%s, want %s", got, want)
					}
				})
			}
		})
	}
}
