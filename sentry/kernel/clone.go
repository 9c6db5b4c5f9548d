// SPDX-License-Identifier: Apache-2.0

// Package kernel creates tasks with 64 flag bits. It implements CLONE_FD, which gives the
// caller a descriptor of the child, and CLONE_AUTOREAP, which makes a child reap itself.
// The handlers in sentry/syscalls/clone4 decode registers and structs.
package kernel

import (
	gvisorlinux "gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/sentry/kernel"

	extlinux "runsc-ext/abi/linux"
)

// Clone creates a task as clone4 does (_do_fork() in the patch) and returns the
// task's ID in t's PID namespace. kernel.Task.Clone follows clone3(2). Clone handles
// the cases in which clone4 differs, and then calls Task.Clone.
//
// The errors are EINVAL for a flag outside extlinux.CLONE4_VALID_FLAGS or an
// invalid combination, EPERM for a namespace that t may not create or an invalid
// TLS address, and EAGAIN or ENOMEM at a limit.
//
// The caller must return the SyscallControl to the sentry. Under a tracer, or with
// CLONE_VFORK, t is already in a stop, and the control leads t on from the stop.
//
// Preconditions: as for kernel.Task.Clone, and t is the caller.
func Clone(t *kernel.Task, flags uint64, args *extlinux.Clone4Args) (kernel.ThreadID, *kernel.SyscallControl, error) {
	if flags&^extlinux.CLONE4_VALID_FLAGS != 0 {
		return 0, nil, linuxerr.EINVAL
	}

	if flags&extlinux.CLONE_NEWUSER != 0 || t.HasSelfCapability(gvisorlinux.CAP_SYS_ADMIN) {
		// Linux refuses a new IPC namespace with shared SEM_UNDO values in
		// copy_namespaces(); Task.Clone accepts both. A chrooted caller gets EPERM
		// for CLONE_NEWUSER before that (copy_creds()), also from Task.Clone.
		const undoAcrossIPC = extlinux.CLONE_NEWIPC | extlinux.CLONE_SYSVSEM
		if flags&undoAcrossIPC == undoAcrossIPC && (flags&extlinux.CLONE_NEWUSER == 0 || !t.IsChrooted()) {
			return 0, nil, linuxerr.EINVAL
		}
	} else if flags&extlinux.CLONE_NEWNS != 0 {
		// Linux requires privilege for a mount namespace; Task.Clone does not. For
		// CLONE_NEWUTS, Task.Clone requires the same privilege, so adding that flag
		// makes it return EPERM here. Its EINVAL checks still come first.
		flags |= extlinux.CLONE_NEWUTS
	}

	// clone3(2) refuses an invalid exit signal. clone4 then sends no signal.
	exitSignal := flags & extlinux.CSIGNAL
	if !gvisorlinux.Signal(exitSignal).IsValid() {
		exitSignal = 0
	}

	return t.Clone(&gvisorlinux.CloneArgs{
		Flags:      flags &^ extlinux.CSIGNAL,
		ParentTID:  args.Ptid,
		ChildTID:   args.Ctid,
		ExitSignal: exitSignal,
		// Task.Clone starts the child at Stack + StackSize.
		Stack: args.StackStart,
		TLS:   args.TLS,
	})
}
