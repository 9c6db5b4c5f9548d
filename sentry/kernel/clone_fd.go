// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"time"

	gvisorlinux "gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/marshal/primitive"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/waiter"

	extlinux "runsc-ext/abi/linux"
)

// CloneWithFD creates a task as Clone does, and accepts CLONE_FD and CLONE_AUTOREAP too.
// The errors are those of Clone. With CLONE_FD, the errors are also:
//
//   - EINVAL for CLONE_THREAD or an unknown clonefd flag
//   - EPERM for CLONEFD_KILL_ON_CLOSE; see mayKillOnClose
//   - EMFILE if the descriptor table of t is full
//   - EFAULT if args.Clonefd cannot be written
//   - EAGAIN if another thread reaps the child before the child has a descriptor,
//     which can happen only while a trace session is deleted
//
// An error leaves no child and no descriptor. The caller must return all three results
// to the sentry. With a SyscallControl, the sentry ignores the error and returns the first
// result to the program (doSyscallInvoke in gVisor's task_syscall.go). The first result is
// then the negative error number.
//
// Preconditions: as for Clone, and EnableCloneFD has returned nil.
func CloneWithFD(t *kernel.Task, flags uint64, args *extlinux.Clone4FDArgs) (kernel.ThreadID, *kernel.SyscallControl, error) {
	if flags&^extlinux.CLONE4_FD_VALID_FLAGS != 0 {
		return 0, nil, linuxerr.EINVAL
	}
	p := pendingClone{autoreap: flags&extlinux.CLONE_AUTOREAP != 0, fd: flags&extlinux.CLONE_FD != 0}
	if p.fd {
		if flags&extlinux.CLONE_THREAD != 0 || args.ClonefdFlags&^cloneFDFlags != 0 {
			return 0, nil, linuxerr.EINVAL
		}
		if args.ClonefdFlags&extlinux.CLONEFD_KILL_ON_CLOSE != 0 && !mayKillOnClose(t) {
			return 0, nil, linuxerr.EPERM
		}
		p.fdFlags, p.fdAddr = args.ClonefdFlags, hostarch.Addr(args.Clonefd)
	}
	flags &^= extlinux.CLONE_FD | extlinux.CLONE_AUTOREAP
	// A thread always reaps itself, so CLONE_AUTOREAP has no effect with CLONE_THREAD.
	if flags&extlinux.CLONE_THREAD != 0 || !p.fd && !p.autoreap {
		return Clone(t, flags, &args.Clone4Args)
	}

	clonePoint.expect(t, &p)
	tid, ctrl, err := Clone(t, flags, &args.Clone4Args)
	clonePoint.forget(t)
	switch {
	case err != nil:
		p.undo(t)
	case !p.attached:
		err = p.attachLate(t, tid, flags&extlinux.CLONE_PARENT != 0)
	}
	if p.pidfd != nil {
		p.pidfd.DecRef(t)
	}
	if err != nil {
		tid = failedValue(t, ctrl, err)
	}
	return tid, ctrl, err
}

// failedValue returns the first result of a call that fails with err; see CloneWithFD.
func failedValue(t *kernel.Task, ctrl *kernel.SyscallControl, err error) kernel.ThreadID {
	if ctrl == nil {
		return 0
	}
	return kernel.ThreadID(-kernel.ExtractErrno(err, int(t.Arch().SyscallNo())))
}

// mayKillOnClose returns whether t may use CLONEFD_KILL_ON_CLOSE. A close of the last
// descriptor then kills the child, even if the closing task has no permission to send signals
// to the child. The child may execute a program that gives it privileges, so t needs
// CAP_SYS_ADMIN in its user namespace, or the no_new_privs that its children inherit. Linux 7.1
// has this rule for CLONE_PIDFD_AUTOKILL.
//
// The rule does not depend on runsc's --allow-suid: the sentry honors capabilities of
// files without that flag as well.
func mayKillOnClose(t *kernel.Task) bool {
	return t.HasSelfCapability(gvisorlinux.CAP_SYS_ADMIN) || t.GetNoNewPrivs()
}

// pendingClone is the state of a call of CloneWithFD: what the caller wants for the child,
// and what has been done.
type pendingClone struct {
	autoreap bool
	fd       bool
	fdFlags  uint32
	fdAddr   hostarch.Addr

	// attached is set once the child has all that the caller wants.
	attached bool

	// pidfd is a pidfd of the child, or nil at first. It is in no descriptor table.
	pidfd *vfs.FileDescription

	// file is the descriptor of the child, once the caller's table has file at number.
	file   *cloneFDFileDescription
	number int32
}

// attach puts a descriptor of the new task nt into t's table, makes nt reap itself, or does
// both, as p says.
//
// Preconditions: nt has not started, and no gVisor lock is held.
func (p *pendingClone) attach(t, nt *kernel.Task) error {
	if err := p.openPIDFD(t, nt); err != nil {
		return err
	}
	c := &child{tg: nt.ThreadGroup(), autoreap: p.autoreap}
	if p.fd {
		if err := p.install(t, c); err != nil {
			return err
		}
	}
	if err := c.watch(p.pidfd); err != nil {
		return err
	}
	p.attached = true
	return nil
}

