// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"sync"

	gvisorlinux "gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/kernel/fasync"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/usermem"
	"gvisor.dev/gvisor/pkg/waiter"

	extlinux "runsc-ext/abi/linux"
)

// Flags of a clonefd. Close-on-exec and nonblocking each have two values, because versions
// of the patches differ.
const (
	cloneFDCloseOnExec = extlinux.CLONEFD_CLOEXEC | gvisorlinux.O_CLOEXEC
	cloneFDNonBlock    = extlinux.CLONEFD_NONBLOCK | gvisorlinux.O_NONBLOCK
	cloneFDFlags       = cloneFDCloseOnExec | cloneFDNonBlock | extlinux.CLONEFD_KILL_ON_CLOSE
)

// cloneFDFileDescription implements vfs.FileDescriptionImpl for the descriptors of CLONE_FD.
//
// +stateify savable
type cloneFDFileDescription struct {
	vfsfd vfs.FileDescription
	vfs.FileDescriptionDefaultImpl
	vfs.DentryMetadataFileDescriptionImpl
	vfs.NoLockFD

	// child and killOnClose are immutable.
	child       *child
	killOnClose bool

	// mu protects consumed, so that only one of several readers gets the info.
	mu sync.Mutex `state:"nosave"`

	// consumed is set once the info has been read.
	consumed bool
}

var _ vfs.FileDescriptionImpl = (*cloneFDFileDescription)(nil)

// newCloneFD returns a new descriptor for c.
func newCloneFD(t *kernel.Task, c *child, flags uint32) (*cloneFDFileDescription, error) {
	vd := t.Kernel().VFS().NewAnonVirtualDentry("[clonefd]")
	defer vd.DecRef(t)
	f := &cloneFDFileDescription{child: c, killOnClose: flags&extlinux.CLONEFD_KILL_ON_CLOSE != 0}
	status := uint32(gvisorlinux.O_RDWR)
	if flags&cloneFDNonBlock != 0 {
		status |= gvisorlinux.O_NONBLOCK
	}
	if err := f.vfsfd.Init(f, status, t.Credentials(), vd.Mount(), vd.Dentry(), &vfs.FileDescriptionOptions{
		UseDentryMetadata: true,
		DenyPRead:         true,
		DenyPWrite:        true,
		DenySpliceIn:      true,
	}); err != nil {
		return nil, err
	}
	// Without an async handler, gVisor would accept O_ASYNC, and then refuse an owner
	// (F_SETOWN). With one, gVisor refuses O_ASYNC: see RegisterFileAsyncHandler.
	if _, err := f.vfsfd.SetAsyncHandler(fasync.New(-1)); err != nil {
		return nil, err
	}
	return f, nil
}

// Release implements vfs.FileDescriptionImpl.Release.
func (f *cloneFDFileDescription) Release(context.Context) {
	// A close needs no permission: mayKillOnClose has checked the parent. The parent
	// could also kill the child by RLIMIT_CPU, which a privileged program inherits.
	if f.killOnClose {
		if tg := f.child.threadGroup(); tg != nil {
			tg.SendSignal(kernel.SignalInfoPriv(gvisorlinux.SIGKILL))
		}
	}
}

// Read implements vfs.FileDescriptionImpl.Read. The first read with room for at least one
// byte consumes the info. A read that faults consumes nothing.
func (f *cloneFDFileDescription) Read(ctx context.Context, dst usermem.IOSequence, _ vfs.ReadOptions) (int64, error) {
	if dst.NumBytes() == 0 {
		return 0, nil
	}
	if !f.child.exited.Load() {
		return 0, linuxerr.ErrWouldBlock
	}
	status, utime, stime := f.child.result()
	info := extlinux.ClonefdInfo{
		Code:   gvisorlinux.CLD_EXITED,
		Status: int32(status.ExitStatus()),
		Utime:  uint64(utime.Microseconds()),
		Stime:  uint64(stime.Microseconds()),
	}
	if status.Signaled() {
		info.Code, info.Status = gvisorlinux.CLD_KILLED, int32(status.TerminationSignal())
		if status.CoreDumped() {
			info.Code = gvisorlinux.CLD_DUMPED
		}
	}
	buf := make([]byte, 0, extlinux.SizeOfClonefdInfo)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(info.Code))
	buf = binary.LittleEndian.AppendUint32(buf, uint32(info.Status))
	buf = binary.LittleEndian.AppendUint64(buf, info.Utime)
	buf = binary.LittleEndian.AppendUint64(buf, info.Stime)

	f.mu.Lock()
	defer f.mu.Unlock()
	if f.consumed {
		return 0, nil
	}
	// A short read drops the rest of the info: the next read returns end of file.
	n, err := dst.CopyOut(ctx, buf)
	if err != nil {
		return 0, err
	}
	f.consumed = true
	return int64(n), nil
}

