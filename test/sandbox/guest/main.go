// SPDX-License-Identifier: Apache-2.0

// Command guest is the program in the sandboxes of tests. It executes its arguments as steps,
// one after the other:
//
//	ABI[,OPTION...]  creates a child by clone4 through an ABI: amd64, x32, i386, arm64
//	fd               creates children with CLONE_FD, pauses, and waits until they exit
//	refused          makes calls with CLONE_FD that fail, until there is a byte to read
//	pause            pauses
//	exit=STATUS      exits
//
// The options are
//
//	vfork   CLONE_VM and CLONE_VFORK
//	pause   the child pauses before it exits
//	settid  CLONE_PARENT_SETTID, in a struct of 8 bytes
//	unknown an unknown flag, so that the call is EINVAL
//	inner   a child with one thread, created by clone(2), makes the call
//
// In a pause, the guest prints the line "pausing" and reads a byte from standard input. For any
// other step, it prints a line with the step and its result: "ok", the name of the error that
// clone4 returned, the name of the signal that killed the caller, or another problem.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

// calls are the calls of clone4 through each ABI.
var calls = map[string]rawclone.Op{
	runtime.GOARCH: {Trap: linux.SYS_CLONE4},
	"x32":          {Trap: linux.SYS_CLONE4_X32},
	"i386":         {Trap: linux.SYS_CLONE4_I386, Entry: rawclone.Int80},
}

// pausing is the line of a pause. It has the length of a word.
const pausing = "pausing\n"

// childStatus is the exit status of the children.
const childStatus = 42

func main() {
	for _, step := range os.Args[1:] {
		if status, ok := strings.CutPrefix(step, "exit="); ok {
			n, err := strconv.Atoi(status)
			if err != nil {
				fatal(step, err)
			}
			os.Exit(n)
		}
		switch step {
		case "pause":
			pause()
		case "fd":
			fmt.Println(step+":", withDescriptors())
		case "refused":
			fmt.Println(step+":", refused())
		default:
			fmt.Println(step+":", createChild(step))
		}
	}
}

func fatal(step string, problem any) {
	fmt.Fprintf(os.Stderr, "guest: step %q: %v\n", step, problem)
	os.Exit(2)
}

func pause() {
	fmt.Print(pausing)
	if _, err := io.ReadFull(os.Stdin, make([]byte, 1)); err != nil {
		fmt.Println("pause:", err)
	}
}

// createChild executes a step that creates a child, waits until the child exits, and returns
// the result of the step.
func createChild(step string) string {
	options := strings.Split(step, ",")
	call, ok := calls[options[0]]
	if !ok {
		fatal(step, "unknown ABI")
	}
	for _, option := range options[1:] {
		if !slices.Contains([]string{"vfork", "pause", "settid", "unknown", "inner"}, option) {
			fatal(step, "unknown option "+option)
		}
	}
	has := func(option string) bool { return slices.Contains(options[1:], option) }

	p := rawclone.NewProgram()
	text, tid, args := p.Word(), p.Word(), p.Word()
	flags := uintptr(unix.SIGCHLD)
	if has("vfork") {
		flags |= linux.CLONE_VFORK | linux.CLONE_VM
	}
	if has("settid") {
		// On compat ABIs, where a word of the struct has 32 bits, ctid is 0.
		*args = rawclone.Addr(tid)
		flags |= linux.CLONE_PARENT_SETTID
		call.Args[2], call.Args[3] = 8, rawclone.Addr(args)
	}
	if has("unknown") {
		call.Args[0] = 1 << 31 // in flags_high
	}
	ops := []rawclone.Op{rawclone.Sys(unix.SYS_GETPID)}
	if has("pause") {
		*text = uintptr(binary.LittleEndian.Uint64([]byte(pausing)))
		ops = append(ops,
			rawclone.Sys(unix.SYS_WRITE, 1, text, len(pausing)),
			rawclone.Sys(unix.SYS_READ, 0, text, 1))
	}
	child := p.List(append(ops, rawclone.Sys(unix.SYS_EXIT_GROUP, childStatus))...)
	call.Args[1], call.Child = flags, child

	if has("inner") {
		return inner(p, call)
	}
	pid, errno := rawclone.Do(p.List(call))
	if errno != 0 {
		return unix.ErrnoName(errno)
	}
	if read := rawclone.At(child, len(ops)-1).Ret; has("vfork") && has("pause") && read != 1 {
		return fmt.Sprintf("clone4 returned while the child was in its pause, or the child's read returned %#x", read)
	}
	ws, err := wait(int(pid))
	if err != nil || child.Ret != pid || ws.ExitStatus() != childStatus {
		return fmt.Sprintf("clone4 returned %d, the child is %d; wait4: %v, wait status %#x", pid, child.Ret, err, ws)
	}
	if int32(*tid) != int32(pid) && has("settid") {
		return fmt.Sprintf("clone4 returned %d and stored %d", pid, *tid)
	}
	return "ok"
}

