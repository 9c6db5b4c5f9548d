package syscalls

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

// Tests of callers that mean harm. Others are rows of the tests of what they attack:
// bad structs in TestArgsUnreadable, stacks in TestStack, addresses for IDs in
// TestBadTID, tracers in TestTracedChanged.

// attempts is how often a race is run, on each ABI.
func attempts() int {
	if testing.Short() {
		return 4
	}
	return 20
}

// TestArgsChangedMeanwhile protects against a struct that another thread changes all
// the time: a call is made with what it was, and not checked with one thing and made
// with another.
func TestArgsChangedMeanwhile(t *testing.T) {
	onEachABI(t, func(t *testing.T, a *abi) {
		for range attempts() {
			s := newScript(t)
			// Two values of each field, which differ in one byte: a copy may take
			// half of one and half of the other.
			const apart = 0x1000
			mem := mapping(t, -1, 32, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON)
			base := (addr(mem) + 0xffff) &^ 0xffff
			ptid, ctid, stack, tls := base+apart, base+3*apart, base+5*apart, base+7*apart
			var structs [2][]byte
			for i := range uintptr(2) {
				at := s.encode(a, linux.Clone4Args{
					Ptid:       uint64(ptid + i*apart),
					Ctid:       uint64(ctid + i*apart),
					StackStart: uint64(stack + i*apart),
					TLS:        uint64(tls + i*apart),
				})
				structs[i] = s.bytes(at, int(a.size()))
			}
			args := s.buffer(int(a.size()))
			copy(args, structs[0])

			type result struct {
				call, sp *rawclone.Op
				fs       func() uintptr
				ids      [4]*rawclone.Op
			}
			var results []result
			for range 4 {
				var r result
				child := s.newList()
				r.sp, r.fs = child.sys(rawclone.TrapSP), child.threadPointer()
				child.exit(0)
				r.call = s.clone4Raw(a, linux.CLONE_SETTLS|linux.CLONE_PARENT_SETTID|linux.CLONE_CHILD_SETTID|sigchld, a.size(), addr(args), child)
				s.wait(r.call, 0)
				for i, id := range []uintptr{ptid, ptid + apart, ctid, ctid + apart} {
					r.ids[i] = s.sys(rawclone.TrapLoad, id)
				}
				results = append(results, r)
			}

			var over atomic.Bool
			done := make(chan bool)
			go func() {
				for i := 0; !over.Load(); i++ {
					copy(args, structs[i%2])
				}
				done <- true
			}()
			ws := s.end()
			over.Store(true)
			<-done
			if ws != 0 {
				t.Fatalf("the caller's process ended with wait status %#x", ws)
			}
			for _, r := range results {
				s.ok(r.call)
				if sp := r.sp.Ret; sp != stack && sp != stack+apart {
					t.Errorf("stack pointer %#x, want %#x or %#x", sp, stack, stack+apart)
				}
				if fs := r.fs(); fs != tls && fs != tls+apart {
					t.Errorf("thread pointer %#x, want %#x or %#x", fs, tls, tls+apart)
				}
				for i, name := range []string{"ptid", "ctid"} {
					if one, other := r.ids[2*i].Ret, r.ids[2*i+1].Ret; (one == r.call.Ret) == (other == r.call.Ret) {
						t.Errorf("*%s is %d or %d, want %d in one", name, one, other, r.call.Ret)
					}
				}
			}
		}
	})
}

