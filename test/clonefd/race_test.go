// SPDX-License-Identifier: Apache-2.0

package clonefd

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// quick is a call by which the Go program creates a child with CLONE_FD that exits at once. The
// child shares the memory of the program, because copying the memory would take a hundred times
// as long as everything else.
type quick struct {
	call   *rawclone.Op
	fd     *uintptr
	status *uintptr // exit status of the children
}

func newQuick(t *testing.T, a *kit.ABI, flags uint64, fdFlags uint32) *quick {
	s := kit.NewScript(t)
	q := &quick{status: s.Word()}
	child := s.NewList()
	child.Exit(child.Sys(rawclone.TrapLoad, q.status))
	q.call, q.fd = a.Clone4FD(s.NewList(), flags|linux.CLONE_FD|linux.CLONE_VM, linux.Clone4FDArgs{ClonefdFlags: fdFlags}, child)
	return q
}

// start creates a child that exits with a status. The previous child must have read its own status.
func (q *quick) start(status uintptr) (pid, fd int, err error) {
	*q.status = status
	ret, errno := rawclone.Do(q.call)
	if errno != 0 {
		return 0, -1, errno
	}
	return int(ret), int(int32(*q.fd)), nil
}

// noWait calls wait4 for any child until done, as the wait loop of a program may do. It fails the
// test if wait4 returns a child.
func noWait(t *testing.T, done *atomic.Bool) {
	for !done.Load() {
		if pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); pid > 0 {
			t.Errorf("a wait returned child %d, %v", pid, err)
			return
		}
		time.Sleep(10 * time.Microsecond)
	}
}

// TestFDManyChildren checks that the exits of many children are neither lost nor mixed up, that no
// wait call returns a child, and that nothing is left behind.
func TestFDManyChildren(t *testing.T) {
	children := 10_000
	if testing.Short() {
		children = 1000
	}
	before := descriptors(t)
	var done atomic.Bool
	var waiter, makers sync.WaitGroup
	waiter.Go(func() { noWait(t, &done) })
	const threads = 4
	abis := kit.ABIs()
	for i := range threads {
		q := newQuick(t, abis[i%len(abis)], linux.CLONE_AUTOREAP|[]uint64{kit.SIGCHLD, 0}[i%2], 0)
		makers.Go(func() {
			for n := range children / threads {
				want := int32(n % 256)
				pid, fd, err := q.start(uintptr(want))
				if err != nil {
					t.Errorf("child %d: %v", n, err)
					return
				}
				info, got, err := read(fd)
				if got != fdInfoSize || info.Code != kit.CLD_EXITED || info.Status&0xff != want || err != nil {
					t.Errorf("child %d: read %d bytes, %+v, %v, want status %d", n, got, info, err, want)
				}
				if err := unix.Kill(pid, 0); err != unix.ESRCH {
					t.Errorf("child %d, after its exit was read: kill: %v, want ESRCH", n, err)
				}
				unix.Close(fd)
			}
		})
	}
	makers.Wait()
	done.Store(true)
	waiter.Wait()
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are open, want %d as before", after, before)
	}
}

// descriptors returns the number of open descriptors of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestFDManyReaders checks that exactly one of several readers gets the info.
func TestFDManyReaders(t *testing.T) {
	q := newQuick(t, kit.Default(), linux.CLONE_AUTOREAP, 0)
	rounds := 200
	if testing.Short() {
		rounds = 20
	}
	for range rounds {
		_, fd, err := q.start(7)
		if err != nil {
			t.Fatal(err)
		}
		var readers sync.WaitGroup
		var infos, others atomic.Int32
		for range 8 {
			readers.Go(func() {
				switch info, n, err := read(fd); {
				case n == fdInfoSize && info.Status == 7:
					infos.Add(1)
				case n == 0 && err == nil:
				default:
					others.Add(1)
				}
			})
		}
		readers.Wait()
		unix.Close(fd)
		if infos.Load() != 1 || others.Load() != 0 {
			t.Fatalf("%d of 8 readers have the info, %d have something else; want 1 and 0", infos.Load(), others.Load())
		}
	}
}