// consume makes later reads of f return end of file.
func (f *cloneFDFileDescription) consume() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.consumed = true
}

// Write implements vfs.FileDescriptionImpl.Write. A write of one byte sends that signal to
// the child, with the permissions of kill(2).
func (f *cloneFDFileDescription) Write(ctx context.Context, src usermem.IOSequence, _ vfs.WriteOptions) (int64, error) {
	var buf [1]byte
	if src.NumBytes() != int64(len(buf)) {
		return 0, linuxerr.EINVAL
	}
	if _, err := src.CopyIn(ctx, buf[:]); err != nil {
		return 0, err
	}
	sig := gvisorlinux.Signal(buf[0])
	if sig != 0 && !sig.IsValid() {
		return 0, linuxerr.EINVAL
	}
	t := kernel.TaskFromContext(ctx)
	tg := f.child.threadGroup()
	if t == nil || tg == nil {
		return 0, linuxerr.ESRCH
	}
	leader := tg.Leader()
	if f.child.threadGroup() == nil {
		return 0, linuxerr.ESRCH
	}
	if !t.MayKill(leader, sig) {
		return 0, linuxerr.EPERM
	}
	// The signal goes to the group, because another thread may be the leader by now.
	if err := tg.SendSignal(kernel.SignalInfoNoInfo(sig, t, leader)); err != nil {
		return 0, err
	}
	return int64(len(buf)), nil
}

// Ioctl implements vfs.FileDescriptionImpl.Ioctl.
func (f *cloneFDFileDescription) Ioctl(ctx context.Context, uio usermem.IO, sysno uintptr, args arch.SyscallArguments) (uintptr, error) {
	request := args[1].Uint()
	if request != extlinux.CLONEFD_IOC_GETTID && request != extlinux.CLONEFD_IOC_GETPID {
		return f.FileDescriptionDefaultImpl.Ioctl(ctx, uio, sysno, args)
	}
	t := kernel.TaskFromContext(ctx)
	tg := f.child.threadGroup()
	if t == nil || tg == nil {
		return 0, nil
	}
	// The child is the leader of its thread group, so both requests return one ID.
	return uintptr(t.PIDNamespace().IDOfThreadGroup(tg)), nil
}

// Readiness implements waiter.Waitable.Readiness.
func (f *cloneFDFileDescription) Readiness(mask waiter.EventMask) waiter.EventMask {
	if !f.child.exited.Load() {
		return 0
	}
	return mask&waiter.ReadableEvents | waiter.EventHUp
}

// EventRegister implements waiter.Waitable.EventRegister.
func (f *cloneFDFileDescription) EventRegister(e *waiter.Entry) error {
	f.child.queue(e).EventRegister(e)
	return nil
}

// EventUnregister implements waiter.Waitable.EventUnregister.
func (f *cloneFDFileDescription) EventUnregister(e *waiter.Entry) {
	f.child.queue(e).EventUnregister(e)
}

// Epollable implements vfs.FileDescriptionImpl.Epollable.
func (f *cloneFDFileDescription) Epollable() bool {
	return true
}

// RegisterFileAsyncHandler implements vfs.FileDescriptionImpl.RegisterFileAsyncHandler.
// The error for O_ASYNC is EINVAL, as for gVisor's pidfds.
func (f *cloneFDFileDescription) RegisterFileAsyncHandler(*vfs.FileDescription) error {
	return linuxerr.EINVAL
}

// UnregisterFileAsyncHandler implements
// vfs.FileDescriptionImpl.UnregisterFileAsyncHandler.
func (f *cloneFDFileDescription) UnregisterFileAsyncHandler(*vfs.FileDescription) {}