// attachLate is attach for a child that cloneSink missed and that has already started.
// The child may have exited, another thread may have reaped the child, and the child's ID
// may belong to another task by now. The errors are EAGAIN and those of install. On an
// error the child, if it still exists, is killed and reaps itself.
//
// sibling is set if the child has the same parent as t, because of CLONE_PARENT.
//
// Preconditions: no gVisor lock is held.
func (p *pendingClone) attachLate(t *kernel.Task, tid kernel.ThreadID, sibling bool) error {
	nt := t.PIDNamespace().TaskWithID(tid)
	if nt == nil || !isChildOf(nt, t, sibling) || p.openPIDFD(t, nt) != nil {
		return linuxerr.EAGAIN
	}
	p.attached = true
	tg := nt.ThreadGroup()
	c := &child{tg: tg, autoreap: p.autoreap}
	var err error
	if p.fd {
		if err = p.install(t, c); err != nil {
			c.autoreap = true
		}
	}
	if werr := c.watch(p.pidfd); err == nil {
		err = werr
	}
	ready := p.pidfd.Readiness(childEvents)
	if ready&waiter.EventHUp != 0 {
		c.reap(tg.ExitStatus(), tg.CPUStats())
	}
	if ready != 0 && !c.exited.Swap(true) {
		// The child exited before c watched it.
		c.notify()
		if c.autoreap {
			t.Wait(&kernel.WaitOptions{
				SpecificThreadGroup: tg,
				NonCloneTasks:       true,
				CloneTasks:          true,
				SiblingChildren:     true,
				Events:              kernel.EventExit,
				ConsumeEvent:        true,
			})
		}
	}
	if err != nil {
		if p.file != nil {
			p.takeBack(t)
		}
		tg.SendSignal(kernel.SignalInfoPriv(gvisorlinux.SIGKILL))
		p.awaitGone(t)
	}
	return err
}

// isChildOf returns whether nt is a child of t's process or, with sibling, of the process
// of t's parent.
func isChildOf(nt, t *kernel.Task, sibling bool) bool {
	parent := nt.Parent()
	if sibling {
		t = t.Parent()
	}
	return parent != nil && t != nil && parent.ThreadGroup() == t.ThreadGroup()
}

// openPIDFD opens a pidfd of the child nt. When the child exits, gVisor notifies its
// pidfds before the parent, in the same critical section. gVisor does so even if another
// thread has become the leader. All pidfds of the child share one queue, which remains
// when a pidfd is closed.
func (p *pendingClone) openPIDFD(t, nt *kernel.Task) (err error) {
	p.pidfd, err = t.PIDFDOpen(t.PIDNamespace().IDOfTask(nt), false /* isThread */, false /* nonBlock */)
	return err
}

// install puts a descriptor for c into t's descriptor table, and writes the number of the
// descriptor to p.fdAddr. The child's table has already been copied from t's, so the child
// gets the descriptor only if it shares t's table.
//
// Other threads can use the descriptor before its number is written. If the number cannot
// be written, these threads may keep a duplicate: see takeBack.
func (p *pendingClone) install(t *kernel.Task, c *child) error {
	f, err := newCloneFD(t, c, p.fdFlags)
	if err != nil {
		return err
	}
	defer f.vfsfd.DecRef(t)
	fd, err := t.NewFDFrom(0, &f.vfsfd, kernel.FDFlags{CloseOnExec: p.fdFlags&cloneFDCloseOnExec != 0})
	if err != nil {
		return err
	}
	p.file, p.number = f, fd
	_, err = primitive.CopyInt32Out(t, p.fdAddr, fd)
	return err
}

// takeBack removes the descriptor of a failed call from t's table. A duplicate that
// another thread has taken reads end of file.
func (p *pendingClone) takeBack(t *kernel.Task) {
	p.discard()
	// Another thread may have put another file in its place by now.
	table := t.FDTable()
	installed, _ := table.Get(p.number)
	if installed == nil {
		return
	}
	defer installed.DecRef(t)
	if installed == &p.file.vfsfd {
		if removed := table.Remove(t, p.number); removed != nil {
			removed.DecRef(t)
		}
	}
}

// discard makes the descriptor of a failed call behave like that of a reaped child.
func (p *pendingClone) discard() {
	p.file.consume()
	if !p.attached {
		// The descriptor watches no child, so a reader would wait forever.
		p.file.child.discard()
	}
}

// undo cleans up after a failed call of Clone. If gVisor has created a child, the child
// exits without having run.
//
// Preconditions: no gVisor lock is held.
func (p *pendingClone) undo(t *kernel.Task) {
	if p.file != nil {
		p.takeBack(t)
	}
	if p.pidfd != nil {
		// A wait4 with WUNTRACED that starts before the child is reaped would sleep
		// forever: gVisor does not notify waiters of the exit of such a child.
		p.awaitGone(t)
	}
}

// awaitGone waits until the child of a failed call has been reaped, for one second at most.
// The wait is long only if the sandbox is paused, or if a tracer must wait for the child
// first.
//
// Preconditions: p.pidfd is set, and no gVisor lock is held.
func (p *pendingClone) awaitGone(t *kernel.Task) {
	gone, ch := waiter.NewChannelEntry(waiter.EventHUp)
	p.pidfd.EventRegister(&gone)
	defer p.pidfd.EventUnregister(&gone)
	if p.pidfd.Readiness(childEvents)&waiter.EventHUp == 0 {
		t.UninterruptibleSleepStart()
		select {
		case <-ch:
		case <-time.After(time.Second):
		}
		t.UninterruptibleSleepFinish()
	}
}
