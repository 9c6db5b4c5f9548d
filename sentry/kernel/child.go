// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"reflect"
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
// Lock order:
//
//	mu and the mutex of listeners, while it notifies
//	  TaskSet mutex
//	    mutex of tasks
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

	// tasks has the entries of tasks that wait for exited in a system call,
	// listeners has all others: see NotifyEvent.
	tasks     waiter.Queue
	listeners waiter.Queue

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
// Tasks that wait are notified at once, before the signal of the exit can interrupt
// them. Their listener sends to a channel, without a lock.
//
// Other listeners are notified by a goroutine, without a lock: an epoll instance with
// O_ASYNC notifies a fasync.FileAsync, which locks the TaskSet mutex. A checkpoint
// waits for the goroutine (TaskSet.aioGoroutines in Kernel.Pause), so that no
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
	c.tasks.Notify(childEvents)
	// Nobody holds the mutex of listeners and waits for the TaskSet mutex: they have
	// not been notified yet. A listener that is registered from here on finds exited.
	if !c.listeners.IsEmpty() {
		leader.QueueAIO(func(context.Context) { c.listeners.Notify(childEvents) })
	}
}

// notify notifies all who wait for exited.
//
// Preconditions: c.exited is set, and no gVisor lock is held.
func (c *child) notify() {
	c.tasks.Notify(childEvents)
	c.listeners.Notify(childEvents)
}

// queue returns the queue for e.
func (c *child) queue(e *waiter.Entry) *waiter.Queue {
	if listenerType(e) == reflect.TypeFor[waiter.ChannelNotifier]() {
		return &c.tasks
	}
	return &c.listeners
}

// listenerType returns the type of the listener of e, which gVisor does not export.
func listenerType(e *waiter.Entry) reflect.Type {
	return reflect.ValueOf(e).Elem().FieldByIndex(listenerField).Elem().Type()
}

// listenerField is where the listener is. It is nil in a gVisor without the field: see
// EnableCloneFD.
var listenerField, errListenerField = func() ([]int, error) {
	typ, want := reflect.TypeFor[waiter.Entry](), reflect.TypeFor[waiter.EventListener]()
	f, ok := typ.FieldByName("eventListener")
	if !ok || f.Type != want {
		return nil, fmt.Errorf("CLONE_FD needs the field eventListener of type %v in %v, and this gVisor has none: build with a gVisor version that does, or do without the level", want, typ)
	}
	return f.Index, nil
}()

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
	c.notify()
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
