// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// recorder makes calls and records their outcomes.
//
// A new process, the caller, makes the call by a script of raw system calls. Its parent, the
// grandparent, is a new process too, and sees what a child of CLONE_PARENT does.
type recorder struct {
	p                                           *rawclone.Program // used again for each call
	grandparent, leader, caller, success, child *rawclone.List    // success is the script of the caller after a successful call

	private  []byte // one page
	readOnly []byte // one page
	atEnd    []byte // one page, followed by an unreadable page
	argsEnd  []byte // like atEnd, for the args struct
	older    bool   // call clone(2) instead
}

const (
	// pattern is the value, in both halves, of a word to which clone4 may write an ID.
	pattern = 0x5a5a5a5a

	// Descriptors of a pipe, of a program that children execute and that writes to
	// the pipe, and of a file that children open.
	readFD, writeFD, execFD, dupFD = 96, 97, 98, 99

	status       = 13 // exit status of a child
	callerStatus = 3
)

// Offsets in the private page.
const (
	offMemory    = 0
	offTLS       = 64
	offPtid      = 256
	offCtid      = 512
	offUnaligned = 3 // from offsets of the latter two
)

var namespaceKinds = []struct {
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

func newRecorder() (*recorder, error) {
	r := &recorder{p: rawclone.NewProgram()}
	page := unix.Getpagesize()
	// A process with its own memory has a copy of each mapping. The order matters: with other
	// neighbors, gVisor writes an ID to the read-only page after a fork.
	for _, m := range []struct {
		mem   *[]byte
		pages int
	}{{&r.private, 1}, {&r.readOnly, 1}, {&r.atEnd, 2}, {&r.argsEnd, 2}} {
		var err error
		if *m.mem, err = rawclone.Map(-1, m.pages*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE); err != nil {
			return nil, fmt.Errorf("mmap: %w", err)
		}
	}
	fill(r.readOnly)
	fill(r.atEnd)
	for _, protect := range []struct {
		mem  []byte
		prot int
	}{{r.readOnly, unix.PROT_READ}, {r.atEnd[page:], unix.PROT_NONE}, {r.argsEnd[page:], unix.PROT_NONE}} {
		if err := unix.Mprotect(protect.mem, protect.prot); err != nil {
			return nil, fmt.Errorf("mprotect: %w", err)
		}
	}
	// A process that outlives its parent becomes a child of this process.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("prctl(PR_SET_CHILD_SUBREAPER): %w", err)
	}
	return r, r.makeProgram()
}

func fill(mem []byte) {
	for i := range mem {
		mem[i] = pattern & 0xff
	}
}

// makeProgram creates a small program at execFD, and the pipe to which it writes.
func (r *recorder) makeProgram() error {
	const base, head = 0x10000000, 64 + 56
	elf := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	le := binary.LittleEndian
	elf = le.AppendUint16(elf, 2) // ET_EXEC
	elf = le.AppendUint16(elf, elfMachine)
	elf = le.AppendUint32(elf, 1)
	for _, v := range []uint64{base + head, 64, 0} { // entry, program headers, sections
		elf = le.AppendUint64(elf, v)
	}
	elf = le.AppendUint32(elf, 0)
	for _, v := range []uint16{64, 56, 1, 0, 0, 0} {
		elf = le.AppendUint16(elf, v)
	}
	elf = le.AppendUint32(elf, 1) // PT_LOAD
	elf = le.AppendUint32(elf, 5) // PF_R | PF_X
	size := uint64(head + len(program))
	for _, v := range []uint64{0, base, base, size, size, 0x1000} {
		elf = le.AppendUint64(elf, v)
	}
	elf = append(elf, program...)

	fd, err := unix.MemfdCreate("exit", 0)
	if err != nil {
		return fmt.Errorf("memfd_create: %w", err)
	}
	if _, err := unix.Write(fd, elf); err != nil {
		return fmt.Errorf("writing a program: %w", err)
	}
	if err := unix.Fchmod(fd, 0o755); err != nil {
		return fmt.Errorf("fchmod: %w", err)
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("pipe2: %w", err)
	}
	for to, from := range map[int]int{execFD: fd, readFD: pipe[0], writeFD: pipe[1]} {
		if err := unix.Dup3(from, to, 0); err != nil {
			return fmt.Errorf("dup3: %w", err)
		}
	}
	return nil
}

