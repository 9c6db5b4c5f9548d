// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// descriptors is an attack by tasks that share the descriptors of children, and use them in
// every way. The attack is a series of waves. A wave is a process with threads, and a child
// process with a descriptor table of its own. The attack kills a wave at a random moment.
func descriptors(r *run) error {
	d := newWave(r)
	for n := 0; r.goesOn(); n++ {
		if err := d.run(); err != nil {
			return fmt.Errorf("wave %d: %w", n, err)
		}
	}
	return nil
}

const (
	threadsOfWave = 6
	actsOfThread  = 40

	// waveTime is the time limit of a wave.
	waveTime = 60 * time.Millisecond

	// The sockets that descriptors are passed through. A socket that is passed through
	// itself is never closed, in stock gVisor too: no other act closes, duplicates or
	// passes these two.
	sender, receiver = 100, 101
)

// wave has the lists of a wave. The next wave uses the same memory.
type wave struct {
	r       *run
	program *rawclone.Program // of leader, leaves and slots
	leader  *rawclone.List
	threads []*rawclone.List // each in a program of its own
	leaves  []*rawclone.List // of children
	slots   []*rawclone.Op   // the Ret of each is a descriptor
	calls   []*rawclone.Op   // all clone4 calls
}

func newWave(r *run) *wave {
	w := &wave{r: r, program: rawclone.NewProgram()}
	for range threadsOfWave {
		w.threads = append(w.threads, rawclone.NewProgram().NewList(6*actsOfThread))
	}
	return w
}

// run runs one wave.
func (w *wave) run() error {
	w.prepare()
	pid, errno := w.leader.Start(kit.SIGCHLD)
	if errno != 0 {
		return fmt.Errorf("creating the process of a wave: %w", errno)
	}
	over := time.Now().Add(time.Duration(w.r.rng.Int64N(int64(2 * waveTime))))
	if latest := time.Now().Add(waveTime); over.After(latest) {
		over = latest
	}
	for time.Now().Before(over) {
		if got, err := unix.Wait4(pid, nil, unix.WALL|unix.WNOHANG, nil); got == pid || err == unix.ECHILD {
			break
		}
		time.Sleep(200 * time.Microsecond)
	}
	if err := killAll(); err != nil {
		return err
	}
	for _, call := range w.calls {
		switch ret := int(call.Ret); {
		case ret == notWritten: // The call was not made.
		case ret > 0:
			w.r.out.Made++
		default:
			w.r.out.Failed++
		}
	}
	return nil
}