// TestFDKillRace checks that a child that is killed while it starts, runs or exits is reported as
// killed or as exited, and does not survive. The signal comes through the descriptor, by kill, or
// by closing the descriptor.
func TestFDKillRace(t *testing.T) {
	rounds := 600
	if testing.Short() {
		rounds = 60
	}
	var done atomic.Bool
	var waiter sync.WaitGroup
	waiter.Go(func() { noWait(t, &done) })
	for _, how := range []struct {
		name    string
		fdFlags uint32
		kill    func(pid, fd int)
	}{
		{name: "write", kill: func(_, fd int) { unix.Write(fd, []byte{byte(unix.SIGKILL)}) }},
		{name: "kill", kill: func(pid, _ int) { unix.Kill(pid, unix.SIGKILL) }},
		{name: "close", fdFlags: linux.CLONEFD_KILL_ON_CLOSE, kill: func(_, fd int) { unix.Close(fd) }},
	} {
		t.Run(how.name, func(t *testing.T) {
			q := newQuick(t, kit.Default(), linux.CLONE_AUTOREAP|kit.SIGCHLD, how.fdFlags)
			ends := map[linux.ClonefdInfo]int{}
			for i := range rounds {
				pid, fd, err := q.start(7)
				if err != nil {
					t.Fatal(err)
				}
				pidfd, err := unix.PidfdOpen(pid, 0)
				if err != nil && err != unix.ESRCH && err != unix.EINVAL {
					t.Fatal(err)
				}
				for end := time.Now().Add(time.Duration(i%30) * 10 * time.Microsecond); time.Now().Before(end); {
					runtime.Gosched()
				}
				how.kill(pid, fd)
				if how.fdFlags == 0 {
					info, n, err := read(fd)
					ends[info]++
					if n != fdInfoSize || err != nil || info != (linux.ClonefdInfo{Code: kit.CLD_EXITED, Status: 7}) && info != (linux.ClonefdInfo{Code: kit.CLD_KILLED, Status: int32(unix.SIGKILL)}) {
						t.Fatalf("read %d bytes, %+v, %v", n, info, err)
					}
					unix.Close(fd)
				} else if pidfd >= 0 {
					if _, err := pollFor(pidfd, unix.POLLIN, 20*time.Second); err != nil {
						t.Fatalf("child %d: %v", pid, err)
					}
				}
				if pidfd >= 0 {
					unix.Close(pidfd)
				}
			}
			t.Logf("%v", ends)
		})
	}
	done.Store(true)
	waiter.Wait()
}

// TestFDParentDies checks that no child is left when a parent exits at any moment: children with
// CLONEFD_KILL_ON_CLOSE are killed, and all children reap themselves.
func TestFDParentDies(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 6
	}
	abis := kit.ABIs()
	for i := range rounds {
		s := kit.NewScript(t)
		forever := s.NewList()
		kit.Forever(forever)
		forever.Exit(0)
		parent := s.NewList()
		var pids []*rawclone.Op
		for n := range 12 {
			fdFlags := uint32(linux.CLONEFD_KILL_ON_CLOSE | linux.CLONEFD_CLOEXEC)
			child := forever
			if n%3 == 0 {
				fdFlags, child = 0, s.Exiting(n)
			}
			call, _ := abis[n%len(abis)].Clone4FD(parent, linux.CLONE_FD|autoreap|kit.SIGCHLD, linux.Clone4FDArgs{ClonefdFlags: fdFlags}, child)
			pids = append(pids, call)
		}
		if i%2 == 0 {
			// The parent closes the descriptors by execve, and goes on.
			kit.Exec(parent)
		}
		parent.Exit(0)
		fork := s.Sys(unix.SYS_CLONE, int(unix.SIGCHLD))
		fork.Child = parent.First()
		pause := s.Buffer(16)
		*rawclone.WordOf(pause[8:]) = uintptr(i%10) * 200_000
		s.Sys(unix.SYS_NANOSLEEP, pause, 0)
		if i%2 == 1 {
			s.Sys(unix.SYS_KILL, fork, int(unix.SIGKILL))
		}
		s.Wait(fork, unix.WALL)
		s.Run()
		s.OK(fork)
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			var left []string
			for n, call := range pids {
				if pid := int(call.Ret); pid > 0 && kit.IsOurs(pid) {
					left = append(left, fmt.Sprintf("%d: process %d", n, pid))
				}
			}
			if left == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("round %d: children are left after their parent has exited: %v", i, left)
			}
		}
	}
}