// view appends a load of the word at a place for an ID. The function that it returns describes
// the word afterwards.
func (r *recorder) view(l *rawclone.List, at uint64, where place) func(known map[uint64]string) string {
	switch where {
	case atPrivate, atShared, atUnaligned, atReadOnly:
	case atStraddling:
		at -= 6 // the last word of the page
	default:
		return func(map[uint64]string) string { return "-" }
	}
	o := l.Sys(rawclone.TrapLoad, uintptr(at))
	return func(known map[uint64]string) string {
		v := uint64(o.Ret)
		if v == pattern<<32|pattern {
			return "kept"
		}
		if where == atStraddling || v>>32 != pattern {
			return fmt.Sprintf("%#x", v)
		}
		v = uint64(uint32(v))
		if v == 0 {
			return "0"
		}
		return name(known, v)
	}
}

// name returns the name of a value in an outcome.
func name(of map[uint64]string, v uint64) string {
	if s, ok := of[v]; ok {
		return s
	}
	return "other"
}

// identity is what a task knows about itself.
type identity struct {
	pid, tid, ppid, uid, sp *rawclone.Op
	tls                     func() uintptr
	links                   [][]byte
}

func (r *recorder) identify(l *rawclone.List) *identity {
	id := &identity{
		sp:   l.Sys(rawclone.TrapSP),
		tls:  kit.ThreadPointer(l),
		pid:  l.Sys(unix.SYS_GETPID),
		tid:  l.Sys(unix.SYS_GETTID),
		ppid: l.Sys(unix.SYS_GETPPID),
		uid:  l.Sys(unix.SYS_GETUID),
	}
	for _, kind := range namespaceKinds {
		link := r.p.Buffer(64)
		l.Sys(unix.SYS_READLINKAT, unix.AT_FDCWD, r.p.Path("/proc/thread-self/ns/"+kind.name), link, len(link))
		id.links = append(id.links, link)
	}
	return id
}

// newNamespaces returns the namespaces of id that differ from those of old.
func (id *identity) newNamespaces(old *identity) string {
	var names []string
	for i, kind := range namespaceKinds {
		switch {
		case id.links[i][0] == 0 || old.links[i][0] == 0:
			names = append(names, kind.name+"?")
		case !bytes.Equal(id.links[i], old.links[i]):
			names = append(names, kind.name)
		}
	}
	return join(names)
}

func join(names []string) string {
	if names == nil {
		return "none"
	}
	return strings.Join(names, ",")
}

// pointer returns the address of a place.
func (r *recorder) pointer(where place, offset int, shared []byte) uint64 {
	page := unix.Getpagesize()
	switch where {
	case atPrivate:
		return uint64(rawclone.AddrOf(r.private[offset:]))
	case atUnaligned:
		return uint64(rawclone.AddrOf(r.private[offset+offUnaligned:]))
	case atShared:
		return uint64(rawclone.AddrOf(shared))
	case atGarbage:
		return uint64(rawclone.AddrOf(shared)) | 0xdeadbeef<<32
	case atStraddling:
		return uint64(rawclone.AddrOf(r.atEnd[page-2:]))
	case atReadOnly:
		return uint64(rawclone.AddrOf(r.readOnly[offset:]))
	case atUnreadable:
		return uint64(rawclone.AddrOf(r.atEnd[page:])) + uint64(offset)
	}
	v, ok := badAddresses[where]
	if !ok {
		panic("no such place: " + where)
	}
	return v
}

// record makes a call and returns its outcome.
func (r *recorder) record(c *call) (string, error) {
	s := r.set(c)
	pid, e := r.grandparent.Start(kit.SIGCHLD)
	if e != 0 {
		return "", fmt.Errorf("creating a process: %w", e)
	}
	orphans, ws, err := reapAll(pid)
	if err != nil {
		return "", err
	}
	var drained [16]byte
	unix.Read(readFD, drained[:]) // empty unless a child executed the program
	return s.outcome(ws, orphans), nil
}

