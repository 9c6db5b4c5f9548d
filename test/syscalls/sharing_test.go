// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// TestSharing checks what the child shares with its parent for each flag: the child changes
// something, and the parent looks for the change afterwards.
func TestSharing(t *testing.T) {
	for _, tc := range []struct {
		name  string
		flag  uint64
		needs uint64

		// change appends operations of the child that make a change. look
		// appends operations of the caller, which has reaped the child by then,
		// that look for the change.
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
				kit.OnEach(t, []uint64{0, tc.flag}, func(t *testing.T, flag uint64) {
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
						t.Errorf("the parent sees the child's change: %v, want %v", got, want)
					}
				})
			})
		})
	}
}

// TestVM checks that the parent sees the child's write to memory if and only if CLONE_VM is set.
func TestVM(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		kit.OnEach(t, []uint64{0, linux.CLONE_VM}, func(t *testing.T, flag uint64) {
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
			kit.CheckRet(t, "what the parent reads", seen.Ret, want)
		})
	})
}

// TestThread checks what a threading library relies on. A thread of the same process runs on
// its own stack. Its ID is written before it runs. When it exits, the kernel clears the ID and
// wakes a futex.
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
		thread.ExitTask(0)
		call := a.Clone4(s.List, kit.ThreadFlags|linux.CLONE_SETTLS|linux.CLONE_PARENT_SETTID|linux.CLONE_CHILD_CLEARTID, linux.Clone4Args{
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
		kit.CheckRet(t, "getpid() of the thread", pid.Ret, pgid.Ret)
		kit.CheckRet(t, "gettid() of the thread", self.Ret, call.Ret)
		kit.CheckRet(t, "*ptid when the thread starts", uintptr(uint32(known.Ret)), call.Ret)
		kit.CheckRet(t, "stack pointer", sp.Ret, uintptr(stack))
		kit.CheckRet(t, "thread pointer", fs(), tls)
		kit.CheckRet(t, "*ctid when the thread has exited", cleared.Ret, 0)
		if call.Ret == pgid.Ret {
			t.Errorf("the thread has the ID of the process, %d", call.Ret)
		}
		kit.CheckErrno(t, "wait4 for a thread", wait, unix.ECHILD)
	})
}

// TestVfork checks that with CLONE_VFORK the caller waits until the child has exited.
func TestVfork(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		kit.OnEach(t, []uint64{linux.CLONE_VFORK | kit.SIGCHLD, linux.CLONE_VFORK | linux.CLONE_VM | kit.SIGCHLD}, func(t *testing.T, flags uint64) {
			s := kit.NewScript(t)
			done := s.Word()
			child := s.NewList()
			s.Sleep(child, 100*time.Millisecond)
			child.Sys(rawclone.TrapStore, done, 1)
			child.Exit(0)
			// The child may use the caller's stack, because the caller waits.
			call := a.Clone4(s.List, flags, linux.Clone4Args{}, child)
			seen := s.Sys(rawclone.TrapLoad, done)
			s.Wait(call, 0)
			s.Run()
			s.OK(call)
			kit.CheckRet(t, "what the child has stored when the caller runs", seen.Ret, 1)
		})
	})
}

// TestVforkExec checks that the wait of CLONE_VFORK ends when the child executes a program.
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
		s.OK(call, early)
		kit.CheckRet(t, "a wait for the program when clone4 returned", early.Ret, 0)
		kit.CheckWait(t, "the program", call, late, status, fmt.Sprintf("exit status %d", kit.ExecStatus))
	})
}

// TestParent checks that a child of CLONE_PARENT is a sibling of the caller and has the
// caller's exit signal, and that the caller cannot wait for the child.
func TestParent(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		s := kit.NewScript(t)
		child := s.NewList()
		ppid := child.Sys(unix.SYS_GETPPID)
		child.Exit(3)
		// The exit signal in the flags is ignored.
		call := a.Clone4(s.List, linux.CLONE_PARENT|uint64(unix.SIGUSR1), linux.Clone4Args{}, child)
		wait, _ := s.Wait(call, unix.WALL)
		s.Run()
		s.OK(call)
		// This wait returns only a child with exit signal SIGCHLD.
		var ws unix.WaitStatus
		if _, err := unix.Wait4(int(call.Ret), &ws, 0, nil); err != nil || ws.ExitStatus() != 3 {
			t.Errorf("wait4 by the caller's parent: %s, error %v; want exit status 3", kit.Status(ws), err)
		}
		kit.CheckErrno(t, "wait4 by the caller", wait, unix.ECHILD)
		kit.CheckRet(t, "getppid() of the child", ppid.Ret, uintptr(os.Getpid()))
	})
}

