// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"sync"
	"time"

	gvisorlinux "gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/atomicbitops"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/waiter"
)

// childEvents are the events of a child, for its pidfds and for clonefds.
const childEvents = waiter.ReadableEvents | waiter.EventHUp

// child watches the exit of a child.
//
// Lock order: queue's mutex and mu are locked before the TaskSet mutex. Code that
// runs with the TaskSet mutex locked takes neither.
//
// +stateify savable
type child struct {
	// entry is in the queue of the child's pidfds.
	entry waiter.Entry

	// autoreap is set if the child reaps itself. It is immutable once entry is in a
	// queue.
	autoreap bool

	// exited is set once the child has exited, reaped once it is gone.
	exited atomicbitops.Bool
	reaped atomicbitops.Bool

	// queue is of those who wait for exited.
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

// watch has gVisor call NotifyEvent when the child exits. pidfd is a pidfd of the
// child.
func (c *child) watch(pidfd *vfs.FileDescription) error {
	c.entry.Init(c, childEvents)
	return pidfd.EventRegister(&c.entry)
}

// NotifyEvent implements waiter.EventListener.NotifyEvent. It is called when the
// child has exited, and again when it is gone.
//
// Listeners of a descriptor are notified by a goroutine of their own, without a lock:
// an epoll instance with O_ASYNC notifies a fasync.FileAsync, which locks the TaskSet
// mutex. exited is set before that, so that a descriptor is ready for those who look
// at once. A checkpoint waits for the goroutine (TaskSet.aioGoroutines), so that no
// notification is lost.
//
// Preconditions: the TaskSet mutex is locked for writing, as is the mutex of the
// pidfds' queue for reading.
func (c *child) NotifyEvent(mask waiter.EventMask) {
	if mask&waiter.EventHUp != 0 {
		c.reaped.Store(true)
	}
	if c.exited.Swap(true) {
		return
	}
	// c.mu is not needed: tg stays until c is reaped.
	leader := leaderLocked(c.tg)
	if c.autoreap {
		acknowledgeExitLocked(leader)
	}
	leader.QueueAIO(func(context.Context) { c.queue.Notify(childEvents) })
}

// TaskDestroyAction implements kernel.TaskDestroyAction. It lets go of the child:
// a descriptor must not keep all that a task was. gVisor calls it without a lock.
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

// discard makes c the child of a call that has failed: it has exited and is gone.
//
// Preconditions: c watches no child, and no gVisor lock is held.
func (c *child) discard() {
	c.mu.Lock()
	c.tg = nil
	c.mu.Unlock()
	c.reaped.Store(true)
	c.exited.Store(true)
	c.queue.Notify(childEvents)
}

// threadGroup returns the child, or nil if it is gone.
func (c *child) threadGroup() *kernel.ThreadGroup {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tg
}

// result returns the wait status of the child and its CPU times.
//
// Preconditions: c.exited is set.
func (c *child) result() (status gvisorlinux.WaitStatus, utime, stime time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.resultLocked()
}

// Preconditions: c.mu is locked.
func (c *child) resultLocked() (status gvisorlinux.WaitStatus, utime, stime time.Duration) {
	if c.tg == nil {
		return c.status, c.utime, c.stime
	}
	stats := c.tg.CPUStats()
	return c.tg.ExitStatus(), stats.UserTime, stats.SysTime
}
