// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// TestSharing protects what a flag makes the child share with its parent: the
// child changes it, and the parent looks afterwards.
func TestSharing(t *testing.T) {
	for _, tc := range []struct {
		name  string
		flag  uint64
		needs uint64

		// change appends to child what changes the thing, and look appends to
		// the caller, which has reaped the child by then, what tells whether it
		// changed.
		change func(s *kit.Script, child *rawclone.List)
		look   func(s *kit.Script) func() bool
	}{
		{
			name: "FS", flag: linux.CLONE_FS,
			change: func(s *kit.Script, child *rawclone.List) { child.Sys(unix.SYS_CHDIR, s.Path("/proc")) },
			look: func(s *kit.Script) func() bool {
				buf := s.Buffer(64)
				s.Sys(unix.SYS_GETCWD, buf, len(buf))
				return func() bool { return string(buf[:bytes.IndexByte(buf, 0)]) == "/proc" }
			},
		},
		{
			name: "FILES", flag: linux.CLONE_FILES,
			change: func(s *kit.Script, child *rawclone.List) { child.Sys(unix.SYS_DUP3, 1, 99, 0) },
			look: func(s *kit.Script) func() bool {
				get := s.Sys(unix.SYS_FCNTL, 99, unix.F_GETFD)
				return func() bool { return get.Errno() == 0 }
			},
		},
		{
			name: "SIGHAND", flag: linux.CLONE_SIGHAND, needs: linux.CLONE_VM,
			change: func(s *kit.Script, child *rawclone.List) {
				ignore := s.Buffer(32)
				*rawclone.WordOf(ignore) = 1 // SIG_IGN
				child.Sys(unix.SYS_RT_SIGACTION, int(unix.SIGUSR2), ignore, 0, 8)
			},
			look: func(s *kit.Script) func() bool {
				old := s.Buffer(32)
				s.Sys(unix.SYS_RT_SIGACTION, int(unix.SIGUSR2), 0, old, 8)
				return func() bool { return *rawclone.WordOf(old) == 1 }
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
				for _, flag := range []uint64{0, tc.flag} {
					s := kit.NewScript(t)
					child := s.NewList()
					tc.change(s, child)
					child.Exit(0)
					call := a.Clone4(s.List, tc.needs|flag|kit.SIGCHLD, linux.Clone4Args{StackStart: kit.Stack(t)}, child)
					s.Wait(call, 0)
					changed := tc.look(s)
					s.Run()
					s.OK(call)
					if got, want := changed(), flag != 0; got != want {
						t.Errorf("flags %#x: the parent sees the child's change: %v, want %v", flag, got, want)
					}
				}
			})
		})
	}
}

// TestVM protects CLONE_VM in both directions.
func TestVM(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		for _, flag := range []uint64{0, linux.CLONE_VM} {
			s := kit.NewScript(t)
			mem := rawclone.WordOf(kit.Memory(t, 1))
			child := s.NewList()
			child.Sys(rawclone.TrapStore, mem, 2)
			child.Exit(0)
			s.Sys(rawclone.TrapStore, mem, 1)
			call := a.Clone4(s.List, flag|kit.SIGCHLD, linux.Clone4Args{StackStart: kit.Stack(t)}, child)
			s.Wait(call, 0)
			seen := s.Sys(rawclone.TrapLoad, mem)
			s.Run()
			s.OK(call)
			want := uintptr(1)
			if flag != 0 {
				want = 2
			}
			if seen.Ret != want {
				t.Errorf("flags %#x: the parent reads %d after the child's write, want %d", flag, seen.Ret, want)
			}
		}
	})
}

