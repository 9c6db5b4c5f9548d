// SPDX-License-Identifier: Apache-2.0

// Package kernel creates tasks with 64 flag bits, and gives them what CLONE_FD and
// CLONE_AUTOREAP ask for: a descriptor, and an exit that nobody has to wait for. What a
// call's registers and struct mean is for its handler; see sentry/syscalls/clone4.
package kernel

import (
	gvisorlinux "gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/sentry/kernel"

	extlinux "runsc-ext/abi/linux"
)

// Clone makes a new task as clone4 does (_do_fork() in the patch) and returns
// its ID in t's PID namespace. It hands over to kernel.Task.Clone and settles
// first what that does as clone3(2) has it and clone4 does otherwise.
//
// The errors are EINVAL for a flag outside extlinux.CLONE4_VALID_FLAGS or a
// combination that makes no sense, EPERM for a namespace that t may not make or
// a TLS that cannot be one, and EAGAIN or ENOMEM where a limit is reached.
//
// The SyscallControl must reach the sentry: under a tracer, or with CLONE_VFORK,
// t is already in a stop that the control belongs to.
//
// Preconditions: as for kernel.Task.Clone, and t is the caller.
func Clone(t *kernel.Task, flags uint64, args *extlinux.Clone4Args) (kernel.ThreadID, *kernel.SyscallControl, error) {
	if flags&^extlinux.CLONE4_VALID_FLAGS != 0 {
		return 0, nil, linuxerr.EINVAL
	}

	if flags&extlinux.CLONE_NEWUSER != 0 || t.HasSelfCapability(gvisorlinux.CAP_SYS_ADMIN) {
		// copy_namespaces() refuses a new IPC namespace beside shared SEM_UNDO
		// values; Task.Clone does not. Before that, copy_creds() has made the
		// user namespace, which a chrooted caller may not have: Task.Clone says so.
		const undoAcrossIPC = extlinux.CLONE_NEWIPC | extlinux.CLONE_SYSVSEM
		if flags&undoAcrossIPC == undoAcrossIPC && (flags&extlinux.CLONE_NEWUSER == 0 || !t.IsChrooted()) {
			return 0, nil, linuxerr.EINVAL
		}
	} else if flags&extlinux.CLONE_NEWNS != 0 {
		// Task.Clone asks no privilege for a mount namespace, but for the
		// others. Asking for one of those too makes it refuse this caller, with
		// EPERM, after everything that is EINVAL.
		flags |= extlinux.CLONE_NEWUTS
	}

	// clone3(2) refuses a number that is no signal; clone4 makes it none.
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