// TestArgsCheckedOnce protects what is checked in the struct: a thread pointer that
// cannot be one, some of the time, is EPERM or not seen at all.
func TestArgsCheckedOnce(t *testing.T) {
	onEachABI(t, func(t *testing.T, a *abi) {
		if a.word != 8 {
			return // every word of this struct can be a thread pointer
		}
		good := addr(memory(t, 1))
		for range attempts() {
			s := newScript(t)
			at := s.encode(a, linux.Clone4Args{TLS: uint64(good)})
			tls := word(s.bytes(at+32, 8))
			var calls []*rawclone.Op
			var pointers []func() uintptr
			for range 6 {
				child := s.newList()
				pointers = append(pointers, child.threadPointer())
				child.exit(0)
				call := s.clone4Raw(a, linux.CLONE_SETTLS|sigchld, a.size(), at, child)
				s.wait(call, 0)
				calls = append(calls, call)
			}
			var over atomic.Bool
			done := make(chan bool)
			go func() {
				for i := uintptr(0); !over.Load(); i++ {
					atomic.StoreUintptr(tls, good|i%2<<63)
				}
				done <- true
			}()
			s.end()
			over.Store(true)
			<-done
			for i, call := range calls {
				if e := call.Errno(); e == unix.EPERM {
					continue
				} else if e != 0 || pointers[i]() != good {
					t.Errorf("%s, thread pointer %#x, want %#x or EPERM", errName(e), pointers[i](), good)
				}
			}
		}
	})
}

// TestClearTIDGone protects the end of a child whose ctid has become bad since the
// call: it ends, as one made by clone(2) does.
func TestClearTIDGone(t *testing.T) {
	page := unix.Getpagesize()
	for _, tc := range []struct {
		name   string
		flags  int // of the mapping
		change func(child *list, fd int, mem []byte)
	}{
		{"truncated", unix.MAP_SHARED, func(child *list, fd int, mem []byte) { child.sys(unix.SYS_FTRUNCATE, fd, 0) }},
		{"truncated, private", unix.MAP_PRIVATE, func(child *list, fd int, mem []byte) { child.sys(unix.SYS_FTRUNCATE, fd, 0) }},
		{"unmapped", unix.MAP_SHARED, func(child *list, fd int, mem []byte) { child.sys(unix.SYS_MUNMAP, addr(mem), page) }},
		{"read-only", unix.MAP_SHARED, func(child *list, fd int, mem []byte) {
			child.sys(unix.SYS_MPROTECT, addr(mem), page, unix.PROT_READ)
		}},
		{"PROT_NONE", unix.MAP_PRIVATE, func(child *list, fd int, mem []byte) {
			child.sys(unix.SYS_MPROTECT, addr(mem), page, unix.PROT_NONE)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for i := range len(abis) + 1 {
				fd, err := unix.MemfdCreate("ctid", 0)
				if err != nil {
					t.Fatal(err)
				}
				defer unix.Close(fd)
				if err := unix.Ftruncate(fd, int64(page)); err != nil {
					t.Fatal(err)
				}
				mem := mapping(t, fd, 1, unix.PROT_READ|unix.PROT_WRITE, tc.flags)
				s := newScript(t)
				child := s.newList()
				tc.change(child, fd, mem)
				child.exit(5)
				const flags = linux.CLONE_VM | linux.CLONE_CHILD_SETTID | linux.CLONE_CHILD_CLEARTID | sigchld
				stack := stackTop(memory(t, 1))
				name := "clone"
				var call *rawclone.Op
				if i < len(abis) {
					name = abis[i].name
					call = s.clone4(&abis[i], flags, linux.Clone4Args{Ctid: uint64(addr(mem)), StackStart: stack}, child)
				} else {
					o := rawclone.Op{Trap: unix.SYS_CLONE, Child: child.first}
					o.Args = olderArgs(flags, linux.Clone4Args{Ctid: uint64(addr(mem)), StackStart: stack})
					call = s.op(o)
				}
				wait, status := s.wait(call, 0)
				s.run()
				s.ok(call, wait)
				if ws := unix.WaitStatus(*status); ws.ExitStatus() != 5 {
					t.Errorf("%s: wait status %#x, want exit status 5", name, ws)
				}
			}
		})
	}
}