// TestThread protects what a threading library relies on: a thread of the same
// process on its own stack, its IDs written before it runs, and its ID cleared
// and a futex woken when it has ended.
func TestThread(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		s := kit.NewScript(t)
		var (
			stack = kit.Stack(t)
			tls   = rawclone.AddrOf(kit.Memory(t, 1))
			tid   = s.Word()
			pgid  = s.Sys(unix.SYS_GETPID)
		)
		thread := s.NewList()
		sp := thread.Sys(rawclone.TrapSP)
		fs := kit.ThreadPointer(thread)
		pid := thread.Sys(unix.SYS_GETPID)
		self := thread.Sys(unix.SYS_GETTID)
		known := thread.Sys(rawclone.TrapLoad, tid)
		thread.Sys(unix.SYS_EXIT, 0)
		call := a.Clone4(s.List, linux.CLONE_VM|linux.CLONE_FS|linux.CLONE_FILES|linux.CLONE_SIGHAND|linux.CLONE_THREAD|linux.CLONE_SYSVSEM|
			linux.CLONE_SETTLS|linux.CLONE_PARENT_SETTID|linux.CLONE_CHILD_CLEARTID, linux.Clone4Args{
			Ptid:       uint64(rawclone.Addr(tid)),
			Ctid:       uint64(rawclone.Addr(tid)),
			StackStart: stack,
			TLS:        uint64(tls),
		}, thread)
		s.FutexWait(tid, call, 0)
		cleared := s.Sys(rawclone.TrapLoad, tid)
		wait, _ := s.Wait(call, unix.WALL)
		s.Run()
		s.OK(call)
		for _, check := range []struct {
			what      string
			got, want uintptr
		}{
			{"getpid() of the thread", pid.Ret, pgid.Ret},
			{"gettid() of the thread", self.Ret, call.Ret},
			{"*ptid when the thread starts", uintptr(uint32(known.Ret)), call.Ret},
			{"stack pointer", sp.Ret, uintptr(stack)},
			{"thread pointer", fs(), tls},
			{"*ctid when the thread has ended", cleared.Ret, 0},
		} {
			if check.got != check.want {
				t.Errorf("%s: %#x, want %#x", check.what, check.got, check.want)
			}
		}
		if call.Ret == pgid.Ret {
			t.Errorf("the thread has the ID of the process, %d", call.Ret)
		}
		if e := wait.Errno(); e != unix.ECHILD {
			t.Errorf("waiting for a thread: %s, want ECHILD", kit.ErrnoName(e))
		}
	})
}

// TestVfork protects that with CLONE_VFORK the caller does not run before the
// child has ended.
func TestVfork(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		for _, flags := range []uint64{linux.CLONE_VFORK, linux.CLONE_VFORK | linux.CLONE_VM} {
			s := kit.NewScript(t)
			done := s.Word()
			pause := s.Buffer(16)
			*rawclone.WordOf(pause[8:]) = uintptr(100 * time.Millisecond)
			child := s.NewList()
			child.Sys(unix.SYS_NANOSLEEP, pause, 0)
			child.Sys(rawclone.TrapStore, done, 1)
			child.Exit(0)
			// The child may use the caller's own stack pointer: it waits.
			call := a.Clone4(s.List, flags|kit.SIGCHLD, linux.Clone4Args{}, child)
			seen := s.Sys(rawclone.TrapLoad, done)
			s.Wait(call, 0)
			s.Run()
			s.OK(call)
			if seen.Ret != 1 {
				t.Errorf("flags %#x: the caller ran before the child had ended", flags)
			}
		}
	})
}

// TestVforkExec protects that the wait of CLONE_VFORK is over when the child
// executes a program.
func TestVforkExec(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		s := kit.NewScript(t)
		child := s.NewList()
		kit.Exec(child)
		child.Exit(1)
		call := a.Clone4(s.List, linux.CLONE_VM|linux.CLONE_VFORK|kit.SIGCHLD, linux.Clone4Args{StackStart: kit.Stack(t)}, child)
		early, _ := s.Wait(call, unix.WNOHANG)
		late, status := s.Wait(call, 0)
		s.Run()
		s.OK(call, early, late)
		if early.Ret != 0 {
			t.Errorf("the program had ended when clone4 returned")
		}
		if got := unix.WaitStatus(*status).ExitStatus(); got != kit.ExecStatus {
			t.Errorf("exit status of the program %d, want %d", got, kit.ExecStatus)
		}
	})
}

