// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// Tests of hostile callers. Other tests have hostile rows too: TestArgsUnreadable for structs,
// TestStack for stacks, TestBadTID for addresses of IDs, and TestTracedChanged for tracers.

// attempts is the number of runs of a race, for each ABI.
func attempts() int {
	if testing.Short() {
		return 4
	}
	return 20
}

// TestArgsChangedMeanwhile checks that a call uses one copy of a struct that another thread
// changes all the time, both for its checks and for the child.
func TestArgsChangedMeanwhile(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		for range attempts() {
			s := kit.NewScript(t)
			// Each field has two values, which differ in one byte. A copy may mix
			// fields, but each field must have one of its two values.
			const apart = 0x1000
			mem := kit.Mapping(t, -1, 32, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON)
			base := (rawclone.AddrOf(mem) + 0xffff) &^ 0xffff
			ptid, ctid, stack, tls := base+apart, base+3*apart, base+5*apart, base+7*apart
			var structs [2][]byte
			for i := range uintptr(2) {
				structs[i] = a.Encode(linux.Clone4Args{
					Ptid:       uint64(ptid + i*apart),
					Ctid:       uint64(ctid + i*apart),
					StackStart: uint64(stack + i*apart),
					TLS:        uint64(tls + i*apart),
				})
			}
			args := s.Buffer(int(a.Size()))
			copy(args, structs[0])

			type result struct {
				call, sp *rawclone.Op
				fs       func() uintptr
				ids      [4]*rawclone.Op
			}
			var results []result
			for range 4 {
				var r result
				child := s.NewList()
				r.sp, r.fs = child.Sys(rawclone.TrapSP), kit.ThreadPointer(child)
				child.Exit(0)
				r.call = a.Clone4Raw(s.List, linux.CLONE_SETTLS|linux.CLONE_PARENT_SETTID|linux.CLONE_CHILD_SETTID|kit.SIGCHLD, a.Size(), rawclone.AddrOf(args), child)
				s.Wait(r.call, 0)
				for i, id := range []uintptr{ptid, ptid + apart, ctid, ctid + apart} {
					r.ids[i] = s.Sys(rawclone.TrapLoad, id)
				}
				results = append(results, r)
			}

			meanwhile(s.Run, func(i int) { copy(args, structs[i%2]) })
			for _, r := range results {
				s.OK(r.call)
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

// TestArgsCheckedOnce checks that a thread pointer that is invalid some of the time is either
// refused with EPERM, or not used.
func TestArgsCheckedOnce(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		if a.Word != 8 {
			return // every word of this struct is a valid thread pointer
		}
		good := rawclone.AddrOf(kit.Memory(t, 1))
		for range attempts() {
			s := kit.NewScript(t)
			args := kit.Put(s.List, a.Encode(linux.Clone4Args{TLS: uint64(good)}))
			tls := rawclone.WordOf(args[32:])
			var calls []*rawclone.Op
			var pointers []func() uintptr
			for range 6 {
				child := s.NewList()
				pointers = append(pointers, kit.ThreadPointer(child))
				child.Exit(0)
				call := a.Clone4Raw(s.List, linux.CLONE_SETTLS|kit.SIGCHLD, a.Size(), rawclone.AddrOf(args), child)
				s.Wait(call, 0)
				calls = append(calls, call)
			}
			meanwhile(s.Run, func(i int) { atomic.StoreUintptr(tls, good|uintptr(i)%2<<63) })
			for i, call := range calls {
				if e := call.Errno(); e == unix.EPERM {
					continue
				} else if e != 0 || pointers[i]() != good {
					t.Errorf("%s, thread pointer %#x, want %#x or EPERM", kit.ErrnoName(e), pointers[i](), good)
				}
			}
		}
	})
}

// meanwhile calls f with 0, 1, 2 and so on in another thread, until run returns.
func meanwhile(run func(), f func(i int)) {
	var over atomic.Bool
	var changer sync.WaitGroup
	changer.Go(func() {
		for i := 0; !over.Load(); i++ {
			f(i)
		}
	})
	defer changer.Wait()
	defer over.Store(true)
	run()
}

// TestClearTIDGone checks that a child exits normally even if its ctid has become invalid since
// the call, as a child of clone(2) does.
func TestClearTIDGone(t *testing.T) {
	page := unix.Getpagesize()
	for _, tc := range []struct {
		name   string
		flags  int // of the mapping
		change func(child *rawclone.List, fd int, mem []byte)
	}{
		{name: "truncated", flags: unix.MAP_SHARED, change: func(child *rawclone.List, fd int, mem []byte) { child.Sys(unix.SYS_FTRUNCATE, fd, 0) }},
		{name: "truncated, private", flags: unix.MAP_PRIVATE, change: func(child *rawclone.List, fd int, mem []byte) { child.Sys(unix.SYS_FTRUNCATE, fd, 0) }},
		{name: "unmapped", flags: unix.MAP_SHARED, change: func(child *rawclone.List, fd int, mem []byte) { child.Sys(unix.SYS_MUNMAP, mem, page) }},
		{name: "read-only", flags: unix.MAP_SHARED, change: func(child *rawclone.List, fd int, mem []byte) {
			child.Sys(unix.SYS_MPROTECT, mem, page, unix.PROT_READ)
		}},
		{name: "PROT_NONE", flags: unix.MAP_PRIVATE, change: func(child *rawclone.List, fd int, mem []byte) {
			child.Sys(unix.SYS_MPROTECT, mem, page, unix.PROT_NONE)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			try := func(t *testing.T, clone func(s *kit.Script, flags uint64, args linux.Clone4Args, child *rawclone.List) *rawclone.Op) {
				fd, err := unix.MemfdCreate("ctid", 0)
				if err != nil {
					t.Fatal(err)
				}
				defer unix.Close(fd)
				if err := unix.Ftruncate(fd, int64(page)); err != nil {
					t.Fatal(err)
				}
				mem := kit.Mapping(t, fd, 1, unix.PROT_READ|unix.PROT_WRITE, tc.flags)
				s := kit.NewScript(t)
				child := s.NewList()
				tc.change(child, fd, mem)
				child.Exit(5)
				const flags = linux.CLONE_VM | linux.CLONE_CHILD_SETTID | linux.CLONE_CHILD_CLEARTID | kit.SIGCHLD
				call := clone(s, flags, linux.Clone4Args{Ctid: uint64(rawclone.AddrOf(mem)), StackStart: kit.Stack(t)}, child)
				wait, status := s.Wait(call, 0)
				s.Run()
				s.OK(call, wait)
				if got := kit.Status(*status); got != "exit status 5" {
					t.Errorf("the child: %s, want exit status 5", got)
				}
			}
			kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
				try(t, func(s *kit.Script, flags uint64, args linux.Clone4Args, child *rawclone.List) *rawclone.Op {
					return a.Clone4(s.List, flags, args, child)
				})
			})
			t.Run("clone", func(t *testing.T) {
				try(t, func(s *kit.Script, flags uint64, args linux.Clone4Args, child *rawclone.List) *rawclone.Op {
					return s.Append(rawclone.Op{Trap: unix.SYS_CLONE, Args: kit.CloneArgs(flags, args), Child: child.First()})
				})
			})
		})
	}
}

