// SPDX-License-Identifier: Apache-2.0

package clonefd

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/test/kit"
)

// perCreator is how many children a creator has. gVisor's systrap platform has room for
// 4,095 tasks in an address space (maxGuestContexts), and kills those beyond.
const perCreator = 500

// lives are many children of the test's process, with a descriptor of each in one epoll
// set.
type lives struct {
	epoll int
	fds   map[int]struct{}
}

// create creates n children, by processes that share the table of descriptors and exit. The
// children share the table as well: a descriptor that another child still has stays in an
// epoll set when it is closed.
func create(t *testing.T, n int) *lives {
	t.Helper()
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	all := &lives{epoll: ep, fds: make(map[int]struct{}, n)}
	for n > 0 {
		p := kit.NewScript(t).Program()
		child := p.NewList(2)
		kit.Forever(child)
		child.Exit(1)
		creator := p.NewList(perCreator + 1)
		var fds []*uintptr
		for range min(n, perCreator) {
			_, fd := kit.Default().Clone4FD(creator, linux.CLONE_VM|linux.CLONE_FILES|linux.CLONE_PARENT|linux.CLONE_FD|linux.CLONE_AUTOREAP, linux.Clone4FDArgs{ClonefdFlags: linux.CLONEFD_CLOEXEC}, child)
			fds = append(fds, fd)
		}
		creator.Exit(0)
		n -= len(fds)
		// The children of CLONE_PARENT have the exit signal of the creator: none.
		pid, errno := creator.Start(linux.CLONE_FILES)
		if errno != 0 {
			t.Fatalf("creating a creator: %s", kit.ErrnoName(errno))
		}
		if status := waitFor(t, pid); status != 0 {
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

func waitFor(t *testing.T, pid int) unix.WaitStatus {
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

// kill kills all children through their descriptors.
func (all *lives) kill(t *testing.T) {
	t.Helper()
	for fd := range all.fds {
		if _, err := unix.Write(fd, []byte{byte(unix.SIGKILL)}); err != nil {
			t.Fatalf("killing the child of descriptor %d: %v", fd, err)
		}
	}
}

// wait collects all children as the epoll set reports them.
func (all *lives) wait(t *testing.T) {
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
			info, n, err := read(fd)
			if want := (linux.ClonefdInfo{Code: kit.CLD_KILLED, Status: int32(unix.SIGKILL)}); n != fdInfoSize || info != want || err != nil {
				t.Fatalf("descriptor %d: read %d bytes, %+v, %v, want %+v", fd, n, info, err, want)
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
	all := create(t, n)
	var early [1]unix.EpollEvent
	if n, err := unix.EpollWait(all.epoll, early[:], 0); n != 0 || err != nil {
		t.Fatalf("epoll_wait while all children live: %d, %v, want 0", n, err)
	}
	all.kill(t)
	all.wait(t)
	if pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("wait4: %d, %v, want ECHILD", pid, err)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors, were %d", after, before)
	}
}