// TestParent protects CLONE_PARENT: the child is the caller's sibling, ends with
// the caller's exit signal, and the caller cannot wait for it.
func TestParent(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		s := kit.NewScript(t)
		child := s.NewList()
		ppid := child.Sys(unix.SYS_GETPPID)
		child.Exit(3)
		// An exit signal of its own does not count.
		call := a.Clone4(s.List, linux.CLONE_PARENT|uint64(unix.SIGUSR1), linux.Clone4Args{}, child)
		wait, _ := s.Wait(call, unix.WALL)
		s.Run()
		s.OK(call)
		// With an exit signal other than SIGCHLD, this wait would not see it.
		var ws unix.WaitStatus
		if _, err := unix.Wait4(int(call.Ret), &ws, 0, nil); err != nil || ws.ExitStatus() != 3 {
			t.Errorf("wait4 by the caller's parent: status %#x, error %v; want exit status 3", ws, err)
		}
		if e := wait.Errno(); e != unix.ECHILD {
			t.Errorf("wait4 by the caller: %s, want ECHILD", kit.ErrnoName(e))
		}
		if int(ppid.Ret) != os.Getpid() {
			t.Errorf("parent of the child: %d, want the caller's, %d", ppid.Ret, os.Getpid())
		}
	})
}

// TestSetTID protects where the child's ID is written, and in whose memory.
func TestSetTID(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		for _, tc := range []struct {
			name                             string
			flags                            uint64
			parentP, parentC, childP, childC bool
		}{
			{"none", 0, false, false, false, false},
			{"PARENT_SETTID", linux.CLONE_PARENT_SETTID, true, false, false, false},
			{"CHILD_SETTID", linux.CLONE_CHILD_SETTID, false, false, false, true},
			{"PARENT_SETTID VM", linux.CLONE_PARENT_SETTID | linux.CLONE_VM, true, false, true, false},
			{"CHILD_SETTID VM", linux.CLONE_CHILD_SETTID | linux.CLONE_VM, false, true, false, true},
			{"CHILD_CLEARTID", linux.CLONE_CHILD_CLEARTID, false, false, false, false},
		} {
			s := kit.NewScript(t)
			mem := kit.Memory(t, 1)
			ptid, ctid := rawclone.WordOf(mem), rawclone.WordOf(mem[8:])
			child := s.NewList()
			childP, childC := child.Sys(rawclone.TrapLoad, ptid), child.Sys(rawclone.TrapLoad, ctid)
			child.Exit(0)
			call := a.Clone4(s.List, tc.flags|kit.SIGCHLD, linux.Clone4Args{
				Ptid:       uint64(rawclone.AddrOf(mem)),
				Ctid:       uint64(rawclone.AddrOf(mem[8:])),
				StackStart: kit.Stack(t),
			}, child)
			s.Wait(call, 0)
			parentP, parentC := s.Sys(rawclone.TrapLoad, ptid), s.Sys(rawclone.TrapLoad, ctid)
			s.Run()
			s.OK(call)
			for _, check := range []struct {
				what string
				got  *rawclone.Op
				set  bool
			}{
				{"*ptid in the parent", parentP, tc.parentP},
				{"*ctid in the parent", parentC, tc.parentC},
				{"*ptid in the child", childP, tc.childP},
				{"*ctid in the child", childC, tc.childC},
			} {
				want := uintptr(0)
				if check.set {
					want = call.Ret
				}
				if check.got.Ret != want {
					t.Errorf("%s: %s is %d, want %d", tc.name, check.what, check.got.Ret, want)
				}
			}
		}
	})
}