// TestVforkKilled checks the wait of CLONE_VFORK if the parent or the child is killed at any
// step: the other one goes on, and nothing waits forever.
func TestVforkKilled(t *testing.T) {
	const exited3, exited5, killed = "exit status 3", "exit status 5", "SIGKILL"
	killSelf := func(l *rawclone.List) {
		l.Sys(unix.SYS_KILL, l.Sys(unix.SYS_GETPID), int(unix.SIGKILL))
	}
	tests := []struct {
		name string
		// child appends the operations of the child. parent is its parent's ID.
		child func(s *kit.Script, child *rawclone.List, parent *rawclone.Op)
		kill  bool // kill the parent from outside, while the child runs
		// wantParent and wantChild are the wait statuses of the two.
		wantParent, wantChild string
	}{
		{name: "child by itself", child: func(s *kit.Script, child *rawclone.List, parent *rawclone.Op) {
			killSelf(child)
		}, wantParent: exited3, wantChild: killed},
		{name: "child by a fault", child: func(s *kit.Script, child *rawclone.List, parent *rawclone.Op) {
			child.Sys(rawclone.TrapLoad, 8)
		}, wantParent: exited3, wantChild: "SIGSEGV"},
		{name: "child in a failing exec", child: func(s *kit.Script, child *rawclone.List, parent *rawclone.Op) {
			child.Sys(unix.SYS_EXECVE, 8, 8, 8)
			child.Exit(5)
		}, wantParent: exited3, wantChild: exited5},
		{name: "parent by its child", child: func(s *kit.Script, child *rawclone.List, parent *rawclone.Op) {
			child.Sys(unix.SYS_KILL, parent, int(unix.SIGKILL))
			s.Sleep(child, 5*time.Millisecond)
			child.Exit(5)
		}, wantParent: killed, wantChild: exited5},
		{name: "parent by its child, which execs", child: func(s *kit.Script, child *rawclone.List, parent *rawclone.Op) {
			child.Sys(unix.SYS_KILL, parent, int(unix.SIGKILL))
			kit.Exec(child)
		}, wantParent: killed, wantChild: fmt.Sprintf("exit status %d", kit.ExecStatus)},
		{name: "parent from outside", child: func(s *kit.Script, child *rawclone.List, parent *rawclone.Op) {
			child.Exit(5)
		}, kill: true, wantParent: killed, wantChild: exited5},
		{name: "both at once", child: func(s *kit.Script, child *rawclone.List, parent *rawclone.Op) {
			child.Sys(unix.SYS_KILL, parent, int(unix.SIGKILL))
			killSelf(child)
		}, wantParent: killed, wantChild: killed},
	}
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		for _, tc := range tests {
			t.Run(tc.name, func(t *testing.T) {
				kit.OnEach(t, []uint64{linux.CLONE_VFORK | kit.SIGCHLD, linux.CLONE_VFORK | linux.CLONE_VM | kit.SIGCHLD}, func(t *testing.T, flags uint64) {
					s := kit.NewScript(t)
					begun, gone := s.Word(), s.Word()
					// The script becomes the parent of the child.
					s.Sys(unix.SYS_PRCTL, unix.PR_SET_CHILD_SUBREAPER, 1)
					parent, child := s.NewList(), s.NewList()
					me := parent.Sys(unix.SYS_GETPID)
					childs := child.Sys(unix.SYS_GETPID)
					child.Sys(rawclone.TrapStore, begun, 1)
					child.FutexWake(begun, 1)
					if tc.kill {
						// The time limit is for a sandbox that does not kill a parent in its wait.
						child.FutexWait(gone, 0, s.Timespec(10*time.Second))
					}
					tc.child(s, child, me)
					child.Exit(99)
					call := a.Clone4(parent, flags, linux.Clone4Args{}, child)
					_, ofParent := parent.Wait(call, 0)
					parent.Exit(3)

					start := s.Clone(kit.SIGCHLD, parent)
					if tc.kill {
						s.FutexWait(begun, 0, 0)
						s.Sys(unix.SYS_KILL, start, int(unix.SIGKILL))
					}
					wait, status := s.Wait(start, 0)
					s.Sys(rawclone.TrapStore, gone, 1)
					s.FutexWake(gone, 1)
					orphan, orphanStatus := s.Wait(-1, unix.WALL) // orphan of a killed parent
					s.Run()
					s.OK(start, wait)
					kit.CheckStatus(t, "the parent", *status, tc.wantParent)
					if tc.wantParent == killed {
						kit.CheckWait(t, "the orphan", childs, orphan, orphanStatus, tc.wantChild)
					} else {
						kit.CheckStatus(t, "the child", *ofParent, tc.wantChild)
					}
				})
			})
		}
	})
}