// inner makes call in a child with one thread, and returns the result of that child: "ok" if it
// exited with status 0.
func inner(p *rawclone.Program, call rawclone.Op) string {
	caller := p.List(call, rawclone.Sys(unix.SYS_EXIT_GROUP, 0))
	fork := rawclone.Sys(unix.SYS_CLONE, int(unix.SIGCHLD))
	fork.Child = caller
	pid, errno := rawclone.Do(p.List(fork))
	if errno != 0 {
		return "clone: " + unix.ErrnoName(errno)
	}
	ws, err := wait(int(pid))
	switch {
	case err != nil:
		return "wait4: " + err.Error()
	case ws.Signaled():
		return unix.SignalName(ws.Signal())
	case ws.ExitStatus() != 0:
		return fmt.Sprintf("exit status %d", ws.ExitStatus())
	case caller.Errno() != 0:
		return unix.ErrnoName(caller.Errno())
	}
	return "ok"
}

// wait waits until a child exits.
func wait(pid int) (unix.WaitStatus, error) {
	var ws unix.WaitStatus
	for {
		waited, err := unix.Wait4(pid, &ws, 0, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err == nil && waited != pid:
			err = fmt.Errorf("returned %d, not %d", waited, pid)
		}
		return ws, err
	}
}

// fdChild is a child with a descriptor. During a pause, each child is in another state.
type fdChild struct {
	flags   uintptr
	fdFlags uint32
	lives   bool // until it can read a byte

	pid, fd int
	read    chan string // what a read returns that waits during the pause
}

// withDescriptors creates children with CLONE_FD, pauses, checks how they exit, and returns the
// result of the step.
func withDescriptors() string {
	// A container without CAP_SYS_ADMIN needs no_new_privs for CLONEFD_KILL_ON_CLOSE.
	// The attribute belongs to a thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return "PR_SET_NO_NEW_PRIVS: " + err.Error()
	}
	killed := &fdChild{flags: linux.CLONE_AUTOREAP, fdFlags: linux.CLONEFD_KILL_ON_CLOSE, lives: true}
	children := []*fdChild{
		{lives: true},
		{flags: linux.CLONE_AUTOREAP, lives: true},
		{flags: linux.CLONE_AUTOREAP, fdFlags: linux.CLONEFD_NONBLOCK, lives: true},
		killed,
		{},
		{flags: linux.CLONE_AUTOREAP},
	}
	var gate [2]int // The children that live read from it.
	if err := unix.Pipe2(gate[:], 0); err != nil {
		return err.Error()
	}
	ep, err := unix.EpollCreate1(0)
	if err != nil {
		return err.Error()
	}
	for _, c := range children {
		if errno := c.create(gate[0]); errno != 0 {
			return unix.ErrnoName(errno)
		}
		if !c.lives {
			if err := waitReadable(c.fd); err != nil {
				return fmt.Sprintf("before the pause, child %+v: poll: %v", *c, err)
			}
			continue
		}
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, c.fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET}); err != nil {
			return err.Error()
		}
		if c.fdFlags == 0 {
			c.read = make(chan string, 1)
			go func() { c.read <- readInfo(c.fd) }()
		}
	}

	pause()

	// A child that is killed leaves its byte in the pipe.
	unix.Close(killed.fd)
	for range 3 {
		unix.Write(gate[1], []byte{0})
	}
	for _, c := range children {
		switch {
		case c == killed:
			continue
		case c.read != nil:
			if s := <-c.read; s != "ok" {
				return fmt.Sprintf("child %+v: a read that waited: %s", *c, s)
			}
		default:
			if err := waitReadable(c.fd); err != nil {
				return fmt.Sprintf("child %+v: poll: %v", *c, err)
			}
			if s := readInfo(c.fd); s != "ok" {
				return fmt.Sprintf("child %+v: read: %s", *c, s)
			}
		}
		var want error
		if c.flags&linux.CLONE_AUTOREAP != 0 {
			want = unix.ECHILD
		}
		if _, err := unix.Wait4(c.pid, nil, unix.WALL, nil); err != want {
			return fmt.Sprintf("child %+v: wait4: %v, want %v", *c, err, want)
		}
	}
	var events [8]unix.EpollEvent
	// Each child has one event, which may come a moment after its exit can be read.
	for n := 0; n < 3; {
		more, err := unix.EpollWait(ep, events[:], 20_000)
		if more == 0 || err != nil && err != unix.EINTR {
			return fmt.Sprintf("%d of the descriptors have an event, %v, want 3", n, err)
		}
		n += max(more, 0)
	}
	if n, err := unix.EpollWait(ep, events[:], 0); n != 0 || err != nil {
		return fmt.Sprintf("%d of the descriptors have a second event, %v, want none", n, err)
	}
	if _, err := unix.Wait4(killed.pid, nil, unix.WALL, nil); err != unix.ECHILD {
		return fmt.Sprintf("the child that is killed on close: wait4: %v, want ECHILD", err)
	}
	for _, c := range children {
		unix.Close(c.fd)
	}
	return "ok"
}

