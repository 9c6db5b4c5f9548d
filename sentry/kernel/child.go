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
	"gvisor.dev/gvisor/pkg/sentry/usage"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/waiter"
)

// childEvents are the events of a child that its pidfds and clonefds report.
const childEvents = waiter.ReadableEvents | waiter.EventHUp

// child watches the exit of a child that has a clonefd or reaps itself.
//
// Lock order:
//
//	the mutex of listeners, during a notification
//	  TaskSet mutex
//	    mu; the mutex of tasks
//
// +stateify savable
type child struct {
	// entry is in the queue of the child's pidfds.
	entry waiter.Entry

	// autoreap is set if the child reaps itself. It is immutable once entry is in a
	// queue.
	autoreap bool

	// exited is set once the child has exited.
	exited atomicbitops.Bool

	// tasks has the entries of tasks that wait in a system call, such as read.
	// listeners has all other entries. See NotifyEvent for why.
	tasks     waiter.Queue
	listeners waiter.Queue

	// mu protects the fields below.
	mu sync.Mutex `state:"nosave"`

	// tg is the child, or nil once the child has been reaped. A descriptor would otherwise
	// keep the thread group in memory.
	tg *kernel.ThreadGroup

	// status, utime and stime are the result of a child that has been reaped.
	status gvisorlinux.WaitStatus
	utime  time.Duration
	stime  time.Duration
}

// watch makes gVisor call NotifyEvent when the child exits. pidfd is a pidfd of the
// child.
func (c *child) watch(pidfd *vfs.FileDescription) error {
	c.entry.Init(c, childEvents)
	return pidfd.EventRegister(&c.entry)
}

// NotifyEvent implements waiter.EventListener.NotifyEvent. gVisor calls it when the
// child has exited, and again when the child has been reaped.
//
// NotifyEvent notifies waiting tasks at once, before the exit signal can interrupt them.
// The listeners of these tasks need no lock: each sends to a channel.
//
// Other listeners may lock the TaskSet mutex. For example, an epoll instance with O_ASYNC
// notifies a fasync.FileAsync, which locks that mutex. So NotifyEvent leaves the
// notification of these listeners to a goroutine that holds no lock. A checkpoint waits
// for the goroutine (TaskSet.aioGoroutines in Kernel.Pause).
//
// Preconditions: the TaskSet mutex is locked for writing, and the mutex of the pidfds'
// queue for reading.
func (c *child) NotifyEvent(mask waiter.EventMask) {
	tg := c.threadGroup()
	if tg == nil {
		return
	}
	if mask&waiter.EventHUp != 0 {
		c.reap(reapedStatusLocked(tg), tg.CPUStats())
	}
	if c.exited.Swap(true) {
		return
	}
	leader := leaderLocked(tg)
	if c.autoreap {
		acknowledgeExitLocked(leader)
	}
	c.tasks.Notify(childEvents)
	// IsEmpty locks the mutex of listeners. This cannot deadlock: only a notification
	// of listeners holds that mutex and waits for the TaskSet mutex, and none has begun.
	// A listener that is registered from here on finds exited set.
	if !c.listeners.IsEmpty() {
		leader.QueueAIO(func(context.Context) { c.listeners.Notify(childEvents) })
	}
}

// reap keeps the result of a child that has been reaped, and drops the thread group.
func (c *child) reap(status gvisorlinux.WaitStatus, stats usage.CPUStats) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status, c.utime, c.stime = status, stats.UserTime, stats.SysTime
	c.tg = nil
}

// notify tells all waiting tasks and listeners that the child has exited.
//
// Preconditions: c.exited is set, and no gVisor lock is held.
func (c *child) notify() {
	c.tasks.Notify(childEvents)
	c.listeners.Notify(childEvents)
}

// queue returns the queue for e. Only a task that waits in a system call uses a
// waiter.ChannelNotifier.
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

// listenerField is the index of the field of waiter.Entry that has the listener. If this
// gVisor version lacks the field, EnableCloneFD returns errListenerField.
var listenerField, errListenerField = func() ([]int, error) {
	typ, want := reflect.TypeFor[waiter.Entry](), reflect.TypeFor[waiter.EventListener]()
	f, ok := typ.FieldByName("eventListener")
	if !ok || f.Type != want {
		return nil, fmt.Errorf("CLONE_FD needs the field eventListener of type %v in %v, which this gVisor version lacks: build with a version that has it, or lower the level to on", want, typ)
	}
	return f.Index, nil
}()

// discard marks c as exited and reaped. A descriptor that escaped from a failed call
// then reports end of file.
//
// Preconditions: c watches no child, and no gVisor lock is held.
func (c *child) discard() {
	c.reap(0, usage.CPUStats{})
	c.exited.Store(true)
	c.notify()
}

// threadGroup returns the child, or nil if the child has been reaped.
func (c *child) threadGroup() *kernel.ThreadGroup {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tg
}

// result returns the wait status of the child and its CPU times.
//
// Preconditions: c.exited is set, and no gVisor lock is held.
func (c *child) result() (status gvisorlinux.WaitStatus, utime, stime time.Duration) {
	if tg := c.threadGroup(); tg != nil {
		stats := tg.CPUStats()
		return tg.ExitStatus(), stats.UserTime, stats.SysTime
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status, c.utime, c.stime
}