// TestForkBomb checks that a fork bomb of processes or threads stops at the limit of its user,
// and that killing the bomb leaves nothing behind.
func TestForkBomb(t *testing.T) {
	const (
		uid   = 34567 // no other process has it
		limit = 20
	)
	for _, bomb := range []struct {
		name  string
		flags uint64
	}{
		{"processes", kit.SIGCHLD},
		{"processes with one memory", linux.CLONE_VM | kit.SIGCHLD},
		{"threads", kit.ThreadFlags},
	} {
		t.Run(bomb.name, func(t *testing.T) {
			kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
				s := kit.NewScript(t)
				max := s.Buffer(16)
				*rawclone.WordOf(max), *rawclone.WordOf(max[8:]) = limit, limit
				// Each child executes the same list as its parent.
				l := s.NewList()
				stack := kit.Stack(t)
				for range 3 {
					a.Clone4(l, bomb.flags, linux.Clone4Args{StackStart: stack}, l)
				}
				s.Sleep(l, 300*time.Millisecond)
				refused := a.Clone4(l, bomb.flags, linux.Clone4Args{StackStart: stack}, l)
				kit.Forever(l)
				init := s.NewList()
				init.Sys(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NPROC, max, 0)
				init.Sys(unix.SYS_SETRESUID, uid, uid, uid)
				init.Clone(kit.SIGCHLD, l)
				kit.Forever(init)
				// Killing the init process of a PID namespace kills all its processes.
				pid, e := init.Start(linux.CLONE_NEWPID | kit.SIGCHLD)
				if e != 0 {
					t.Fatal(e)
				}
				// The bomb has stopped once it has reached the limit and grows no more.
				most := 0
				for end, same := time.Now().Add(30*time.Second), 0; (same < 4 || most < limit-1 || refused.Errno() == 0) && time.Now().Before(end); same++ {
					if n := tasksOf(t, uid); n > most {
						most, same = n, 0
					}
					time.Sleep(5 * time.Millisecond)
				}
				if err := unix.Kill(int(pid), unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				kit.Reap(t, int(pid))
				// gVisor still counts the process for the user with which it began.
				if most < limit-1 || most > limit+1 {
					t.Errorf("%d tasks with a limit of %d", most, limit)
				}
				kit.CheckErrno(t, "a call beyond the limit", refused, unix.EAGAIN)
				for end := time.Now().Add(30 * time.Second); tasksOf(t, uid) > 0; {
					if time.Now().After(end) {
						t.Fatalf("the bomb has left %d tasks", tasksOf(t, uid))
					}
					time.Sleep(5 * time.Millisecond)
				}
			})
		})
	}
}