// scene is a call with its scripts before the call, and with their results after it.
type scene struct {
	*recorder
	c              *call
	args           linux.Clone4Args
	passed         linux.Clone4Args // the args that reach the kernel
	encoded        []byte           // args
	argsAt         uint64           // address of args
	long, short    *uintptr         // durations
	patience       *uintptr         // how long caller and child wait for each other
	ready, proceed *uintptr         // set by the child, and by the caller
	done           *uintptr         // set by the child before it exits

	childIs, callerIs     *identity
	childSees             ids
	proceeded             *rawclone.Op
	made                  *rawclone.Op // the call itself
	succeeded, failed     *after
	started               *rawclone.Op // the caller
	ended                 waited       // the caller
	sibling, cloneSibling waited       // of the caller
	pending               *uintptr     // pending signals of the grandparent
}

// ids are loads of *ptid and *ctid.
type ids [2]func(known map[uint64]string) string

// set writes the scripts for a call.
func (r *recorder) set(c *call) *scene {
	r.p.Reset()
	r.grandparent, r.leader = r.p.NewList(32), r.p.NewList(16)
	r.caller, r.success, r.child = r.p.NewList(64), r.p.NewList(64), r.p.NewList(64)
	s := &scene{recorder: r, c: c}
	s.setArgs()
	s.ready, s.proceed, s.done = r.p.Word(), r.p.Word(), r.p.Word()
	s.long, s.short = s.duration(30*time.Second), s.duration(10*time.Millisecond)
	s.patience = s.long
	if c.has(linux.CLONE_VFORK) {
		// The caller runs after the child, so it cannot let the child proceed.
		s.patience = s.short
	}
	s.setChild()
	s.setCaller()
	s.setGrandparent()
	return s
}

// setArgs fills the memory that the call reads and writes.
func (s *scene) setArgs() {
	c, page := s.c, unix.Getpagesize()
	fill(s.private)
	*rawclone.WordOf(s.private[offMemory:]) = 0
	sharedP, sharedC := s.p.Buffer(8), s.p.Buffer(8)
	fill(sharedP)
	fill(sharedC)
	s.args = linux.Clone4Args{
		Ptid:       s.pointer(c.ptid, offPtid, sharedP),
		StackStart: stacks[c.stack],
		StackSize:  c.length,
		TLS:        threadPointers[c.tls],
	}
	s.args.Ctid = s.args.Ptid
	if c.ctid != atPtid {
		s.args.Ctid = s.pointer(c.ctid, offCtid, sharedC)
	}
	if strings.HasPrefix(c.stack, "given") {
		s.args.StackStart += uint64(rawclone.AddrOf(s.private)) + uint64(len(s.private)) - 64
	}
	if c.tls == "given" {
		s.args.TLS = uint64(rawclone.AddrOf(s.private[offTLS:]))
	}
	s.passed = c.passed(s.args)
	s.encoded = c.abi.Encode(s.args)
	if c.args == atPageEnd {
		begin := page - int(min(c.effectiveSize(), uint64(len(s.encoded)))) + c.beyond
		copy(s.argsEnd[begin:page], s.encoded)
		s.argsAt = uint64(rawclone.AddrOf(s.argsEnd)) + uint64(begin)
	} else {
		shared := s.p.Buffer(len(s.encoded))
		copy(shared, s.encoded)
		s.argsAt = s.pointer(c.args, 0, shared)
	}
}

// duration returns a struct timespec.
func (s *scene) duration(d time.Duration) *uintptr {
	buf := s.p.Buffer(16)
	*rawclone.WordOf(buf), *rawclone.WordOf(buf[8:]) = uintptr(d/time.Second), uintptr(d%time.Second)
	return rawclone.WordOf(buf)
}

// see appends loads of *ptid and *ctid.
func (s *scene) see(l *rawclone.List) ids {
	return ids{s.view(l, s.args.Ptid, s.c.ptid), s.view(l, s.args.Ctid, s.c.ctidPlace())}
}