// TestVforkKilled protects the wait of CLONE_VFORK against the end of either side,
// at each step: nobody waits for ever, and the other one goes on.
func TestVforkKilled(t *testing.T) {
	pause := func(s *script, l *list, d time.Duration) {
		spec := s.buffer(16)
		*word(spec[8:]) = uintptr(d)
		l.sys(unix.SYS_NANOSLEEP, addr(spec), 0)
	}
	const (
		exited3 = 3 << 8
		killed  = uintptr(unix.SIGKILL)
	)
	onEachABI(t, func(t *testing.T, a *abi) {
		for _, tc := range []struct {
			name string
			// child appends what the child does. parent is its parent, and begun a
			// word that the killer waits for.
			child func(s *script, child *list, parent *rawclone.Op)
			kill  bool // the parent, from outside, when the child has begun
			// wantParent and wantChild are their wait status.
			wantParent, wantChild uintptr
		}{
			{"child by itself", func(s *script, child *list, parent *rawclone.Op) {
				child.sys(unix.SYS_KILL, child.sys(unix.SYS_GETPID), int(unix.SIGKILL))
			}, false, exited3, killed},
			{"child by a fault", func(s *script, child *list, parent *rawclone.Op) {
				child.sys(rawclone.TrapLoad, 8)
			}, false, exited3, uintptr(unix.SIGSEGV)},
			{"child in a failing exec", func(s *script, child *list, parent *rawclone.Op) {
				child.sys(unix.SYS_EXECVE, 8, 8, 8)
				child.exit(5)
			}, false, exited3, 5 << 8},
			{"parent by its child", func(s *script, child *list, parent *rawclone.Op) {
				child.sys(unix.SYS_KILL, parent, int(unix.SIGKILL))
				pause(s, child, 5*time.Millisecond)
				child.exit(5)
			}, false, killed, 5 << 8},
			{"parent by its child, which execs", func(s *script, child *list, parent *rawclone.Op) {
				exe := s.path("/proc/self/exe")
				argv, envp := s.buffer(16), s.buffer(16)
				*word(argv), *word(envp) = exe, s.path(envExecuted+"=1")
				child.sys(unix.SYS_KILL, parent, int(unix.SIGKILL))
				child.sys(unix.SYS_EXECVE, exe, addr(argv), addr(envp))
			}, false, killed, executedStatus << 8},
			{"parent from outside", func(s *script, child *list, parent *rawclone.Op) {
				pause(s, child, 20*time.Millisecond)
				child.exit(5)
			}, true, killed, 5 << 8},
			{"both at once", func(s *script, child *list, parent *rawclone.Op) {
				child.sys(unix.SYS_KILL, parent, int(unix.SIGKILL))
				child.sys(unix.SYS_KILL, child.sys(unix.SYS_GETPID), int(unix.SIGKILL))
			}, false, killed, killed},
		} {
			for _, flags := range []uint64{linux.CLONE_VFORK, linux.CLONE_VFORK | linux.CLONE_VM} {
				s := newScript(t)
				begun := s.p.Word()
				// The child is left to the script.
				s.sys(unix.SYS_PRCTL, unix.PR_SET_CHILD_SUBREAPER, 1)
				parent, child := s.newList(), s.newList()
				me := parent.sys(unix.SYS_GETPID)
				childs := child.sys(unix.SYS_GETPID)
				child.sys(rawclone.TrapStore, begun, 1)
				child.sys(unix.SYS_FUTEX, begun, 1 /* FUTEX_WAKE */, 1)
				tc.child(s, child, me)
				child.exit(99)
				call := parent.clone4(a, flags|sigchld, linux.Clone4Args{}, child)
				_, ofParent := parent.wait(call, 0)
				parent.exit(3)

				start := s.op(rawclone.Op{Trap: unix.SYS_CLONE, Args: [6]uintptr{uintptr(sigchld)}, Child: parent.first})
				if tc.kill {
					s.sys(unix.SYS_FUTEX, begun, 0 /* FUTEX_WAIT */, 0, 0)
					s.sys(unix.SYS_KILL, start, int(unix.SIGKILL))
				}
				wait, status := s.wait(start, 0)
				// Of a dead parent.
				orphan, orphanStatus := s.wait(-1, unix.WALL)
				s.run()
				s.ok(start, wait)
				name := fmt.Sprintf("%s, flags %#x", tc.name, flags)
				if *status != tc.wantParent {
					t.Errorf("%s: wait status of the parent %#x, want %#x", name, *status, tc.wantParent)
				}
				if tc.wantParent == killed {
					if orphan.Ret != childs.Ret || *orphanStatus != tc.wantChild {
						t.Errorf("%s: wait for the orphan %d: %d, status %#x, want %#x", name, childs.Ret, int(orphan.Ret), *orphanStatus, tc.wantChild)
					}
				} else if *ofParent != tc.wantChild {
					t.Errorf("%s: wait status of the child %#x, want %#x", name, *ofParent, tc.wantChild)
				}
			}
		}
	})
}