// TestSetTID checks for each flag where the child's ID is written, and in whose memory.
func TestSetTID(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		for _, tc := range []struct {
			flags uint64
			// Whether *ptid and *ctid have the ID, in the parent and in the child.
			parentP, parentC, childP, childC bool
		}{
			{flags: 0},
			{flags: linux.CLONE_PARENT_SETTID, parentP: true},
			{flags: linux.CLONE_CHILD_SETTID, childC: true},
			{flags: linux.CLONE_PARENT_SETTID | linux.CLONE_VM, parentP: true, childP: true},
			{flags: linux.CLONE_CHILD_SETTID | linux.CLONE_VM, parentC: true, childC: true},
			{flags: linux.CLONE_CHILD_CLEARTID},
		} {
			t.Run(strings.ReplaceAll(kit.FlagNames(tc.flags), "|", ","), func(t *testing.T) {
				s := kit.NewScript(t)
				mem := kit.Memory(t, 1)
				ptid, ctid := rawclone.WordOf(mem), rawclone.WordOf(mem[8:])
				child := s.NewList()
				childP, childC := child.Sys(rawclone.TrapLoad, ptid), child.Sys(rawclone.TrapLoad, ctid)
				child.Exit(0)
				call := a.Clone4(s.List, tc.flags|kit.SIGCHLD, linux.Clone4Args{
					Ptid:       uint64(rawclone.Addr(ptid)),
					Ctid:       uint64(rawclone.Addr(ctid)),
					StackStart: kit.Stack(t),
				}, child)
				s.Wait(call, 0)
				parentP, parentC := s.Sys(rawclone.TrapLoad, ptid), s.Sys(rawclone.TrapLoad, ctid)
				s.Run()
				s.OK(call)
				id := map[bool]uintptr{true: call.Ret}
				kit.CheckRet(t, "*ptid in the parent", parentP.Ret, id[tc.parentP])
				kit.CheckRet(t, "*ctid in the parent", parentC.Ret, id[tc.parentC])
				kit.CheckRet(t, "*ptid in the child", childP.Ret, id[tc.childP])
				kit.CheckRet(t, "*ctid in the child", childC.Ret, id[tc.childC])
			})
		}
	})
}

// TestBadTID checks that a child is created and runs even if ptid or ctid is an invalid address.
func TestBadTID(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		readOnly := uint64(rawclone.AddrOf(kit.Protected(t, 1, unix.PROT_READ)))
		for name, bad := range map[string]uint64{
			"NULL": 0, "first page": 1, "read-only": readOnly, "end of user memory": 0x7ffffffff000,
			"kernel": 0xffff800000000000, "non-canonical": 1 << 63, "last byte": 1<<64 - 1,
		} {
			t.Run(name, func(t *testing.T) {
				kit.OnEach(t, []uint64{
					linux.CLONE_PARENT_SETTID,
					linux.CLONE_CHILD_SETTID,
					linux.CLONE_CHILD_CLEARTID | linux.CLONE_VM,
					linux.CLONE_PARENT_SETTID | linux.CLONE_CHILD_SETTID | linux.CLONE_CHILD_CLEARTID,
				}, func(t *testing.T, flags uint64) {
					s := kit.NewScript(t)
					call := a.Clone4(s.List, flags|kit.SIGCHLD, linux.Clone4Args{Ptid: bad, Ctid: bad, StackStart: kit.Stack(t)}, s.Exiting(5))
					wait, status := s.Wait(call, 0)
					s.Run()
					s.OK(call)
					kit.CheckWait(t, "the child", call, wait, status, "exit status 5")
				})
			})
		}
	})
}

