// Command checkpointed is the program in a container that is checkpointed and
// restored. It takes its arguments one after the other:
//
//	pause      pauses
//	ABI        makes a child by clone4, called as ABI calls it
//	ABI,vfork  the same with CLONE_VFORK; it is the child that pauses
//	fd         makes children with CLONE_FD, pauses, and sees to their ends
//
// To pause is to print a line that says so and to read a byte from standard input.
// For each child there is a line that says what came of it.
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

// abis has the call of clone4 by each ABI.
var abis = map[string]rawclone.Op{
	runtime.GOARCH: {Trap: linux.SYS_CLONE4},
	"x32":          {Trap: linux.SYS_CLONE4_X32},
	"i386":         {Trap: linux.SYS_CLONE4_I386, Entry: rawclone.Int80},
}

// pausing is the line that says so. Its length is that of a word.
const pausing = "pausing\n"

// childStatus is the exit status of the children.
const childStatus = 42

func main() {
	for _, arg := range os.Args[1:] {
		if arg == "pause" {
			pause()
			continue
		}
		if arg == "fd" {
			fmt.Println(arg+":", withDescriptors())
			continue
		}
		abi, vfork := strings.CutSuffix(arg, ",vfork")
		fmt.Println(arg+":", makeChild(abis[abi], vfork))
	}
}

func pause() {
	fmt.Print(pausing)
	if _, err := io.ReadFull(os.Stdin, make([]byte, 1)); err != nil {
		fmt.Println("pause:", err)
	}
}

// makeChild makes a child by op and waits for its end. It returns "ok", or what
// was wrong.
func makeChild(op rawclone.Op, vfork bool) string {
	p := rawclone.NewProgram()
	text := p.Word()
	*text = uintptr(binary.LittleEndian.Uint64([]byte(pausing)))
	ops := []rawclone.Op{{Trap: unix.SYS_GETPID}}
	flags := uintptr(unix.SIGCHLD)
	if vfork {
		flags |= linux.CLONE_VFORK | linux.CLONE_VM
		ops = append(ops,
			rawclone.Op{Trap: unix.SYS_WRITE, Args: [6]uintptr{1, rawclone.Addr(text), uintptr(len(pausing))}},
			rawclone.Op{Trap: unix.SYS_READ, Args: [6]uintptr{0, rawclone.Addr(text), 1}},
		)
	}
	child := p.List(append(ops, rawclone.Op{Trap: unix.SYS_EXIT_GROUP, Args: [6]uintptr{childStatus}})...)
	op.Args[1], op.Child = flags, child

	pid, errno := rawclone.Do(p.List(op))
	if errno != 0 {
		return unix.ErrnoName(errno)
	}
	if read := rawclone.At(child, len(ops)-1).Ret; vfork && read != 1 {
		return fmt.Sprintf("went on while the child was in its pause, or its read returned %#x", read)
	}
	var ws unix.WaitStatus
	waited, err := unix.Wait4(int(pid), &ws, 0, nil)
	for err == unix.EINTR {
		waited, err = unix.Wait4(int(pid), &ws, 0, nil)
	}
	if err != nil || waited != int(pid) || child.Ret != pid || ws.ExitStatus() != childStatus {
		return fmt.Sprintf("clone4 returned %d, the child is %d; wait4 returned %d, %v, and the wait status is %#x", pid, child.Ret, waited, err, ws)
	}
	return "ok"
}

// withDescriptors makes children with CLONE_FD that are in each state that a pause can
// find one in, pauses, and checks that they end as if nothing had been. It returns
// "ok", or what was wrong.
func withDescriptors() string {
	// The children that live read from here.
	var gate [2]int
	if err := unix.Pipe2(gate[:], 0); err != nil {
		return err.Error()
	}
	newChild := func(flags uintptr, fdFlags uint32, lives bool) (pid, fd int, err error) {
		p := rawclone.NewProgram()
		word := p.Word()
		ops := []rawclone.Op{rawclone.Sys(unix.SYS_GETPID)}
		if lives {
			ops = append(ops, rawclone.Sys(unix.SYS_READ, gate[0], word, 1))
		}
		child := p.List(append(ops, rawclone.Sys(unix.SYS_EXIT_GROUP, childStatus))...)
		args := p.Word() // The first of the struct's words, which follow each other.
		for range linux.SizeOfClone4FDArgs/8 - 1 {
			*p.Word() = 0
		}
		fdAt := p.Word()
		*rawclone.WordAt(args, 5) = rawclone.Addr(fdAt)
		*rawclone.WordAt(args, 6) = uintptr(fdFlags)
		call := rawclone.Sys(linux.SYS_CLONE4, 0, flags|linux.CLONE_FD|uintptr(unix.SIGCHLD), linux.SizeOfClone4FDArgs, args)
		call.Child = child
		ret, errno := rawclone.Do(p.List(call))
		if errno != 0 {
			return 0, 0, errno
		}
		return int(ret), int(int32(*fdAt)), nil
	}
	type child struct {
		flags    uintptr
		fdFlags  uint32
		lives    bool
		pid, fd  int
		awaiting chan string
	}
	children := []*child{
		{flags: 0, lives: true},
		{flags: linux.CLONE_AUTOREAP, lives: true},
		{flags: linux.CLONE_AUTOREAP, lives: true, fdFlags: linux.CLONEFD_NONBLOCK},
		{flags: linux.CLONE_AUTOREAP, lives: true, fdFlags: linux.CLONEFD_KILL_ON_CLOSE},
		{flags: 0},
		{flags: linux.CLONE_AUTOREAP},
	}
	ep, err := unix.EpollCreate1(0)
	if err != nil {
		return err.Error()
	}
	for _, c := range children {
		if c.pid, c.fd, err = newChild(c.flags, c.fdFlags, c.lives); err != nil {
			return unix.ErrnoName(err.(unix.Errno))
		}
		if !c.lives {
			fds := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
			if n, err := unix.Poll(fds, 20_000); n != 1 {
				return fmt.Sprintf("before the pause, child %+v: poll returned %d, %v", *c, n, err)
			}
			continue
		}
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, c.fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET}); err != nil {
			return err.Error()
		}
		if c.fdFlags == 0 {
			// A read that the pause finds under way.
			c.awaiting = make(chan string, 1)
			go func() { c.awaiting <- readInfo(c.fd) }()
		}
	}

	pause()

	// Killed, not ended: that is seen by its not reading from the pipe.
	unix.Close(children[3].fd)
	for range 3 {
		unix.Write(gate[1], []byte{0})
	}
	for i, c := range children {
		switch {
		case i == 3:
			continue
		case c.awaiting != nil:
			if s := <-c.awaiting; s != "ok" {
				return fmt.Sprintf("child %+v: a read that waited: %s", *c, s)
			}
		default:
			fds := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
			if n, err := unix.Poll(fds, 20_000); n != 1 {
				return fmt.Sprintf("child %+v: poll returned %d, %v", *c, n, err)
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
	if n, err := unix.EpollWait(ep, events[:], 0); n != 3 || err != nil {
		return fmt.Sprintf("%d of the descriptors have an event, %v, want 3", n, err)
	}
	if _, err := unix.Wait4(children[3].pid, nil, unix.WALL, nil); err != unix.ECHILD {
		return fmt.Sprintf("the child that is killed on close: wait4: %v, want ECHILD", err)
	}
	for _, c := range children {
		unix.Close(c.fd)
	}
	return "ok"
}

// readInfo reads how a child has ended. It returns "ok", or what was wrong.
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
