package clone4

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"

	"runsc-ext/abi/linux"
)

// flagNames are the names of the flags, in the order of their bits, and the two of
// LevelFD by those that they have there.
var flagNames = abi.FlagSet{
	{Flag: linux.CLONE_VM, Name: "CLONE_VM"},
	{Flag: linux.CLONE_FS, Name: "CLONE_FS"},
	{Flag: linux.CLONE_FILES, Name: "CLONE_FILES"},
	{Flag: linux.CLONE_SIGHAND, Name: "CLONE_SIGHAND"},
	{Flag: linux.CLONE_AUTOREAP, Name: "CLONE_AUTOREAP"},
	{Flag: linux.CLONE_PTRACE, Name: "CLONE_PTRACE"},
	{Flag: linux.CLONE_VFORK, Name: "CLONE_VFORK"},
	{Flag: linux.CLONE_PARENT, Name: "CLONE_PARENT"},
	{Flag: linux.CLONE_THREAD, Name: "CLONE_THREAD"},
	{Flag: linux.CLONE_NEWNS, Name: "CLONE_NEWNS"},
	{Flag: linux.CLONE_SYSVSEM, Name: "CLONE_SYSVSEM"},
	{Flag: linux.CLONE_SETTLS, Name: "CLONE_SETTLS"},
	{Flag: linux.CLONE_PARENT_SETTID, Name: "CLONE_PARENT_SETTID"},
	{Flag: linux.CLONE_CHILD_CLEARTID, Name: "CLONE_CHILD_CLEARTID"},
	{Flag: linux.CLONE_FD, Name: "CLONE_FD"},
	{Flag: linux.CLONE_UNTRACED, Name: "CLONE_UNTRACED"},
	{Flag: linux.CLONE_CHILD_SETTID, Name: "CLONE_CHILD_SETTID"},
	{Flag: linux.CLONE_STOPPED, Name: "CLONE_STOPPED"},
	{Flag: linux.CLONE_NEWUTS, Name: "CLONE_NEWUTS"},
	{Flag: linux.CLONE_NEWIPC, Name: "CLONE_NEWIPC"},
	{Flag: linux.CLONE_NEWUSER, Name: "CLONE_NEWUSER"},
	{Flag: linux.CLONE_NEWPID, Name: "CLONE_NEWPID"},
	{Flag: linux.CLONE_NEWNET, Name: "CLONE_NEWNET"},
	{Flag: linux.CLONE_IO, Name: "CLONE_IO"},
}

// fieldNames are the fields of the struct, in order, with those of LevelFD.
var fieldNames = [fdFields]string{"ptid", "ctid", "stack_start", "stack_size", "tls", "clonefd", "clonefd_flags"}

// format is how strace prints the arguments of Clone4.
func format(t *kernel.Task, args arch.SyscallArguments) []string {
	return formatArgs(t, args, args[2].Uint64(), 8)
}

// compatFormat is how strace prints the arguments of CompatClone4.
func compatFormat(t *kernel.Task, args arch.SyscallArguments) []string {
	return formatArgs(t, args, uint64(args[2].Uint()), 4)
}

func formatArgs(t *kernel.Task, args arch.SyscallArguments, size uint64, word int) []string {
	return []string{formatFlags(cloneFlags(args)), fmt.Sprint(size), formatStruct(t, args, size, word)}
}

// formatFlags returns flags by their names, those that have none as a number, and
// the exit signal.
func formatFlags(flags uint64) string {
	sig := flags & linux.CSIGNAL
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
	return flagNames.Parse(flags&^linux.CSIGNAL) + "|" + name
}

// formatStruct returns the address of the struct and those of its fields that were
// passed. It leaves them out where clone4 does not look at them.
func formatStruct(t *kernel.Task, args arch.SyscallArguments, size uint64, word int) string {
	addr := args[3].Pointer()
	if size == 0 && addr == 0 {
		return "null"
	}
	if size == 0 || size > uint64(fdFields*word) {
		return fmt.Sprintf("%#x", addr)
	}
	// Not the task's scratch buffer: this is no part of the call.
	var buf [linux.SizeOfClone4FDArgs]byte
	if _, err := t.CopyInBytes(addr, buf[:size]); err != nil {
		return fmt.Sprintf("%#x (error reading the struct: %v)", addr, err)
	}
	return fmt.Sprintf("%#x {%s}", addr, formatFields(buf[:], size, word))
}

func formatFields(buf []byte, size uint64, word int) string {
	a := decodeFD(buf, word)
	var passed []string
	for i, value := range [fdFields]uint64{a.Ptid, a.Ctid, a.StackStart, a.StackSize, a.TLS, a.Clonefd, uint64(a.ClonefdFlags)} {
		if uint64(i*word) < size {
			passed = append(passed, fmt.Sprintf("%s: %#x", fieldNames[i], value))
		}
	}
	return strings.Join(passed, ", ")
}
