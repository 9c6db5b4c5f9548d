package kernel

import (
	"sync"
	"sync/atomic"
	"time"

	gvisorlinux "gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/atomicbitops"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/marshal/primitive"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/seccheck"
	pb "gvisor.dev/gvisor/pkg/sentry/seccheck/points/points_go_proto"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/waiter"

	"runsc-ext/abi/linux"
)

// CloneFD makes a new task as Clone does, and takes CLONE_FD and CLONE_AUTOREAP as
// well. The errors are those of Clone; EINVAL for CLONE_FD with CLONE_THREAD or with
// an unknown flag of its own; EMFILE and EFAULT where t cannot have the descriptor.
// With an error there is no child and no descriptor.
//
// Preconditions: as for Clone, and CheckCloneFD finds nothing.
func CloneFD(t *kernel.Task, flags uint64, args *linux.Clone4FDArgs) (kernel.ThreadID, *kernel.SyscallControl, error) {
	r := request{autoreap: flags&linux.CLONE_AUTOREAP != 0, fd: flags&linux.CLONE_FD != 0}
	if r.fd {
		if flags&linux.CLONE_THREAD != 0 || args.ClonefdFlags&^cloneFDFlags != 0 {
			return 0, nil, linuxerr.EINVAL
		}
		r.fdFlags, r.fdAddr = args.ClonefdFlags, hostarch.Addr(args.Clonefd)
	}
	flags &^= linux.CLONE_FD | linux.CLONE_AUTOREAP
	// Threads reap themselves.
	if flags&linux.CLONE_THREAD != 0 || !r.fd && !r.autoreap {
		return Clone(t, flags, &args.Clone4Args)
	}

	clonePoint.expect(t, &r)
	tid, ctrl, err := Clone(t, flags, &args.Clone4Args)
	clonePoint.forget(t)
	if err == nil && !r.granted {
		err = r.grantLate(t, tid)
	}
	if err != nil {
		tid = 0
		r.undo(t)
	}
	if r.pidfd != nil {
		r.pidfd.DecRef(t)
	}
	return tid, ctrl, err
}

// request is what a caller of CloneFD wants for its child.
type request struct {
	autoreap bool
	fd       bool
	fdFlags  uint32
	fdAddr   hostarch.Addr

	// granted is set once the child has it.
	granted bool

	// pidfd is of the child, once there is one. It is in no table.
	pidfd *vfs.FileDescription

	// file is the caller's descriptor, once it is in its table.
	file *vfs.FileDescription
}

// grant gives the request to the child nt of t.
func (r *request) grant(t, nt *kernel.Task) error {
	// A pidfd is told of the end before the parent is, under the same lock, and
	// whichever thread is the leader by then. Its queue is the child's, and stays
	// when the file goes.
	pidfd, err := t.PIDFDOpen(t.PIDNamespace().IDOfTask(nt), false /* isThread */, false /* nonBlock */)
	if err != nil {
		return err
	}
	r.pidfd = pidfd
	c := &child{tg: nt.ThreadGroup(), autoreap: r.autoreap}
	if r.fd {
		if err := r.install(t, c); err != nil {
			return err
		}
	}
	c.entry.Init(c, childEvents)
	if err := pidfd.EventRegister(&c.entry); err != nil {
		return err
	}
	r.granted = true

	// From here on it is for a child that has started: see grantLate.
	ready := pidfd.Readiness(childEvents)
	if ready&waiter.EventHUp != 0 {
		c.reaped.Store(true)
	}
	if ready != 0 && !c.ended.Swap(true) {
		c.queue.Notify(childEvents)
		if c.autoreap {
			t.Wait(&kernel.WaitOptions{
				SpecificThreadGroup: c.tg,
				NonCloneTasks:       true,
				CloneTasks:          true,
				SiblingChildren:     true,
				Events:              kernel.EventExit,
				ConsumeEvent:        true,
			})
		}
	}
	if r.fd && !nt.RegisterOnDestroyAction(c) {
		c.TaskDestroyAction(t)
	}
	return nil
}

// install puts a descriptor for c into t's table, and its number where t wants it.
// The child has its own table by now, or shares this one.
func (r *request) install(t *kernel.Task, c *child) error {
	file, err := newCloneFD(t, c, r.fdFlags)
	if err != nil {
		return err
	}
	defer file.DecRef(t)
	fd, err := t.NewFDFrom(0, file, kernel.FDFlags{CloseOnExec: r.fdFlags&cloneFDCloseOnExec != 0})
	if err != nil {
		return err
	}
	r.file = file
	_, err = primitive.CopyInt32Out(t, r.fdAddr, fd)
	return err
}

// undo takes the descriptor back and sees a refused child off.
func (r *request) undo(t *kernel.Task) {
	if r.file != nil {
		// Another thread may have put something else in its place by now.
		t.FDTable().RemoveIf(t, func(file *vfs.FileDescription, _ kernel.FDFlags) bool { return file == r.file })
	}
	if r.pidfd != nil {
		// Until it is gone, a wait4 with WUNTRACED would wait for it, and for
		// ever: gVisor tells nobody of the end of such a child. It takes no
		// time, unless the sandbox is paused just now.
		gone, ch := waiter.NewChannelEntry(waiter.EventHUp)
		r.pidfd.EventRegister(&gone)
		defer r.pidfd.EventUnregister(&gone)
		if r.pidfd.Readiness(childEvents)&waiter.EventHUp == 0 {
			t.UninterruptibleSleepStart()
			select {
			case <-ch:
			case <-time.After(time.Second):
			}
			t.UninterruptibleSleepFinish()
		}
	}
}