// tasksOf returns the number of tasks of a user.
func tasksOf(t *testing.T, uid int) int {
	t.Helper()
	statuses, err := filepath.Glob("/proc/[0-9]*/task/*/status")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, name := range statuses {
		// The task may have exited by now.
		if b, err := os.ReadFile(name); err == nil && strings.Contains(string(b), fmt.Sprintf("\nUid:\t%d\t", uid)) {
			n++
		}
	}
	return n
}

// TestDuringExit checks that a process can exit or execute a program while its other threads
// are in the middle of calls.
func TestDuringExit(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	for _, tc := range []struct {
		name  string
		every int // of the attempts
		end   func(s *kit.Script)
		want  string
	}{
		{name: "exit_group", every: 1, end: func(s *kit.Script) { s.Exit(3) }, want: "exit status 3"},
		{name: "kill", every: 1, end: func(s *kit.Script) { s.Sys(unix.SYS_KILL, s.Sys(unix.SYS_GETPID), int(unix.SIGKILL)) }, want: "SIGKILL"},
		{name: "execve", every: 10, end: func(s *kit.Script) { kit.Exec(s.List) }, want: fmt.Sprintf("exit status %d", kit.ExecStatus)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
				flags := []uint64{kit.SIGCHLD, linux.CLONE_VM | linux.CLONE_VFORK | kit.SIGCHLD, kit.ThreadFlags, linux.CLONE_VM | kit.SIGCHLD}
				for i := 0; i < attempts(); i += tc.every {
					s := kit.NewScript(t)
					for n := range 3 {
						child, thread := s.NewList(), s.NewList()
						child.Sys(unix.SYS_EXIT, 0)
						stack := kit.Stack(t)
						for range 40 {
							a.Clone4(thread, flags[(i+n)%len(flags)], linux.Clone4Args{StackStart: stack}, child)
						}
						thread.Sys(unix.SYS_EXIT, 0)
						a.Clone4(s.List, kit.ThreadFlags, linux.Clone4Args{StackStart: kit.Stack(t)}, thread)
					}
					s.Sleep(s.List, time.Duration(i)*100*time.Microsecond)
					tc.end(s)
					kit.CheckStatus(t, fmt.Sprintf("attempt %d", i), s.RunTo(), tc.want)
					kit.ReapAll(t)
				}
			})
		})
	}
}