// setChild writes the script of the child. The child records its identity, changes what it may
// share, waits until the caller has looked for the changes, and exits.
func (s *scene) setChild() {
	l := s.child
	s.childIs = s.identify(l)
	s.childSees = s.see(l)
	l.Sys(rawclone.TrapStore, rawclone.AddrOf(s.private[offMemory:]), 1)
	l.Sys(unix.SYS_DUP3, 1, dupFD, 0)
	l.Sys(unix.SYS_CHDIR, s.p.Path("/proc"))
	ignore := s.p.Buffer(32)
	*rawclone.WordOf(ignore) = 1 // SIG_IGN
	l.Sys(unix.SYS_RT_SIGACTION, int(unix.SIGUSR2), ignore, 0, 8)
	tell(l, s.ready)
	await(l, s.proceed, 0, s.patience)
	s.proceeded = l.Sys(rawclone.TrapLoad, s.proceed)
	tell(l, s.done)
	switch s.c.end {
	case endKill:
		l.Sys(unix.SYS_KILL, s.childIs.pid, int(unix.SIGKILL))
	case endExec:
		l.Sys(unix.SYS_EXECVEAT, execFD, s.p.Path(""), 0, 0, unix.AT_EMPTY_PATH)
		l.Sys(unix.SYS_WRITE, writeFD, s.p.Path(""), 1)
	case endTask:
		l.Sys(unix.SYS_EXIT, status)
	}
	l.Sys(unix.SYS_EXIT_GROUP, status)
}

// setCaller writes the script of the caller.
func (s *scene) setCaller() {
	c, l := s.c, s.caller
	if c.uid != 0 {
		l.Sys(unix.SYS_SETRESUID, c.uid, c.uid, c.uid)
	}
	l.Sys(unix.SYS_CHDIR, s.p.Path("/"))
	s.callerIs = s.identify(l)
	call := rawclone.Op{
		Trap:  c.abi.Number | uintptr(c.number),
		Entry: c.abi.Entry,
		Args:  [6]uintptr{uintptr(c.flags>>32 | c.upper), uintptr(c.flags&0xffffffff | c.upper), uintptr(c.size), uintptr(s.argsAt)},
		Child: s.child.First(),
	}
	if s.older {
		call = rawclone.Op{Trap: unix.SYS_CLONE, Args: kit.CloneArgs(c.flags, s.passed), Child: s.child.First()}
	}
	s.made = l.Append(call)
	if c.has(linux.CLONE_VFORK) && (c.has(linux.CLONE_THREAD) || reapsItself(c)) {
		// The child has exited and has been reaped.
		s.succeeded = s.look(l, true)
		s.failed = s.succeeded
		return
	}
	// sched_getscheduler returns 0 for an existing task, even for a zombie, and an operation
	// with result 0 continues in its Child. So the caller continues in success if the call
	// succeeded. After a failed call there is nothing to wait for.
	l.Append(rawclone.Op{Trap: unix.SYS_SCHED_GETSCHEDULER, Args: [6]uintptr{rawclone.Addr(&s.made.Ret)}, Deref: 1, Child: s.success.First()})
	s.failed = s.look(l, false)
	s.succeeded = s.look(s.success, true)
}

// after has the results of the caller after the call.
type after struct {
	live, final   ids
	ready, done   *rawclone.Op
	cleared       *rawclone.Op // nil if the caller does not wait for this
	plain, clone  waited
	left          waited
	info          []byte
	first, second *rawclone.Op // signals
	memory, files *rawclone.Op
	cwd, action   []byte
}

// look writes the script of the caller from the call to its exit.
func (s *scene) look(l *rawclone.List, succeeded bool) *after {
	var a after
	if succeeded {
		a.ready = await(l, s.ready, 0, s.patience)
		a.live = s.see(l)
		tell(l, s.proceed)
		a.done = await(l, s.done, 0, s.patience)
		s.awaitEnd(l, &a)
	}
	a.plain = wait(l, s.made, 0)
	a.clone = wait(l, s.made, unix.WCLONE)
	all := s.p.Word()
	*all = ^uintptr(0)
	a.info = s.p.Buffer(128)
	now := s.duration(0)
	a.first = l.Sys(unix.SYS_RT_SIGTIMEDWAIT, all, a.info, now, 8)
	a.second = l.Sys(unix.SYS_RT_SIGTIMEDWAIT, all, 0, now, 8)
	a.left = wait(l, -1, unix.WALL)
	a.final = s.see(l)
	a.memory = l.Sys(rawclone.TrapLoad, rawclone.AddrOf(s.private[offMemory:]))
	a.files = l.Sys(unix.SYS_FCNTL, dupFD, unix.F_GETFD)
	a.cwd = s.p.Buffer(64)
	l.Sys(unix.SYS_GETCWD, a.cwd, len(a.cwd))
	a.action = s.p.Buffer(32)
	l.Sys(unix.SYS_RT_SIGACTION, int(unix.SIGUSR2), 0, a.action, 8)
	l.Sys(unix.SYS_EXIT_GROUP, callerStatus)
	return &a
}