// TestBadTID protects that a bad ptid or ctid is no error: the child runs.
func TestBadTID(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		readOnly := kit.Memory(t, 1)
		if err := unix.Mprotect(readOnly, unix.PROT_READ); err != nil {
			t.Fatal(err)
		}
		for _, bad := range []uint64{0, 1, uint64(rawclone.AddrOf(readOnly)), 0x7ffffffff000, 0xffff800000000000, 1 << 63, 1<<64 - 1} {
			for _, flags := range []uint64{
				linux.CLONE_PARENT_SETTID,
				linux.CLONE_CHILD_SETTID,
				linux.CLONE_CHILD_CLEARTID | linux.CLONE_VM,
				linux.CLONE_PARENT_SETTID | linux.CLONE_CHILD_SETTID | linux.CLONE_CHILD_CLEARTID,
			} {
				s := kit.NewScript(t)
				call := a.Clone4(s.List, flags|kit.SIGCHLD, linux.Clone4Args{Ptid: bad, Ctid: bad, StackStart: kit.Stack(t)}, s.Exiting(5))
				wait, status := s.Wait(call, 0)
				s.Run()
				if e := call.Errno(); e != 0 {
					t.Errorf("flags %#x, ptid and ctid %#x: %s", flags, bad, kit.ErrnoName(e))
				} else if wait.Ret != call.Ret || unix.WaitStatus(*status).ExitStatus() != 5 {
					t.Errorf("flags %#x, ptid and ctid %#x: wait4 returned %d, status %#x; want %d, exit status 5", flags, bad, int(wait.Ret), *status, call.Ret)
				}
			}
		}
	})
}

// TestStack protects that stack_start is the stack pointer itself, 0 the
// caller's, and that stack_size means nothing: no sum of the two overflows. A pointer
// to where no stack is is the child's trouble, if it uses it.
func TestStack(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		for _, flags := range []uint64{0, linux.CLONE_VM} {
			for _, size := range []uint64{0, 1, 4096, 1 << 31, 1<<64 - 1} {
				top := kit.Stack(t)
				starts := []uint64{0, top, 8}
				if size == 1<<64-1 {
					starts = append(starts, 1<<31-1, 1<<32-1, 1<<32+8, 1<<47-4096, 1<<63, 1<<64-1)
				}
				for _, start := range starts {
					start := a.Truncate(start)
					if start == 0 && flags&linux.CLONE_VM != 0 {
						continue // two at once on one stack
					}
					if start == 1<<63 && kit.Platform() == "kvm" {
						continue // the KVM platform cannot run a task with a stack pointer that is not canonical
					}
					s := kit.NewScript(t)
					callers := s.Sys(rawclone.TrapSP)
					child := s.NewList()
					sp := child.Sys(rawclone.TrapSP)
					bad := start != 0 && start != top
					if bad {
						child.Sys(rawclone.TrapLoad, uintptr(start))
					}
					child.Exit(0)
					call := a.Clone4(s.List, flags|kit.SIGCHLD, linux.Clone4Args{StackStart: start, StackSize: size}, child)
					_, status := s.Wait(call, 0)
					s.Run()
					s.OK(call)
					if ws := unix.WaitStatus(*status); bad && ws.Signal() != unix.SIGSEGV || !bad && ws != 0 {
						t.Errorf("flags %#x, stack_start %#x: the child that used it ended with status %#x", flags, start, ws)
					}
					want := uintptr(start)
					if start == 0 {
						want = callers.Ret
					}
					// A host kernel that is a paravirtual guest itself kills a task with a stack
					// pointer that is not canonical before its first instruction.
					killed := start == 1<<63 && sp.Ret == 0 && !kit.Native()
					if sp.Ret != want && !killed {
						t.Errorf("flags %#x, stack_start %#x, stack_size %#x: stack pointer %#x, want %#x", flags, start, size, sp.Ret, want)
					}
				}
			}
		}
	})
}

// TestTLS protects what CLONE_SETTLS sets, and that tls is not looked at without.
func TestTLS(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		mem := uint64(rawclone.AddrOf(kit.Memory(t, 1)))
		for _, flag := range []uint64{0, linux.CLONE_SETTLS} {
			for _, tls := range append([]uint64{0, mem, 12345}, kit.OddTLS()...) {
				tls := a.Truncate(tls)
				s := kit.NewScript(t)
				callers := kit.ThreadPointer(s.List)
				child := s.NewList()
				childs := kit.ThreadPointer(child)
				child.Exit(0)
				call := a.Clone4(s.List, flag|kit.SIGCHLD, linux.Clone4Args{TLS: tls}, child)
				s.Wait(call, 0)
				s.Run()
				if flag != 0 && !kit.ValidTLS(tls) {
					if e := call.Errno(); e != unix.EPERM {
						t.Errorf("tls %#x: %s, want EPERM", tls, kit.ErrnoName(e))
					}
					continue
				}
				s.OK(call)
				want := callers()
				if flag != 0 {
					want = uintptr(tls)
				}
				if got := childs(); got != want {
					t.Errorf("flags %#x, tls %#x: thread pointer %#x, want %#x", flag, tls, got, want)
				}
			}
		}
	})
}