// TestStack checks that stack_start is the child's stack pointer, and that 0 means the caller's
// stack pointer. stack_size is ignored, so no sum of the two overflows. A stack pointer to unmapped
// memory is not an error, because the child may never use its stack.
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
					name := map[uint64]string{top: "top"}[start]
					if name == "" {
						name = fmt.Sprintf("%#x", start)
					}
					if start == 0 && flags&linux.CLONE_VM != 0 {
						continue // both tasks would run on one stack
					}
					if start == 1<<63 && !kit.HasOddStacks() {
						continue
					}
					t.Run(fmt.Sprintf("%s/start=%s,size=%#x", kit.FlagNames(flags), name, size), func(t *testing.T) {
						s := kit.NewScript(t)
						callers := s.Sys(rawclone.TrapSP)
						child := s.NewList()
						sp := child.Sys(rawclone.TrapSP)
						wantSP, wantStatus := &rawclone.Op{Ret: uintptr(start)}, "exit status 0"
						switch start {
						case 0:
							wantSP = callers
						case top:
						default:
							wantStatus = "SIGSEGV"
							child.Sys(rawclone.TrapLoad, uintptr(start))
						}
						child.Exit(0)
						call := a.Clone4(s.List, flags|kit.SIGCHLD, linux.Clone4Args{StackStart: start, StackSize: size}, child)
						_, status := s.Wait(call, 0)
						s.Run()
						s.OK(call)
						kit.CheckStatus(t, "the child that used it", *status, wantStatus)
						kit.CheckRet(t, "stack pointer", sp.Ret, wantSP.Ret)
					})
				}
			}
		}
	})
}

// TestTLS checks that CLONE_SETTLS sets the thread pointer, and that tls is ignored without the
// flag.
func TestTLS(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		mem := uint64(rawclone.AddrOf(kit.Memory(t, 1)))
		kit.OnEach(t, []uint64{0, linux.CLONE_SETTLS}, func(t *testing.T, flag uint64) {
			for _, tls := range append([]uint64{0, mem, 12345}, kit.OddTLS()...) {
				tls := a.Truncate(tls)
				name := fmt.Sprintf("%#x", tls)
				if tls == mem {
					name = "memory"
				}
				t.Run(name, func(t *testing.T) {
					s := kit.NewScript(t)
					callers := kit.ThreadPointer(s.List)
					child := s.NewList()
					childs := kit.ThreadPointer(child)
					child.Exit(0)
					call := a.Clone4(s.List, flag|kit.SIGCHLD, linux.Clone4Args{TLS: tls}, child)
					s.Wait(call, 0)
					s.Run()
					if flag != 0 && !kit.ValidTLS(tls) {
						kit.CheckErrno(t, "clone4", call, unix.EPERM)
						return
					}
					s.OK(call)
					want := callers()
					if flag != 0 {
						want = uintptr(tls)
					}
					kit.CheckRet(t, "thread pointer", childs(), want)
				})
			}
		})
	})
}

// TestNamespaces checks that each namespace flag gives the child a new namespace of its kind, and
// of no other kind.
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
			t.Run(made.name, func(t *testing.T) {
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
						t.Fatalf("no link /proc/self/ns/%s", kind.name)
					}
					if got, want := !bytes.Equal(parents[i], childs[i]), kind == made; got != want {
						t.Errorf("%s namespace of the child differs: %v, want %v (%s, %s)", kind.name, got, want, unix.ByteSliceToString(parents[i]), unix.ByteSliceToString(childs[i]))
					}
				}
				if isInit := pid.Ret == 1 && ppid.Ret == 0; isInit != (made.name == "pid") {
					t.Errorf("PID %d, parent %d", pid.Ret, ppid.Ret)
				}
				if overflow := uid.Ret == 65534; overflow != (made.name == "user") {
					t.Errorf("user ID %d", uid.Ret)
				}
			})
		}
	})
}

// TestUTSNamespace checks that a host name that the child sets in a new UTS namespace does not
// change the parent's.
func TestUTSNamespace(t *testing.T) {
	kit.OnEachABI(t, func(t *testing.T, a *kit.ABI) {
		kit.OnEach(t, []uint64{0, linux.CLONE_NEWUTS}, func(t *testing.T, flag uint64) {
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
				t.Errorf("the parent's host name is %q after the child has set %q", seen, name)
			}
		})
	})
}
