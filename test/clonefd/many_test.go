// SPDX-License-Identifier: Apache-2.0

package clonefd

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// method is a way to follow many children by one epoll set.
type method struct {
	name string

	// call appends a call that creates a child, and returns the word that the call
	// writes a descriptor to.
	call func(l, child *rawclone.List) *uintptr

	// kill sends SIGKILL through a descriptor, collect reports how the child exited.
	kill    func(fd int) error
	collect func(fd int) error
}

// childFlags are those of the children: they share the memory of a creator, which they do
// not use, and are children of the test's process.
const childFlags = linux.CLONE_VM | linux.CLONE_PARENT

var methods = []method{
	{
		name: "CLONE_FD",
		call: func(l, child *rawclone.List) *uintptr {
			_, fd := kit.Default().Clone4FD(l, childFlags|linux.CLONE_FD|linux.CLONE_AUTOREAP, linux.Clone4FDArgs{ClonefdFlags: linux.CLONEFD_CLOEXEC}, child)
			return fd
		},
		kill: func(fd int) error {
			_, err := unix.Write(fd, []byte{byte(unix.SIGKILL)})
			return err
		},
		collect: func(fd int) error {
			info, n, err := read(fd)
			if want := (linux.ClonefdInfo{Code: kit.CLD_KILLED, Status: int32(unix.SIGKILL)}); n != fdInfoSize || info != want || err != nil {
				return fmt.Errorf("read %d bytes, %+v, %v, want %+v", n, info, err, want)
			}
			return nil
		},
	},
	{
		name: "pidfd",
		call: func(l, child *rawclone.List) *uintptr {
			fd := l.Program().Word()
			call := l.Sys(unix.SYS_CLONE)
			call.Args = kit.CloneArgs(childFlags|unix.CLONE_PIDFD, linux.Clone4Args{Ptid: uint64(rawclone.Addr(fd))})
			call.Child = child.First()
			return fd
		},
		kill: func(fd int) error { return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) },
		collect: func(fd int) error {
			for {
				var info unix.Siginfo
				err := unix.Waitid(unix.P_PIDFD, fd, &info, unix.WEXITED|unix.WALL, nil)
				if err == unix.EINTR {
					continue
				}
				if err != nil || info.Code != kit.CLD_KILLED {
					return fmt.Errorf("waitid: si_code %d, %v, want CLD_KILLED", info.Code, err)
				}
				return nil
			}
		},
	},
}

// perCreator is how many children a creator has. gVisor's systrap platform has room for
// 4,095 tasks in an address space (maxGuestContexts), and kills those beyond.
const perCreator = 500

// programs are the memory of creators. It is not unmapped, so that new memory for each
// benchmark would add up.
var programs []*rawclone.Program

// lives are many children of the test's process, with a descriptor of each in one epoll
// set.
type lives struct {
	method
	epoll int
	fds   map[int]struct{}
	took  time.Duration // to create them
}

// create creates n children, by processes that share the table of descriptors and exit.
func (m method) create(t testing.TB, n int) *lives {
	t.Helper()
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	all := &lives{method: m, epoll: ep, fds: make(map[int]struct{}, n)}
	var gate [2]int
	if err := unix.Pipe(gate[:]); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(gate[0])
	defer unix.Close(gate[1])
	for i := 0; n > 0; i++ {
		if i == len(programs) {
			programs = append(programs, rawclone.NewProgram())
		}
		p := programs[i]
		p.Reset()
		child := p.NewList(2)
		kit.Forever(child)
		child.Exit(1)
		creator := p.NewList(perCreator + 2)
		creator.Sys(unix.SYS_READ, gate[0], p.Buffer(8), 1)
		var fds []*uintptr
		for range min(n, perCreator) {
			fds = append(fds, m.call(creator, child))
		}
		creator.Exit(0)
		n -= len(fds)
		// The children of CLONE_PARENT have the exit signal of the creator: none.
		pid, errno := creator.Start(linux.CLONE_FILES)
		if errno != 0 {
			t.Fatalf("creating a creator: %s", kit.ErrnoName(errno))
		}
		start := time.Now()
		unix.Write(gate[1], []byte{0})
		status := waitFor(t, pid)
		all.took += time.Since(start)
		if status != 0 {
			t.Fatalf("a creator: %s, want exit status 0", kit.Status(status))
		}
		for _, at := range fds {
			fd := int(int32(*at))
			if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
				t.Fatalf("adding descriptor %d, of child %d: %v", fd, len(all.fds), err)
			}
			all.fds[fd] = struct{}{}
		}
	}
	return all
}