// grantLate gives the request to a child that has started already: see hook. All
// that differs is that another thread of t may have waited for the child before.
func (r *request) grantLate(t *kernel.Task, tid kernel.ThreadID) error {
	nt := t.PIDNamespace().TaskWithID(tid)
	if nt == nil {
		return linuxerr.EAGAIN
	}
	err := r.grant(t, nt)
	if err != nil {
		nt.ThreadGroup().SendSignal(kernel.SignalInfoPriv(gvisorlinux.SIGKILL))
	}
	return err
}

// hook is the sink at gVisor's Clone point, the one place in Task.Clone where the
// child is there and has not started: an error from here undoes the child.
//
// It is there only from the first call of CloneFD on. Whoever ends a trace session
// removes all sinks, with this one: the next call puts it back. A call that is under
// way at that moment finds nobody at the point, and sees to its child afterwards.
type hook struct {
	seccheck.SinkDefaults

	// requests has the *request of each *kernel.Task that is in CloneFD.
	requests sync.Map

	// appended is how often the hook was made a sink, stopped how often it was
	// removed.
	mu       sync.Mutex
	appended uint64
	stopped  atomic.Uint64
}

var clonePoint hook

func (h *hook) expect(t *kernel.Task, r *request) {
	h.mu.Lock()
	if h.appended == h.stopped.Load() {
		// The fields are those of whoever else is at this point: they are not
		// kept for each sink.
		seccheck.Global.AppendSink(h, []seccheck.PointReq{{
			Pt:     seccheck.PointClone,
			Fields: seccheck.Global.GetFieldSet(seccheck.PointClone),
		}})
		h.appended++
	}
	h.mu.Unlock()
	h.requests.Store(t, r)
}

func (h *hook) forget(t *kernel.Task) { h.requests.Delete(t) }

// Name implements seccheck.Sink.Name.
func (h *hook) Name() string { return "clone4" }

// Stop implements seccheck.Sink.Stop.
func (h *hook) Stop() { h.stopped.Add(1) }

// Clone implements seccheck.Sink.Clone.
func (h *hook) Clone(ctx context.Context, _ seccheck.FieldSet, info *pb.CloneInfo) error {
	t := kernel.TaskFromContext(ctx)
	r, ok := h.requests.Load(t)
	if !ok {
		return nil
	}
	nt := t.Kernel().TaskSet().Root.TaskWithID(kernel.ThreadID(info.CreatedThreadId))
	return r.(*request).grant(t, nt)
}

// childEvents are the events of a child, for its pidfds and for clonefds.
const childEvents = waiter.ReadableEvents | waiter.EventHUp

// child sees to the end of a child.
//
// +stateify savable
type child struct {
	// entry is in the queue of the child's pidfds.
	entry waiter.Entry

	// autoreap is set if the child reaps itself. It is immutable.
	autoreap bool

	// ended is set once the child has ended, reaped once it is gone.
	ended  atomicbitops.Bool
	reaped atomicbitops.Bool

	// queue is of those who wait for ended.
	queue waiter.Queue

	// mu protects what follows.
	mu sync.Mutex `state:"nosave"`

	// tg is the child; nil once it is gone and the rest is set.
	tg *kernel.ThreadGroup

	// status, utime and stime are what is left of the child. The times are in
	// nanoseconds.
	status gvisorlinux.WaitStatus
	utime  time.Duration
	stime  time.Duration
}

// NotifyEvent implements waiter.EventListener.NotifyEvent. It is called when the
// child has ended, and again when it is gone.
//
// Preconditions: the TaskSet mutex is locked for writing.
func (c *child) NotifyEvent(mask waiter.EventMask) {
	if mask&waiter.EventHUp != 0 {
		c.reaped.Store(true)
	}
	if c.ended.Swap(true) {
		return
	}
	if c.autoreap {
		// c.mu is not needed: tg stays until c is reaped.
		acknowledgeExit(c.tg)
	}
	c.queue.Notify(childEvents)
}

// TaskDestroyAction implements kernel.TaskDestroyAction. It lets go of the child:
// a descriptor must not keep all that a task was.
func (c *child) TaskDestroyAction(context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.reaped.Load() {
		// The leader is gone, and the child is not: another thread has become
		// the leader by execve.
		if c.tg.Leader().RegisterOnDestroyAction(c) {
			return
		}
	}
	c.status, c.utime, c.stime = c.resultLocked()
	c.tg = nil
}

// threadGroup returns the child, or nil if it is gone.
func (c *child) threadGroup() *kernel.ThreadGroup {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tg
}

// result returns how the child has ended.
//
// Preconditions: c.ended is set.
func (c *child) result() (status gvisorlinux.WaitStatus, utime, stime time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.resultLocked()
}

func (c *child) resultLocked() (status gvisorlinux.WaitStatus, utime, stime time.Duration) {
	if c.tg == nil {
		return c.status, c.utime, c.stime
	}
	stats := c.tg.CPUStats()
	return c.tg.ExitStatus(), stats.UserTime, stats.SysTime
}