// awaitEnd writes waits for the exit of a child for which no wait4 can wait.
func (s *scene) awaitEnd(l *rawclone.List, a *after) {
	c := s.c
	if c.end == endExec {
		// execve makes SIGCHLD the exit signal of the child, which decides which
		// wait call sees it.
		poll := s.p.Word()
		*poll = readFD | unix.POLLIN<<32 // struct pollfd
		l.Sys(unix.SYS_PPOLL, poll, 1, s.long, 0, 0)
	}
	at := c.ctidPlace()
	if c.has(linux.CLONE_CHILD_CLEARTID|linux.CLONE_VM) && !c.has(linux.CLONE_VFORK) && c.end != endKill && c.end != endExec &&
		s.passed.Ctid == s.args.Ctid && (at == atPrivate || at == atShared) {
		// The value of *ctid before it is cleared.
		var before any = pattern
		switch {
		case c.has(linux.CLONE_CHILD_SETTID):
			before = s.childIs.tid
		case c.has(linux.CLONE_PARENT_SETTID) && s.passed.Ptid == s.passed.Ctid:
			before = s.made
		}
		a.cleared = l.Sys(unix.SYS_FUTEX, uintptr(s.args.Ctid), 0 /* FUTEX_WAIT */, before, s.long)
	}
}

// setGrandparent writes the script of the caller's parent. If the caller is a thread, it also
// writes the script of the leader of the caller's process.
func (s *scene) setGrandparent() {
	l, first, flags := s.grandparent, s.caller, uint64(s.c.exits)
	switch s.c.caller {
	case callerThread:
		first = s.leader
		first.Clone(kit.ThreadFlags, s.caller)
		await(first, s.p.Word(), 0, s.duration(time.Hour))
	case callerVfork:
		flags |= linux.CLONE_VM | linux.CLONE_VFORK
	case callerInit:
		flags |= linux.CLONE_NEWPID
	}
	s.started = l.Clone(flags, first)
	s.ended = wait(l, s.started, unix.WALL)
	s.sibling = wait(l, -1, 0)
	s.cloneSibling = wait(l, -1, unix.WCLONE)
	s.pending = s.p.Word()
	l.Sys(unix.SYS_RT_SIGPENDING, s.pending, 8)
	l.Sys(unix.SYS_EXIT_GROUP, 0)
}

