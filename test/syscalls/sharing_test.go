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
)

// envExecuted makes the test binary a program that a test has executed: it lives
// for a while and exits with executedStatus.
const (
	envExecuted    = "CLONE4_EXECUTED"
	executedStatus = 7
	executedFor    = 300 * time.Millisecond
)

func executed() {
	time.Sleep(executedFor)
	os.Exit(executedStatus)
}

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
		change func(s *script, child *list)
		look   func(s *script) func() bool
	}{
		{
			name: "FS", flag: linux.CLONE_FS,
			change: func(s *script, child *list) { child.sys(unix.SYS_CHDIR, s.path("/proc")) },
			look: func(s *script) func() bool {
				buf := s.buffer(64)
				s.sys(unix.SYS_GETCWD, addr(buf), len(buf))
				return func() bool { return string(buf[:bytes.IndexByte(buf, 0)]) == "/proc" }
			},
		},
		{
			name: "FILES", flag: linux.CLONE_FILES,
			change: func(s *script, child *list) { child.sys(unix.SYS_DUP3, 1, 99, 0) },
			look: func(s *script) func() bool {
				get := s.sys(unix.SYS_FCNTL, 99, unix.F_GETFD)
				return func() bool { return get.Errno() == 0 }
			},
		},
		{
			name: "SIGHAND", flag: linux.CLONE_SIGHAND, needs: linux.CLONE_VM,
			change: func(s *script, child *list) {
				ignore := s.buffer(32)
				*word(ignore) = 1 // SIG_IGN
				child.sys(unix.SYS_RT_SIGACTION, int(unix.SIGUSR2), addr(ignore), 0, 8)
			},
			look: func(s *script) func() bool {
				old := s.buffer(32)
				s.sys(unix.SYS_RT_SIGACTION, int(unix.SIGUSR2), 0, addr(old), 8)
				return func() bool { return *word(old) == 1 }
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			onEachABI(t, func(t *testing.T, a *abi) {
				for _, flag := range []uint64{0, tc.flag} {
					s := newScript(t)
					child := s.newList()
					tc.change(s, child)
					child.exit(0)
					call := s.clone4(a, tc.needs|flag|sigchld, linux.Clone4Args{StackStart: stackTop(memory(t, 1))}, child)
					s.wait(call, 0)
					changed := tc.look(s)
					s.run()
					s.ok(call)
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
	onEachABI(t, func(t *testing.T, a *abi) {
		for _, flag := range []uint64{0, linux.CLONE_VM} {
			s := newScript(t)
			mem := word(memory(t, 1))
			child := s.newList()
			child.sys(rawclone.TrapStore, mem, 2)
			child.exit(0)
			s.sys(rawclone.TrapStore, mem, 1)
			call := s.clone4(a, flag|sigchld, linux.Clone4Args{StackStart: stackTop(memory(t, 1))}, child)
			s.wait(call, 0)
			seen := s.sys(rawclone.TrapLoad, mem)
			s.run()
			s.ok(call)
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
	onEachABI(t, func(t *testing.T, a *abi) {
		s := newScript(t)
		var (
			stack = stackTop(memory(t, 1))
			tls   = addr(memory(t, 1))
			tid   = s.p.Word()
			pgid  = s.sys(unix.SYS_GETPID)
		)
		thread := s.newList()
		sp := thread.sys(rawclone.TrapSP)
		fs := thread.threadPointer()
		pid := thread.sys(unix.SYS_GETPID)
		self := thread.sys(unix.SYS_GETTID)
		known := thread.sys(rawclone.TrapLoad, tid)
		thread.sys(unix.SYS_EXIT, 0)
		call := s.clone4(a, linux.CLONE_VM|linux.CLONE_FS|linux.CLONE_FILES|linux.CLONE_SIGHAND|linux.CLONE_THREAD|linux.CLONE_SYSVSEM|
			linux.CLONE_SETTLS|linux.CLONE_PARENT_SETTID|linux.CLONE_CHILD_CLEARTID, linux.Clone4Args{
			Ptid:       uint64(rawclone.Addr(tid)),
			Ctid:       uint64(rawclone.Addr(tid)),
			StackStart: stack,
			TLS:        uint64(tls),
		}, thread)
		s.sys(unix.SYS_FUTEX, tid, 0 /* FUTEX_WAIT */, call, 0)
		cleared := s.sys(rawclone.TrapLoad, tid)
		wait, _ := s.wait(call, unix.WALL)
		s.run()
		s.ok(call)
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
			t.Errorf("waiting for a thread: %s, want ECHILD", errName(e))
		}
	})
}

// TestVfork protects that with CLONE_VFORK the caller does not run before the
// child has ended.
func TestVfork(t *testing.T) {
	onEachABI(t, func(t *testing.T, a *abi) {
		for _, flags := range []uint64{linux.CLONE_VFORK, linux.CLONE_VFORK | linux.CLONE_VM} {
			s := newScript(t)
			done := s.p.Word()
			pause := s.buffer(16)
			*word(pause[8:]) = uintptr(100 * time.Millisecond)
			child := s.newList()
			child.sys(unix.SYS_NANOSLEEP, addr(pause), 0)
			child.sys(rawclone.TrapStore, done, 1)
			child.exit(0)
			// The child may use the caller's own stack pointer: it waits.
			call := s.clone4(a, flags|sigchld, linux.Clone4Args{}, child)
			seen := s.sys(rawclone.TrapLoad, done)
			s.wait(call, 0)
			s.run()
			s.ok(call)
			if seen.Ret != 1 {
				t.Errorf("flags %#x: the caller ran before the child had ended", flags)
			}
		}
	})
}

// TestVforkExec protects that the wait of CLONE_VFORK is over when the child
// executes a program.
func TestVforkExec(t *testing.T) {
	onEachABI(t, func(t *testing.T, a *abi) {
		s := newScript(t)
		exe := s.path("/proc/self/exe")
		argv := s.buffer(16)
		*word(argv) = exe
		envp := s.buffer(16)
		*word(envp) = s.path(envExecuted + "=1")
		child := s.newList()
		child.sys(unix.SYS_EXECVE, exe, addr(argv), addr(envp))
		child.exit(1)
		call := s.clone4(a, linux.CLONE_VM|linux.CLONE_VFORK|sigchld, linux.Clone4Args{StackStart: stackTop(memory(t, 1))}, child)
		early, _ := s.wait(call, unix.WNOHANG)
		late, status := s.wait(call, 0)
		s.run()
		s.ok(call, early, late)
		if early.Ret != 0 {
			t.Errorf("the program had ended when clone4 returned")
		}
		if got := unix.WaitStatus(*status).ExitStatus(); got != executedStatus {
			t.Errorf("exit status of the program %d, want %d", got, executedStatus)
		}
	})
}

// TestParent protects CLONE_PARENT: the child is the caller's sibling, ends with
// the caller's exit signal, and the caller cannot wait for it.
func TestParent(t *testing.T) {
	onEachABI(t, func(t *testing.T, a *abi) {
		s := newScript(t)
		child := s.newList()
		ppid := child.sys(unix.SYS_GETPPID)
		child.exit(3)
		// An exit signal of its own does not count.
		call := s.clone4(a, linux.CLONE_PARENT|uint64(unix.SIGUSR1), linux.Clone4Args{}, child)
		wait, _ := s.wait(call, unix.WALL)
		s.run()
		s.ok(call)
		// With an exit signal other than SIGCHLD, this wait would not see it.
		var ws unix.WaitStatus
		if _, err := unix.Wait4(int(call.Ret), &ws, 0, nil); err != nil || ws.ExitStatus() != 3 {
			t.Errorf("wait4 by the caller's parent: status %#x, error %v; want exit status 3", ws, err)
		}
		if e := wait.Errno(); e != unix.ECHILD {
			t.Errorf("wait4 by the caller: %s, want ECHILD", errName(e))
		}
		if int(ppid.Ret) != os.Getpid() {
			t.Errorf("parent of the child: %d, want the caller's, %d", ppid.Ret, os.Getpid())
		}
	})
}

// TestSetTID protects where the child's ID is written, and in whose memory.
func TestSetTID(t *testing.T) {
	onEachABI(t, func(t *testing.T, a *abi) {
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
			s := newScript(t)
			mem := memory(t, 1)
			ptid, ctid := word(mem), word(mem[8:])
			child := s.newList()
			childP, childC := child.sys(rawclone.TrapLoad, ptid), child.sys(rawclone.TrapLoad, ctid)
			child.exit(0)
			call := s.clone4(a, tc.flags|sigchld, linux.Clone4Args{
				Ptid:       uint64(addr(mem)),
				Ctid:       uint64(addr(mem[8:])),
				StackStart: stackTop(memory(t, 1)),
			}, child)
			s.wait(call, 0)
			parentP, parentC := s.sys(rawclone.TrapLoad, ptid), s.sys(rawclone.TrapLoad, ctid)
			s.run()
			s.ok(call)
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
	onEachABI(t, func(t *testing.T, a *abi) {
		readOnly := memory(t, 1)
		if err := unix.Mprotect(readOnly, unix.PROT_READ); err != nil {
			t.Fatal(err)
		}
		for _, bad := range []uint64{0, 1, uint64(addr(readOnly)), 0x7ffffffff000, 0xffff800000000000, 1 << 63, 1<<64 - 1} {
			for _, flags := range []uint64{
				linux.CLONE_PARENT_SETTID,
				linux.CLONE_CHILD_SETTID,
				linux.CLONE_CHILD_CLEARTID | linux.CLONE_VM,
				linux.CLONE_PARENT_SETTID | linux.CLONE_CHILD_SETTID | linux.CLONE_CHILD_CLEARTID,
			} {
				s := newScript(t)
				call := s.clone4(a, flags|sigchld, linux.Clone4Args{Ptid: bad, Ctid: bad, StackStart: stackTop(memory(t, 1))}, s.exiting(5))
				wait, status := s.wait(call, 0)
				s.run()
				if e := call.Errno(); e != 0 {
					t.Errorf("flags %#x, ptid and ctid %#x: %s", flags, bad, errName(e))
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
	onEachABI(t, func(t *testing.T, a *abi) {
		for _, flags := range []uint64{0, linux.CLONE_VM} {
			for _, size := range []uint64{0, 1, 4096, 1 << 31, 1<<64 - 1} {
				top := stackTop(memory(t, 1))
				starts := []uint64{0, top, 8}
				if size == 1<<64-1 {
					starts = append(starts, 1<<31-1, 1<<32-1, 1<<32+8, 1<<47-4096, 1<<63, 1<<64-1)
				}
				for _, start := range starts {
					start := a.inWord(start)
					if start == 0 && flags&linux.CLONE_VM != 0 {
						continue // two at once on one stack
					}
					if start == 1<<63 && os.Getenv(envSandbox) == "kvm" {
						continue // the KVM platform cannot run a task with a stack pointer that is not canonical
					}
					s := newScript(t)
					callers := s.sys(rawclone.TrapSP)
					child := s.newList()
					sp := child.sys(rawclone.TrapSP)
					bad := start != 0 && start != top
					if bad {
						child.sys(rawclone.TrapLoad, uintptr(start))
					}
					child.exit(0)
					call := s.clone4(a, flags|sigchld, linux.Clone4Args{StackStart: start, StackSize: size}, child)
					_, status := s.wait(call, 0)
					s.run()
					s.ok(call)
					if ws := unix.WaitStatus(*status); bad && ws.Signal() != unix.SIGSEGV || !bad && ws != 0 {
						t.Errorf("flags %#x, stack_start %#x: the child that used it ended with status %#x", flags, start, ws)
					}
					want := uintptr(start)
					if start == 0 {
						want = callers.Ret
					}
					if sp.Ret != want {
						t.Errorf("flags %#x, stack_start %#x, stack_size %#x: stack pointer %#x, want %#x", flags, start, size, sp.Ret, want)
					}
				}
			}
		}
	})
}

// TestTLS protects what CLONE_SETTLS sets, and that tls is not looked at without.
func TestTLS(t *testing.T) {
	onEachABI(t, func(t *testing.T, a *abi) {
		mem := uint64(addr(memory(t, 1)))
		for _, flag := range []uint64{0, linux.CLONE_SETTLS} {
			for _, tls := range append([]uint64{0, mem, 12345}, oddTLS...) {
				tls := a.inWord(tls)
				s := newScript(t)
				callers := s.threadPointer()
				child := s.newList()
				childs := child.threadPointer()
				child.exit(0)
				call := s.clone4(a, flag|sigchld, linux.Clone4Args{TLS: tls}, child)
				s.wait(call, 0)
				s.run()
				if flag != 0 && !validTLS(tls) {
					if e := call.Errno(); e != unix.EPERM {
						t.Errorf("tls %#x: %s, want EPERM", tls, errName(e))
					}
					continue
				}
				s.ok(call)
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
	onEachABI(t, func(t *testing.T, a *abi) {
		for _, made := range kinds {
			s := newScript(t)
			child := s.newList()
			var parents, childs [6][]byte
			for i, kind := range kinds {
				name := s.path("/proc/self/ns/" + kind.name)
				parents[i], childs[i] = s.buffer(64), s.buffer(64)
				s.sys(unix.SYS_READLINKAT, unix.AT_FDCWD, name, addr(parents[i]), 64)
				child.sys(unix.SYS_READLINKAT, unix.AT_FDCWD, name, addr(childs[i]), 64)
			}
			pid, ppid, uid := child.sys(unix.SYS_GETPID), child.sys(unix.SYS_GETPPID), child.sys(unix.SYS_GETUID)
			child.exit(0)
			call := s.clone4(a, made.flag|sigchld, linux.Clone4Args{}, child)
			wait, _ := s.wait(call, 0)
			s.run()
			s.ok(call, wait)
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
	onEachABI(t, func(t *testing.T, a *abi) {
		for _, flag := range []uint64{0, linux.CLONE_NEWUTS} {
			s := newScript(t)
			name := fmt.Sprintf("child-%d-%d", os.Getpid(), flag)
			child := s.newList()
			set := child.sys(unix.SYS_SETHOSTNAME, s.path(name), len(name))
			child.exit(0)
			call := s.clone4(a, flag|sigchld, linux.Clone4Args{}, child)
			s.wait(call, 0)
			uname := s.buffer(sizeOfUtsname)
			s.sys(unix.SYS_UNAME, addr(uname))
			s.run()
			s.ok(call, set)
			seen := nodename(uname)
			if got, want := seen == name, flag == 0; got != want {
				t.Errorf("flags %#x: the parent's host name is %q after the child has set %q", flag, seen, name)
			}
		}
	})
}