// TestUserNamespaceWithoutPrivilege checks that an ordinary user in a new user namespace has
// all rights in the namespaces that belong to it, and none outside.
func TestUserNamespaceWithoutPrivilege(t *testing.T) {
	const uid = 12345
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		s := kit.NewScript(t)
		child := s.NewList()
		name := s.Path("attacked")
		denied := []struct {
			what string
			op   *rawclone.Op
			want syscall.Errno
		}{
			{what: "sethostname", op: child.Sys(unix.SYS_SETHOSTNAME, name, 8), want: unix.EPERM},
			{what: "kill of a process of root", op: child.Sys(unix.SYS_KILL, os.Getpid(), 0), want: unix.EPERM},
			{what: "setuid to root, which is not mapped", op: child.Sys(unix.SYS_SETUID, 0), want: unix.EINVAL},
			{what: "chown of a file of root", op: child.Sys(unix.SYS_FCHOWNAT, unix.AT_FDCWD, s.Path("/proc/self/exe"), uid, uid, 0), want: unix.EINVAL},
			{what: "mount", op: child.Sys(unix.SYS_MOUNT, name, s.Path("/"), s.Path("tmpfs"), 0, 0), want: unix.EPERM},
		}
		// A UTS namespace that the child creates belongs to its user namespace.
		own := s.NewList()
		rename := own.Sys(unix.SYS_SETHOSTNAME, name, 8)
		own.Exit(0)
		inner := a.Clone4(child, linux.CLONE_NEWUTS|kit.SIGCHLD, linux.Clone4Args{}, own)
		child.Wait(inner, 0)
		child.Exit(0)

		drop := s.Sys(unix.SYS_SETRESUID, uid, uid, uid)
		call := a.Clone4(s.List, linux.CLONE_NEWUSER|kit.SIGCHLD, linux.Clone4Args{}, child)
		wait, _ := s.Wait(call, 0)
		s.Run()
		s.OK(drop, call, wait, inner, rename)
		for _, d := range denied {
			kit.CheckErrno(t, d.what, d.op, d.want)
		}
	})
}

// TestUserNamespaceDepth checks that nested user namespaces have the same limit, and return the
// same error at the limit, as with clone(2). Linux creates 33 and then returns ENOSPC; gVisor
// has another limit.
func TestUserNamespaceDepth(t *testing.T) {
	const most = 60
	depth := func(t *testing.T, newChild func(s *kit.Script, l, child *rawclone.List) *rawclone.Op) (int, syscall.Errno) {
		s := kit.NewScript(t)
		var names, contents [3]uintptr
		texts := [3]string{"0 0 1", "deny", "0 0 1"}
		for i, name := range []string{"uid_map", "setgroups", "gid_map"} {
			names[i], contents[i] = s.Path("/proc/self/"+name), s.Path(texts[i])
		}
		lists := []*rawclone.List{s.Exiting(0)}
		var calls []*rawclone.Op
		for range most {
			l := s.Program().NewList(10)
			// A user without a mapping in a user namespace may not create another one.
			for i, name := range names {
				l.Sys(unix.SYS_WRITE, l.Sys(unix.SYS_OPENAT, unix.AT_FDCWD, name, unix.O_WRONLY, 0), contents[i], len(texts[i]))
			}
			call := newChild(s, l, lists[len(lists)-1])
			l.Sys(unix.SYS_WAIT4, call, 0, unix.WALL)
			l.Exit(0)
			lists, calls = append(lists, l), append(calls, call)
		}
		s.Sys(unix.SYS_WAIT4, s.Clone(kit.SIGCHLD, lists[most]), 0, 0)
		s.Run()
		for n := range calls {
			if e := calls[len(calls)-1-n].Errno(); e != 0 {
				return n, e
			}
		}
		return most, 0
	}
	want, wantErr := depth(t, func(s *kit.Script, l, child *rawclone.List) *rawclone.Op {
		return l.Clone(linux.CLONE_NEWUSER|kit.SIGCHLD, child)
	})
	if want == most {
		t.Errorf("clone(2) creates %d nested user namespaces without reaching a limit", want)
	}
	t.Logf("by clone: %d, then %s", want, kit.ErrnoName(wantErr))
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		got, err := depth(t, func(s *kit.Script, l, child *rawclone.List) *rawclone.Op {
			return a.Clone4(l, linux.CLONE_NEWUSER|kit.SIGCHLD, linux.Clone4Args{}, child)
		})
		if got != want || err != wantErr {
			t.Errorf("%d nested namespaces, then %s; want %d, then %s", got, kit.ErrnoName(err), want, kit.ErrnoName(wantErr))
		}
	})
}