// TestForkBomb protects that a bomb of processes, or of threads, stops at its user's
// limit, and that nothing is left when it is killed.
func TestForkBomb(t *testing.T) {
	const (
		uid   = 34567 // nobody else's
		limit = 20
	)
	for _, bomb := range []struct {
		name  string
		flags uint64
	}{
		{"processes", sigchld},
		{"processes with one memory", linux.CLONE_VM | sigchld},
		{"threads", threadFlags},
	} {
		t.Run(bomb.name, func(t *testing.T) {
			onEachABI(t, func(t *testing.T, a *abi) {
				s := newScript(t)
				max := s.buffer(16)
				*word(max), *word(max[8:]) = limit, limit
				// Each child does what its parent does.
				l := s.newList()
				stack := stackTop(memory(t, 1))
				for range 3 {
					l.clone4(a, bomb.flags, linux.Clone4Args{StackStart: stack}, l)
				}
				pause := s.buffer(16)
				*word(pause[8:]) = uintptr(300 * time.Millisecond)
				l.sys(unix.SYS_NANOSLEEP, addr(pause), 0)
				refused := l.clone4(a, bomb.flags, linux.Clone4Args{StackStart: stack}, l)
				l.sys(unix.SYS_PPOLL, 0, 0, 0, 0, 0)
				init := s.newList()
				init.sys(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NPROC, addr(max), 0)
				init.sys(unix.SYS_SETRESUID, uid, uid, uid)
				init.op(rawclone.Op{Trap: unix.SYS_CLONE, Args: [6]uintptr{uintptr(sigchld)}, Child: l.first})
				init.sys(unix.SYS_PPOLL, 0, 0, 0, 0, 0)
				// The init process of a PID namespace takes all with it.
				pid, e := rawclone.Do(s.p.List(rawclone.Op{Trap: unix.SYS_CLONE, Args: [6]uintptr{uintptr(sigchld) | linux.CLONE_NEWPID}, Child: init.first}))
				if e != 0 {
					t.Fatal(e)
				}
				most := 0
				for end, same := time.Now().Add(10*time.Second), 0; (same < 4 || refused.Errno() == 0) && time.Now().Before(end); same++ {
					if n := tasksOf(t, uid); n > most {
						most, same = n, 0
					}
					time.Sleep(5 * time.Millisecond)
				}
				if err := unix.Kill(int(pid), unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				reap(t, int(pid))
				// gVisor counts one process for the user that it began as.
				if most < limit-1 || most > limit+1 {
					t.Errorf("%d tasks with a limit of %d", most, limit)
				}
				if e := refused.Errno(); e != unix.EAGAIN {
					t.Errorf("a call beyond the limit: %s, want EAGAIN", errName(e))
				}
				for end := time.Now().Add(10 * time.Second); tasksOf(t, uid) > 0; {
					if time.Now().After(end) {
						t.Fatalf("%d tasks are left of the bomb", tasksOf(t, uid))
					}
					time.Sleep(5 * time.Millisecond)
				}
			})
		})
	}
}

// tasksOf returns how many tasks a user has.
func tasksOf(t *testing.T, uid int) int {
	t.Helper()
	statuses, err := filepath.Glob("/proc/[0-9]*/task/*/status")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, name := range statuses {
		// It may be gone by now.
		if b, err := os.ReadFile(name); err == nil && strings.Contains(string(b), fmt.Sprintf("\nUid:\t%d\t", uid)) {
			n++
		}
	}
	return n
}

// TestDuringExit protects against the end of a process, or its execution of a program,
// while other threads of it are in the middle of calls.
func TestDuringExit(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	for _, tc := range []struct {
		name  string
		every int // of the attempts
		end   func(s *script)
		want  unix.WaitStatus
	}{
		{"exit_group", 1, func(s *script) { s.exit(3) }, 3 << 8},
		{"kill", 1, func(s *script) { s.sys(unix.SYS_KILL, s.sys(unix.SYS_GETPID), int(unix.SIGKILL)) }, unix.WaitStatus(unix.SIGKILL)},
		{"execve", 10, func(s *script) {
			exe := s.path("/proc/self/exe")
			argv, envp := s.buffer(16), s.buffer(16)
			*word(argv), *word(envp) = exe, s.path(envExecuted+"=1")
			s.sys(unix.SYS_EXECVE, exe, addr(argv), addr(envp))
		}, executedStatus << 8},
	} {
		t.Run(tc.name, func(t *testing.T) {
			onEachABI(t, func(t *testing.T, a *abi) {
				flags := []uint64{sigchld, linux.CLONE_VM | linux.CLONE_VFORK | sigchld, threadFlags, linux.CLONE_VM | sigchld}
				for i := 0; i < attempts(); i += tc.every {
					s := newScript(t)
					for n := range 3 {
						child, thread := s.newList(), s.newList()
						child.sys(unix.SYS_EXIT, 0)
						stack := stackTop(memory(t, 1))
						for range 40 {
							thread.clone4(a, flags[(i+n)%len(flags)], linux.Clone4Args{StackStart: stack}, child)
						}
						thread.sys(unix.SYS_EXIT, 0)
						s.clone4(a, threadFlags, linux.Clone4Args{StackStart: stackTop(memory(t, 1))}, thread)
					}
					spec := s.buffer(16)
					*word(spec[8:]) = uintptr(i) * uintptr(100*time.Microsecond)
					s.sys(unix.SYS_NANOSLEEP, addr(spec), 0)
					tc.end(s)
					if ws := s.end(); ws != tc.want {
						t.Errorf("attempt %d: wait status %#x, want %#x", i, ws, tc.want)
					}
					reapAll(t)
				}
			})
		})
	}
}

// reapAll waits for all children of this process.
func reapAll(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; {
		pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil)
		if err == unix.ECHILD {
			return
		}
		if pid == 0 {
			if time.Now().After(end) {
				t.Fatal("children are left, and do not end")
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// TestUserNamespaceWithoutPrivilege protects what an ordinary user gets by a user
// namespace: all rights in what is made with it, and none outside.
func TestUserNamespaceWithoutPrivilege(t *testing.T) {
	const uid = 12345
	onEachABI(t, func(t *testing.T, a *abi) {
		s := newScript(t)
		child := s.newList()
		name := s.path("attacked")
		denied := []struct {
			what string
			op   *rawclone.Op
			want syscall.Errno
		}{
			{"sethostname", child.sys(unix.SYS_SETHOSTNAME, name, 8), unix.EPERM},
			{"kill of a process of root", child.sys(unix.SYS_KILL, os.Getpid(), 0), unix.EPERM},
			{"setuid to root, which is not mapped", child.sys(unix.SYS_SETUID, 0), unix.EINVAL},
			{"chown of a file of root", child.sys(unix.SYS_FCHOWNAT, unix.AT_FDCWD, s.path("/proc/self/exe"), uid, uid, 0), unix.EINVAL},
			{"mount", child.sys(unix.SYS_MOUNT, name, s.path("/"), s.path("tmpfs"), 0, 0), unix.EPERM},
		}
		// What is made with it is its own.
		own := s.newList()
		rename := own.sys(unix.SYS_SETHOSTNAME, name, 8)
		own.exit(0)
		inner := child.clone4(a, linux.CLONE_NEWUTS|sigchld, linux.Clone4Args{}, own)
		child.wait(inner, 0)
		child.exit(0)

		drop := s.sys(unix.SYS_SETRESUID, uid, uid, uid)
		call := s.clone4(a, linux.CLONE_NEWUSER|sigchld, linux.Clone4Args{}, child)
		wait, _ := s.wait(call, 0)
		s.run()
		s.ok(drop, call, wait, inner, rename)
		for _, d := range denied {
			if e := d.op.Errno(); e != d.want {
				t.Errorf("%s: %s, want %s", d.what, errName(e), errName(d.want))
			}
		}
	})
}

// TestUserNamespaceDepth protects against namespaces in each other without end: the
// same depth, and the same error then, as by clone(2). gVisor's are not those of Linux,
// which makes 33 and then says ENOSPC.
func TestUserNamespaceDepth(t *testing.T) {
	const most = 60
	depth := func(t *testing.T, newChild func(s *script, l, child *list) *rawclone.Op) (int, syscall.Errno) {
		s := newScript(t)
		var names, contents [3]uintptr
		texts := [3]string{"0 0 1", "deny", "0 0 1"}
		for i, name := range []string{"uid_map", "setgroups", "gid_map"} {
			names[i], contents[i] = s.path("/proc/self/"+name), s.path(texts[i])
		}
		lists := []*list{s.exiting(0)}
		var calls []*rawclone.Op
		for range most {
			l := &list{s: s, first: s.p.List(make([]rawclone.Op, 10)...)}
			// Who is nobody in a user namespace may not make another.
			for i, name := range names {
				l.sys(unix.SYS_WRITE, l.sys(unix.SYS_OPENAT, unix.AT_FDCWD, name, unix.O_WRONLY, 0), contents[i], len(texts[i]))
			}
			call := newChild(s, l, lists[len(lists)-1])
			l.sys(unix.SYS_WAIT4, call, 0, unix.WALL)
			l.exit(0)
			lists, calls = append(lists, l), append(calls, call)
		}
		s.sys(unix.SYS_WAIT4, s.op(rawclone.Op{Trap: unix.SYS_CLONE, Args: [6]uintptr{uintptr(sigchld)}, Child: lists[most].first}), 0, 0)
		s.run()
		for n := range calls {
			if e := calls[len(calls)-1-n].Errno(); e != 0 {
				return n, e
			}
		}
		return most, 0
	}
	want, wantErr := depth(t, func(s *script, l, child *list) *rawclone.Op {
		return l.op(rawclone.Op{Trap: unix.SYS_CLONE, Args: [6]uintptr{uintptr(linux.CLONE_NEWUSER | sigchld)}, Child: child.first})
	})
	if want == most {
		t.Errorf("clone(2) makes %d user namespaces in each other, and no end to that", want)
	}
	t.Logf("by clone: %d, then %s", want, errName(wantErr))
	onEachABI(t, func(t *testing.T, a *abi) {
		got, err := depth(t, func(s *script, l, child *list) *rawclone.Op {
			return l.clone4(a, linux.CLONE_NEWUSER|sigchld, linux.Clone4Args{}, child)
		})
		if got != want || err != wantErr {
			t.Errorf("%d namespaces in each other, then %s; want %d, then %s", got, errName(err), want, errName(wantErr))
		}
	})
}