// prepare writes the lists of a wave.
func (w *wave) prepare() {
	w.program.Reset()
	w.calls, w.leaves, w.slots = nil, nil, nil
	for range 12 {
		// poll uses a slot as a struct pollfd: at first an invalid descriptor, with POLLIN.
		w.slots = append(w.slots, w.program.NewList(1).Append(rawclone.Op{Ret: unix.POLLIN<<32 | 0xdeadbeef}))
	}
	for i := range 16 {
		w.leaves = append(w.leaves, w.leaf(i))
	}
	for _, l := range w.threads {
		l.Program().Reset()
	}
	for i := range w.threads {
		w.threads[i] = w.threads[i].Program().NewList(6 * actsOfThread)
		for range actsOfThread {
			w.act(w.threads[i])
		}
		w.threads[i].ExitTask(0)
	}

	l := w.program.NewList(32)
	w.leader = l
	if w.r.oneIn(2) {
		// CLONEFD_KILL_ON_CLOSE needs no_new_privs.
		l.Sys(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	// The wave must not use the guest's own descriptors. Among them is an epoll instance, which
	// the guest would share with the wave.
	l.Sys(unix.SYS_CLOSE_RANGE, 3, 1<<31-1, 0)
	pair := w.program.Buffer(8)
	l.Sys(unix.SYS_SOCKETPAIR, unix.AF_UNIX, unix.SOCK_DGRAM, 0, pair)
	for i, fd := range []int{sender, receiver} {
		one := l.Sys(rawclone.TrapLoad, rawclone.AddrOf(pair)+uintptr(4*i))
		l.Sys(unix.SYS_DUP3, one, fd, 0)
		l.Sys(unix.SYS_CLOSE, one)
	}
	for i, thread := range w.threads {
		flags := uint64(kit.ThreadFlags)
		if i == 0 {
			flags = linux.CLONE_VM | kit.SIGCHLD // a process with its own descriptor table
		}
		l.Clone(flags, thread)
	}
	switch w.r.rng.IntN(4) {
	case 0:
		w.exec(l)
	case 1:
		l.Exit(0)
	}
	l.ExitTask(0)
}

// leaf returns the list of a child.
func (w *wave) leaf(i int) *rawclone.List {
	l := w.program.NewList(3*6 + 2)
	switch i % 6 {
	case 0:
	case 4, 5:
		// The child sleeps first, so that tasks use its descriptor before the exit.
		timeout := l.Program().Buffer(16)
		*word(timeout, 1) = uintptr(w.r.rng.IntN(3_000_000))
		l.Sys(unix.SYS_PPOLL, 0, 0, timeout, 0, 0)
	case 1:
		kit.Forever(l)
	case 2:
		l.Sys(unix.SYS_SCHED_YIELD)
		for range 3 {
			w.use(l)
		}
	case 3:
		if w.r.oneIn(8) {
			w.exec(l)
		}
		l.Sys(unix.SYS_CLOSE_RANGE, 3, sender-1, 0)
	}
	l.ExitTask(0)
	return l
}

// exec appends the execution of a program that exits at once.
func (w *wave) exec(l *rawclone.List) {
	p := l.Program()
	argv := p.Buffer(4 * 8)
	*word(argv, 0) = p.Path("guest")
	*word(argv, 1), *word(argv, 2) = p.Path("-guest"), p.Path("exit")
	l.Sys(unix.SYS_EXECVE, p.Path("/proc/self/exe"), argv, argv[3*8:])
}

// slot returns a random slot.
func (w *wave) slot() *rawclone.Op { return pick(w.r, w.slots) }

// keep appends an operation that stores a result, a descriptor, in a random slot.
func (w *wave) keep(l *rawclone.List, result *rawclone.Op) {
	l.Sys(rawclone.TrapStore, rawclone.Addr(&w.slot().Ret), result)
}

// act appends a clone4 call, or a use of a descriptor.
func (w *wave) act(l *rawclone.List) {
	if !w.r.oneIn(5) {
		w.use(l)
		return
	}
	flags := linux.CLONE_FD | linux.CLONE_VM | pick(w.r, []uint64{0, kit.SIGCHLD, uint64(unix.SIGIO)})
	for _, f := range []uint64{linux.CLONE_AUTOREAP, linux.CLONE_FILES, linux.CLONE_PARENT, linux.CLONE_VFORK} {
		if w.r.oneIn(4) {
			flags |= f
		}
	}
	args := linux.Clone4FDArgs{Clonefd: uint64(rawclone.Addr(&w.slot().Ret))}
	for _, f := range []uint32{linux.CLONEFD_CLOEXEC, linux.CLONEFD_NONBLOCK, linux.CLONEFD_NONBLOCK, linux.CLONEFD_KILL_ON_CLOSE} {
		if w.r.oneIn(2) {
			args.ClonefdFlags |= f
		}
	}
	if w.r.oneIn(16) {
		args.Clonefd = 8 // EFAULT, after the descriptor has entered the table
	}
	abi := pick(w.r, kit.ABIs())
	ptr := rawclone.AddrOf(kit.Put(l, abi.EncodeFD(args)))
	call := abi.Clone4Raw(l, flags, abi.FDSize(), ptr, pick(w.r, w.leaves))
	call.Ret = notWritten
	w.calls = append(w.calls, call)
}

// use appends operations on a random descriptor.
func (w *wave) use(l *rawclone.List) {
	const fioasync, fionbio, fSetsig = 0x5452, 0x5421, 10
	fd, p := w.slot(), l.Program()
	switch w.r.rng.IntN(24) {
	case 0, 1:
		l.Sys(unix.SYS_READ, fd, p.Buffer(linux.SizeOfClonefdInfo), w.r.rng.IntN(linux.SizeOfClonefdInfo+1))
	case 2:
		l.Sys(unix.SYS_PPOLL, rawclone.Addr(&fd.Ret), 1, p.Buffer(16), 0, 0)
	case 3:
		timeout := p.Buffer(16)
		*word(timeout, 1) = uintptr(time.Millisecond)
		l.Sys(unix.SYS_PPOLL, rawclone.Addr(&fd.Ret), 1, timeout, 0, 0)
	case 4, 5:
		l.Sys(unix.SYS_CLOSE, fd)
	case 6:
		w.keep(l, l.Sys(unix.SYS_DUP, fd))
	case 7:
		l.Sys(unix.SYS_DUP3, fd, w.slot(), pick(w.r, []int{0, unix.O_CLOEXEC}))
	case 8, 9:
		w.send(l, fd)
	case 10, 11:
		w.receive(l)
	case 12:
		w.watch(l, fd)
	case 13, 14:
		l.Sys(unix.SYS_EPOLL_CTL, w.slot(), 1+w.r.rng.IntN(3), fd, w.event(p))
	case 15:
		l.Sys(unix.SYS_EPOLL_PWAIT, fd, p.Buffer(4*16), 4, w.r.rng.IntN(2), 0, 8)
	case 16:
		l.Sys(unix.SYS_FCNTL, fd, unix.F_SETOWN, l.Sys(unix.SYS_GETPID))
		l.Sys(unix.SYS_FCNTL, fd, fSetsig, w.r.rng.IntN(66))
	case 17:
		l.Sys(unix.SYS_FCNTL, fd, unix.F_SETFL, pick(w.r, []int{unix.O_ASYNC, unix.O_ASYNC | unix.O_NONBLOCK, unix.O_NONBLOCK, unix.O_NONBLOCK}))
	case 18:
		on := p.Buffer(8)
		*word(on, 0) = uintptr(w.r.rng.IntN(2))
		l.Sys(unix.SYS_IOCTL, fd, pick(w.r, []int{fioasync, fionbio}), on)
	case 19:
		l.Sys(unix.SYS_IOCTL, fd, pick(w.r, []int{linux.CLONEFD_IOC_GETTID, linux.CLONEFD_IOC_GETPID}), 0)
	case 20, 21:
		sig := p.Buffer(1)
		sig[0] = byte(pick(w.r, []unix.Signal{0, unix.SIGSTOP, unix.SIGCONT, unix.SIGKILL, unix.SIGKILL, unix.SIGIO, 64, 65}))
		l.Sys(unix.SYS_WRITE, fd, sig, len(sig))
	case 22:
		l.Sys(unix.SYS_WAIT4, -1, 0, unix.WNOHANG|unix.WALL, 0)
	case 23:
		w.misuse(l, fd)
	}
}

// watch appends operations that create an epoll instance, which watches a descriptor. Some
// instances send a signal (O_ASYNC) when the child exits.
func (w *wave) watch(l *rawclone.List, fd *rawclone.Op) {
	set := l.Sys(unix.SYS_EPOLL_CREATE1, 0)
	l.Sys(unix.SYS_EPOLL_CTL, set, unix.EPOLL_CTL_ADD, fd, w.event(l.Program()))
	if w.r.oneIn(2) {
		l.Sys(unix.SYS_FCNTL, set, unix.F_SETOWN, l.Sys(unix.SYS_GETPID))
		l.Sys(unix.SYS_FCNTL, set, unix.F_SETFL, unix.O_ASYNC)
	}
	w.keep(l, set)
}

// event returns a random struct epoll_event.
func (w *wave) event(p *rawclone.Program) []byte {
	event := p.Buffer(16)
	*word(event, 0) = pick(w.r, []uintptr{unix.EPOLLIN, unix.EPOLLIN | unix.EPOLLET, unix.EPOLLIN | unix.EPOLLONESHOT, 0})
	return event
}

// send appends a sendmsg that passes a descriptor.
func (w *wave) send(l *rawclone.List, fd *rawclone.Op) {
	msg, control := message(l.Program())
	l.Sys(rawclone.TrapStore, control, fd)
	l.Sys(unix.SYS_SENDMSG, sender, msg, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// receive appends a recvmsg, and keeps the descriptor that recvmsg returns.
func (w *wave) receive(l *rawclone.List) {
	msg, control := message(l.Program())
	*control = 0xdeadbeef // remains if recvmsg returns no descriptor
	l.Sys(unix.SYS_RECVMSG, receiver, msg, unix.MSG_DONTWAIT|pick(w.r, []int{0, unix.MSG_CMSG_CLOEXEC}))
	w.keep(l, l.Sys(rawclone.TrapLoad, control))
}

// message returns a struct msghdr for one byte and one descriptor, and the word with the
// descriptor.
func message(p *rawclone.Program) (msg []byte, fd *uintptr) {
	iov, control := p.Buffer(16), p.Buffer(unix.CmsgSpace(4))
	*word(iov, 0), *word(iov, 1) = rawclone.AddrOf(p.Buffer(1)), 1
	*word(control, 0) = uintptr(unix.CmsgLen(4))
	*word(control, 1) = unix.SCM_RIGHTS<<32 | unix.SOL_SOCKET
	msg = p.Buffer(unix.SizeofMsghdr)
	*word(msg, 2), *word(msg, 3) = rawclone.AddrOf(iov), 1
	*word(msg, 4), *word(msg, 5) = rawclone.AddrOf(control), uintptr(len(control))
	return msg, word(control, 2)
}

// misuse appends a call that the descriptor of a child does not support, or a change of the
// whole descriptor table.
func (w *wave) misuse(l *rawclone.List, fd *rawclone.Op) {
	p := l.Program()
	switch w.r.rng.IntN(8) {
	case 0:
		l.Sys(unix.SYS_FSTAT, fd, p.Buffer(256))
	case 1:
		l.Sys(unix.SYS_PREAD64, fd, p.Buffer(8), 8, 0)
	case 2:
		l.Sys(unix.SYS_LSEEK, fd, 0, 0)
	case 3:
		l.Sys(unix.SYS_MMAP, 0, 4096, unix.PROT_READ, unix.MAP_SHARED, fd, 0)
	case 4:
		l.Sys(unix.SYS_FLOCK, fd, unix.LOCK_EX|unix.LOCK_NB)
	case 5:
		l.Sys(unix.SYS_SPLICE, fd, 0, sender, 0, 8, unix.SPLICE_F_NONBLOCK)
	case 6:
		l.Sys(unix.SYS_UNSHARE, linux.CLONE_FILES)
	case 7:
		l.Sys(unix.SYS_CLOSE_RANGE, 3, sender-1, 0)
	}
}