// refused makes calls that must fail with EFAULT for the address of the descriptor, until
// standard input has a byte, and returns the result of the step. A caller that gets 0 behaves
// as the child: it exits with childStatus.
func refused() string {
	stop := make(chan struct{})
	go func() {
		fmt.Print(pausing)
		io.ReadFull(os.Stdin, make([]byte, 1))
		close(stop)
	}()
	p := rawclone.NewProgram()
	args := p.Word() // the first of the struct's consecutive words
	for range linux.SizeOfClone4FDArgs/8 - 1 {
		*p.Word() = 0
	}
	*rawclone.WordAt(args, 5) = 1
	calls := map[string]*rawclone.Op{}
	for name, flags := range map[string]uintptr{
		"VFORK":          linux.CLONE_VFORK | uintptr(unix.SIGCHLD),
		"VFORK|AUTOREAP": linux.CLONE_VFORK | linux.CLONE_AUTOREAP,
	} {
		call := rawclone.Sys(linux.SYS_CLONE4, 0, flags|linux.CLONE_FD|linux.CLONE_VM, linux.SizeOfClone4FDArgs, args)
		call.Child = p.List(rawclone.Sys(unix.SYS_EXIT_GROUP, childStatus))
		calls[name] = p.List(call)
	}
	for {
		for name, call := range calls {
			// The call returns EAGAIN if the child exited before it had a descriptor.
			if ret, errno := rawclone.Do(call); errno != unix.EFAULT && errno != unix.EAGAIN {
				return fmt.Sprintf("%s: clone4 returned %d, %s, want EFAULT or EAGAIN", name, int(ret), unix.ErrnoName(errno))
			}
		}
		if pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); err != unix.ECHILD {
			return fmt.Sprintf("wait4 returned %d, %v, want ECHILD: a call that failed left a child", pid, err)
		}
		select {
		case <-stop:
			return "ok"
		default:
		}
	}
}

// create creates the child. A child that must live during the pause reads from gate.
func (c *fdChild) create(gate int) unix.Errno {
	p := rawclone.NewProgram()
	child := p.NewList(3)
	child.Sys(unix.SYS_GETPID)
	if c.lives {
		child.Sys(unix.SYS_READ, gate, p.Word(), 1)
	}
	child.Exit(childStatus)
	args := p.Word() // the first of the struct's consecutive words
	for range linux.SizeOfClone4FDArgs/8 - 1 {
		p.Word()
	}
	fd := p.Word()
	*rawclone.WordAt(args, 5) = rawclone.Addr(fd)
	*rawclone.WordAt(args, 6) = uintptr(c.fdFlags)
	call := rawclone.Sys(linux.SYS_CLONE4, 0, c.flags|linux.CLONE_FD|uintptr(unix.SIGCHLD), linux.SizeOfClone4FDArgs, args)
	call.Child = child.First()
	pid, errno := rawclone.Do(p.List(call))
	c.pid, c.fd = int(pid), int(int32(*fd))
	return errno
}

// waitReadable waits until a descriptor can be read.
func waitReadable(fd int) error {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		switch n, err := unix.Poll(fds, 60_000); {
		case err == unix.EINTR:
		case err == nil && n != 1:
			return errors.New("not readable within a minute")
		default:
			return err
		}
	}
}

// readInfo reads how a child has exited. It returns "ok" or the problem.
func readInfo(fd int) string {
	var buf [linux.SizeOfClonefdInfo]byte
	n, err := unix.Read(fd, buf[:])
	for err == unix.EINTR {
		n, err = unix.Read(fd, buf[:])
	}
	const cldExited = 1
	if n != len(buf) || buf[0] != cldExited || buf[4] != childStatus {
		return fmt.Sprintf("%d, %v: %x", n, err, buf)
	}
	return "ok"
}
