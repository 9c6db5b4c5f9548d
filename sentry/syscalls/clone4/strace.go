// SPDX-License-Identifier: Apache-2.0

package clone4

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"

	extlinux "runsc-ext/abi/linux"
)

// flagNames are the names of the flags, in the order of their bits. CLONE_AUTOREAP and
// CLONE_FD are the names of the bits of CLONE_PID and CLONE_DETACHED at LevelFD.
var flagNames = abi.FlagSet{
	{Flag: extlinux.CLONE_VM, Name: "CLONE_VM"},
	{Flag: extlinux.CLONE_FS, Name: "CLONE_FS"},
	{Flag: extlinux.CLONE_FILES, Name: "CLONE_FILES"},
	{Flag: extlinux.CLONE_SIGHAND, Name: "CLONE_SIGHAND"},
	{Flag: extlinux.CLONE_AUTOREAP, Name: "CLONE_AUTOREAP"},
	{Flag: extlinux.CLONE_PTRACE, Name: "CLONE_PTRACE"},
	{Flag: extlinux.CLONE_VFORK, Name: "CLONE_VFORK"},
	{Flag: extlinux.CLONE_PARENT, Name: "CLONE_PARENT"},
	{Flag: extlinux.CLONE_THREAD, Name: "CLONE_THREAD"},
	{Flag: extlinux.CLONE_NEWNS, Name: "CLONE_NEWNS"},
	{Flag: extlinux.CLONE_SYSVSEM, Name: "CLONE_SYSVSEM"},
	{Flag: extlinux.CLONE_SETTLS, Name: "CLONE_SETTLS"},
	{Flag: extlinux.CLONE_PARENT_SETTID, Name: "CLONE_PARENT_SETTID"},
	{Flag: extlinux.CLONE_CHILD_CLEARTID, Name: "CLONE_CHILD_CLEARTID"},
	{Flag: extlinux.CLONE_FD, Name: "CLONE_FD"},
	{Flag: extlinux.CLONE_UNTRACED, Name: "CLONE_UNTRACED"},
	{Flag: extlinux.CLONE_CHILD_SETTID, Name: "CLONE_CHILD_SETTID"},
	{Flag: extlinux.CLONE_STOPPED, Name: "CLONE_STOPPED"},
	{Flag: extlinux.CLONE_NEWUTS, Name: "CLONE_NEWUTS"},
	{Flag: extlinux.CLONE_NEWIPC, Name: "CLONE_NEWIPC"},
	{Flag: extlinux.CLONE_NEWUSER, Name: "CLONE_NEWUSER"},
	{Flag: extlinux.CLONE_NEWPID, Name: "CLONE_NEWPID"},
	{Flag: extlinux.CLONE_NEWNET, Name: "CLONE_NEWNET"},
	{Flag: extlinux.CLONE_IO, Name: "CLONE_IO"},
}

// fieldNames are the names of the fields of the struct at LevelFD, in order.
var fieldNames = [fieldsFD]string{"ptid", "ctid", "stack_start", "stack_size", "tls", "clonefd", "clonefd_flags"}

// format implements extsyscalls.Format.
func (h handler) format(t *kernel.Task, args arch.SyscallArguments) []string {
	return []string{formatFlags(cloneFlags(args)), fmt.Sprint(h.size(args)), h.formatStruct(t, args)}
}

// formatFlags returns the flags and the exit signal. A flag without a name is printed
// as a number.
func formatFlags(flags uint64) string {
	sig := flags & extlinux.CSIGNAL
	name := unix.SignalName(unix.Signal(sig))
	switch {
	case sig == 0:
		return flagNames.Parse(flags)
	case name == "":
		name = fmt.Sprint(sig)
	}
	if flags == sig {
		return name
	}
	return flagNames.Parse(flags&^extlinux.CSIGNAL) + "|" + name
}

// formatStruct returns the address of the struct and the fields that the caller passes. It
// omits the fields if the size keeps clone4 from reading them.
func (h handler) formatStruct(t *kernel.Task, args arch.SyscallArguments) string {
	addr, size := args[3].Pointer(), h.size(args)
	if size == 0 && addr == 0 {
		return "null"
	}
	if size == 0 || size > uint64(h.fields*h.word) {
		return fmt.Sprintf("%#x", addr)
	}
	// The scratch buffer of the task is in use by the call.
	buf := make([]byte, h.fields*h.word)
	if _, err := t.CopyInBytes(addr, buf[:size]); err != nil {
		return fmt.Sprintf("%#x (error reading the struct: %v)", addr, err)
	}
	return fmt.Sprintf("%#x {%s}", addr, h.formatFields(buf, size))
}

// formatFields returns the fields in the first size bytes of a struct.
func (h handler) formatFields(buf []byte, size uint64) string {
	var passed []string
	for i := range min(h.fields, int(size+uint64(h.word)-1)/h.word) {
		value := h.field(buf, i)
		if fieldNames[i] == "clonefd_flags" {
			value = uint64(uint32(value))
		}
		passed = append(passed, fmt.Sprintf("%s: %#x", fieldNames[i], value))
	}
	return strings.Join(passed, ", ")
}