// outcome describes the results, the wait status of the grandparent, and the number of processes
// that outlived it.
func (s *scene) outcome(ws unix.WaitStatus, orphans int) string {
	var b strings.Builder
	field := func(key, format string, args ...any) {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, key+"="+format, args...)
	}
	ret := uint64(s.made.Ret)
	childIs, callerIs, result := s.childIs, s.callerIs, s.succeeded
	tids := map[uint64]string{uint64(childIs.tid.Ret): "own", ret: "ret"}
	uids := map[uint64]string{65534: "overflow", uint64(callerIs.uid.Ret): "callers"}
	// This is the ID in the grandparent's PID namespace, which matters only for
	// a child of CLONE_PARENT.
	pids := map[uint64]string{ret: "ret", uint64(s.started.Ret): "caller"}
	if e := s.made.Errno(); e != 0 {
		result = s.failed
		field("errno", "%s", unix.ErrnoName(e))
	} else {
		field("errno", "0")
		switch {
		case *s.done == 0:
			field("child", "lost")
		case s.proceeded.Ret == 0:
			field("first", "child")
		default:
			field("first", "parent")
		}
		childKnows := map[uint64]string{0: "0", 1: "1", uint64(callerIs.pid.Ret): "callers", ret: "ret"}
		field("pid", "%s", name(childKnows, uint64(childIs.pid.Ret)))
		field("tid", "%s", name(childKnows, uint64(childIs.tid.Ret)))
		field("ppid", "%s", name(map[uint64]string{0: "0", uint64(callerIs.ppid.Ret): "callers", uint64(callerIs.pid.Ret): "caller"}, uint64(childIs.ppid.Ret)))
		field("uid", "%s", name(uids, uint64(childIs.uid.Ret)))
		field("sp", "%s", name(map[uint64]string{uint64(callerIs.sp.Ret): "callers", s.passed.StackStart: "given"}, uint64(childIs.sp.Ret)))
		tls := map[uint64]string{uint64(callerIs.tls()): "callers"}
		if s.c.has(linux.CLONE_SETTLS) {
			tls[s.passed.TLS] = "given" // may be equal to another value
		}
		field("tls", "%s", name(tls, uint64(childIs.tls())))
		field("new", "%s", childIs.newNamespaces(callerIs))
		field("child-ptid", "%s", s.childSees[0](tids))
		field("child-ctid", "%s", s.childSees[1](tids))
		field("live-ptid", "%s", result.live[0](tids))
		field("live-ctid", "%s", result.live[1](tids))
		if result.cleared != nil {
			switch e := result.cleared.Errno(); e {
			case 0, unix.EAGAIN: // woken, or cleared before the wait
				field("clear", "told")
			default:
				field("clear", "%s", unix.ErrnoName(e))
			}
		}
		for _, o := range []*rawclone.Op{result.ready, result.done} {
			if o.Errno() == unix.ETIMEDOUT {
				field("wait", "timeout")
			}
		}
	}
	field("final-ptid", "%s", result.final[0](tids))
	field("final-ctid", "%s", result.final[1](tids))
	field("shared", "%s", result.shared())
	field("plain", "%s", result.plain.describe(tids))
	field("clone", "%s", result.clone.describe(tids))
	field("left", "%s", result.left.describe(tids))
	if result.first.Errno() == 0 {
		i := kit.SiginfoOf(result.info)
		field("signal", "%d,code=%d,pid=%s,uid=%s,status=%d", i.Signo, i.Code, name(tids, uint64(i.PID)), name(uids, uint64(i.UID)), i.Status)
	} else {
		field("signal", "none")
	}
	if result.second.Errno() == 0 {
		field("second-signal", "%d", result.second.Ret)
	}
	field("caller", "%s", s.ended.describe(pids))
	field("sibling", "%s", s.sibling.describe(pids))
	field("clone-sibling", "%s", s.cloneSibling.describe(pids))
	field("pending", "%#x", *s.pending)
	if ws != 0 {
		field("grandparent", "%#x", uint32(ws))
	}
	if orphans != 0 {
		field("orphans", "%d", orphans)
	}
	return b.String()
}

// shared returns the changes of the child that the caller sees.
func (a *after) shared() string {
	var names []string
	for _, s := range []struct {
		name string
		is   bool
	}{
		{"memory", a.memory.Ret == 1},
		{"files", a.files.Errno() == 0},
		{"cwd", strings.HasPrefix(string(a.cwd), "/proc\x00")},
		{"handlers", *rawclone.WordOf(a.action) == 1},
	} {
		if s.is {
			names = append(names, s.name)
		}
	}
	return join(names)
}

// describe describes the result of a wait.
func (w waited) describe(tids map[uint64]string) string {
	if e := w.Op.Errno(); e != 0 {
		return unix.ErrnoName(e)
	}
	who := name(tids, uint64(w.Ret))
	switch ws := unix.WaitStatus(*w.status); {
	case ws.Exited():
		return fmt.Sprintf("%s,exit=%d", who, ws.ExitStatus())
	case ws.Signaled():
		return fmt.Sprintf("%s,killed=%d", who, ws.Signal())
	default:
		return fmt.Sprintf("%s,%#x", who, uint32(ws))
	}
}

// reapAll waits until all children have exited. It returns the number of children other than pid,
// and the status of pid.
func reapAll(pid int) (others int, status unix.WaitStatus, err error) {
	for {
		var ws unix.WaitStatus
		switch got, err := unix.Wait4(-1, &ws, unix.WALL, nil); {
		case err == syscall.EINTR:
		case err == syscall.ECHILD:
			return others, status, nil
		case err != nil:
			return 0, 0, fmt.Errorf("wait4: %w", err)
		case got == pid:
			status = ws
		default:
			others++
		}
	}
}