func waitFor(t testing.TB, pid int) unix.WaitStatus {
	t.Helper()
	for {
		var ws unix.WaitStatus
		if _, err := unix.Wait4(pid, &ws, unix.WALL, nil); err == nil {
			return ws
		} else if err != unix.EINTR {
			t.Fatalf("waiting for process %d: %v", pid, err)
		}
	}
}

// signal kills all children.
func (all *lives) signal(t testing.TB) {
	t.Helper()
	for fd := range all.fds {
		if err := all.kill(fd); err != nil {
			t.Fatalf("descriptor %d: %v", fd, err)
		}
	}
}

// wait collects all children as the epoll set reports them.
func (all *lives) wait(t testing.TB) {
	t.Helper()
	events := make([]unix.EpollEvent, 100)
	for len(all.fds) > 0 {
		n, err := unix.EpollWait(all.epoll, events, int((20 * time.Second).Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if n == 0 || err != nil {
			t.Fatalf("epoll_wait: %d, %v, and %d children are left", n, err, len(all.fds))
		}
		for _, event := range events[:n] {
			fd := int(event.Fd)
			if _, ok := all.fds[fd]; !ok {
				t.Fatalf("the epoll set reports descriptor %d, which is none of a child", fd)
			}
			if err := all.collect(fd); err != nil {
				t.Fatalf("descriptor %d: %v", fd, err)
			}
			unix.Close(fd)
			delete(all.fds, fd)
		}
	}
	unix.Close(all.epoll)
}

// TestFDManyLiveChildren checks that 10,000 children can live at once, each with a
// descriptor in one epoll set, and that none is lost when they are killed and collected.
func TestFDManyLiveChildren(t *testing.T) {
	n := 10_000
	if testing.Short() {
		n = 1000
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < uint64(n)+100 {
		t.Skipf("%d descriptors are allowed, %v, which is too few", limit.Cur, err)
	}
	before := descriptors(t)
	all := methods[0].create(t, n)
	var early [1]unix.EpollEvent
	if n, err := unix.EpollWait(all.epoll, early[:], 0); n != 0 || err != nil {
		t.Fatalf("epoll_wait while all children live: %d, %v, want 0", n, err)
	}
	all.signal(t)
	all.wait(t)
	if pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("wait4: %d, %v, want ECHILD", pid, err)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors, were %d", after, before)
	}
}

// BenchmarkFDChildren measures what a child costs if there are many: its creation, a
// signal through its descriptor, and its collection through one epoll set.
//
//	go test ./test/clonefd -run '^$' -bench Children -benchtime 3x -on systrap
func BenchmarkFDChildren(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000} {
		for _, m := range methods {
			b.Run(fmt.Sprintf("%d/%s", n, m.name), func(b *testing.B) {
				var create, signal, collect time.Duration
				for range b.N {
					all := m.create(b, n)
					start := time.Now()
					all.signal(b)
					signalled := time.Now()
					all.wait(b)
					create += all.took
					signal += signalled.Sub(start)
					collect += time.Since(signalled)
				}
				per := func(d time.Duration) float64 {
					return float64(d.Microseconds()) / float64(b.N*n)
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(per(create), "create-us/child")
				b.ReportMetric(per(signal), "signal-us/child")
				b.ReportMetric(per(collect), "collect-us/child")
			})
		}
	}
}