// TestNamespaces protects that each flag for a namespace gives the child a new
// one of that kind, and of no other.
func TestNamespaces(t *testing.T) {
	kinds := []struct {
		name string
		flag uint64
	}{
		{"mnt", linux.CLONE_NEWNS},
		{"uts", linux.CLONE_NEWUTS},
		{"ipc", linux.CLONE_NEWIPC},
		{"user", linux.CLONE_NEWUSER},
		{"pid", linux.CLONE_NEWPID},
		{"net", linux.CLONE_NEWNET},
	}
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		for _, made := range kinds {
			s := kit.NewScript(t)
			child := s.NewList()
			var parents, childs [6][]byte
			for i, kind := range kinds {
				name := s.Path("/proc/self/ns/" + kind.name)
				parents[i], childs[i] = s.Buffer(64), s.Buffer(64)
				s.Sys(unix.SYS_READLINKAT, unix.AT_FDCWD, name, rawclone.AddrOf(parents[i]), 64)
				child.Sys(unix.SYS_READLINKAT, unix.AT_FDCWD, name, rawclone.AddrOf(childs[i]), 64)
			}
			pid, ppid, uid := child.Sys(unix.SYS_GETPID), child.Sys(unix.SYS_GETPPID), child.Sys(unix.SYS_GETUID)
			child.Exit(0)
			call := a.Clone4(s.List, made.flag|kit.SIGCHLD, linux.Clone4Args{}, child)
			wait, _ := s.Wait(call, 0)
			s.Run()
			s.OK(call, wait)
			for i, kind := range kinds {
				if parents[i][0] == 0 || childs[i][0] == 0 {
					t.Fatalf("%s: no link /proc/self/ns/%s", made.name, kind.name)
				}
				if got, want := !bytes.Equal(parents[i], childs[i]), kind == made; got != want {
					t.Errorf("new %s namespace: %s namespace of the child differs: %v, want %v (%s, %s)", made.name, kind.name, got, want, unix.ByteSliceToString(parents[i]), unix.ByteSliceToString(childs[i]))
				}
			}
			if isInit := pid.Ret == 1 && ppid.Ret == 0; isInit != (made.name == "pid") {
				t.Errorf("new %s namespace: PID %d, parent %d", made.name, pid.Ret, ppid.Ret)
			}
			if overflow := uid.Ret == 65534; overflow != (made.name == "user") {
				t.Errorf("new %s namespace: user ID %d", made.name, uid.Ret)
			}
		}
	})
}

// TestUTSNamespace protects that a new namespace is one, not only a new name: a
// host name set in it stays in it.
func TestUTSNamespace(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		for _, flag := range []uint64{0, linux.CLONE_NEWUTS} {
			s := kit.NewScript(t)
			name := fmt.Sprintf("child-%d-%d", os.Getpid(), flag)
			child := s.NewList()
			set := child.Sys(unix.SYS_SETHOSTNAME, s.Path(name), len(name))
			child.Exit(0)
			call := a.Clone4(s.List, flag|kit.SIGCHLD, linux.Clone4Args{}, child)
			s.Wait(call, 0)
			uname := s.Buffer(sizeOfUtsname)
			s.Sys(unix.SYS_UNAME, uname)
			s.Run()
			s.OK(call, set)
			seen := nodename(uname)
			if got, want := seen == name, flag == 0; got != want {
				t.Errorf("flags %#x: the parent's host name is %q after the child has set %q", flag, seen, name)
			}
		}
	})
}
