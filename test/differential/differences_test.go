// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/test/kit"
)

// difference is a difference between gVisor and Linux that is not one of clone4: with -older, it
// shows for clone(2) too. On arm64, it may be a difference from amd64, on which testdata was
// recorded.
type difference struct {
	name string
	why  string

	// affects returns whether the difference can show in a call on a machine.
	affects func(c *call, on machine) bool

	// fields are the names of the fields that are not compared, or nil for all fields.
	fields []string
}

// machine is the architecture and the platform of a sandbox.
type machine struct{ arch, platform string }

var knownDifferences = []difference{
	{
		name: "half an ID",
		why:  "for an ID that crosses the end of writable memory, Linux writes nothing, and gVisor writes the first bytes",
		affects: func(c *call, _ machine) bool {
			return c.ptid == atStraddling && c.has(linux.CLONE_PARENT_SETTID) ||
				c.ctidPlace() == atStraddling && c.flags&(linux.CLONE_CHILD_SETTID|linux.CLONE_CHILD_CLEARTID) != 0
		},
		fields: []string{"child-ptid", "child-ctid", "live-ptid", "live-ctid", "final-ptid", "final-ctid"},
	},
	{
		name:    "CLEARTID, memory not shared",
		why:     "Linux clears *ctid only if another task shares the child's memory; gVisor always clears it, which shows if ctid is in a shared mapping",
		affects: func(c *call, _ machine) bool { return clears(c) && !c.has(linux.CLONE_VM) && c.ctidPlace() == atShared },
		fields:  clearedFields,
	},
	{
		name:    "CLEARTID, execve",
		why:     "Linux clears *ctid when the child stops sharing memory, also by execve; gVisor does not clear it at execve",
		affects: func(c *call, _ machine) bool { return clears(c) && c.end == endExec },
		fields:  clearedFields,
	},
	{
		name:    "CLEARTID, killed",
		why:     "Linux clears *ctid even if a signal kills the child; gVisor does not",
		affects: func(c *call, _ machine) bool { return clears(c) && c.end == endKill },
		fields:  clearedFields,
	},
	{
		name: "own ID, parent's ID",
		why:  "if ptid and ctid are the same word for parent and child, and the child's ID differs in its PID namespace, Linux leaves the child's view of the ID there, and gVisor the parent's",
		affects: func(c *call, _ machine) bool {
			return c.has(linux.CLONE_NEWPID|linux.CLONE_PARENT_SETTID|linux.CLONE_CHILD_SETTID) && c.ctid == atPtid && (c.has(linux.CLONE_VM) || c.ptid == atShared)
		},
		fields: []string{"child-ptid", "child-ctid", "live-ptid", "live-ctid", "final-ptid", "final-ctid"},
	},
	{
		name:    "init kills itself",
		why:     "the first process of a PID namespace cannot send itself SIGKILL in Linux, and can in gVisor",
		affects: func(c *call, _ machine) bool { return c.has(linux.CLONE_NEWPID) && c.end == endKill },
		fields:  []string{"plain", "clone", "signal", "sibling", "clone-sibling", "live-ptid", "live-ctid", "final-ptid", "final-ctid"},
	},
	{
		name:    "init with shared handlers",
		why:     "when the first process of a PID namespace exits, Linux sets SIGCHLD to ignored for it, and so for a parent that shares its handlers: the child is reaped before the parent waits. gVisor does not do this",
		affects: func(c *call, _ machine) bool { return reapsItself(c) },
		fields:  []string{"plain", "signal"},
	},
	{
		name: "non-canonical stack pointer",
		why:  "the KVM platform and some hypervisors cannot run a task with a non-canonical stack pointer",
		affects: func(c *call, on machine) bool {
			return c.hasOddStack() && (on.platform == "kvm" || on.arch == runtime.GOARCH && !kit.HasOddStacks())
		},
	},
	{
		name:    "number on arm64",
		why:     "Linux takes the syscall number from the low half of a register; on arm64, gVisor takes it from the whole register, for every call",
		affects: func(c *call, on machine) bool { return on.arch == "arm64" && c.number != 0 },
	},
	{
		name: "half an address on arm64",
		why:  "only on amd64 is the memory of these tests below 4 GB: on arm64, four to seven bytes of an address are another address",
		affects: func(c *call, on machine) bool {
			return on.arch == "arm64" && c.size < linux.SizeOfClone4Args && c.size%8 >= 4
		},
	},
	{
		name: "CLEARTID, read-only memory on arm64",
		why:  "on arm64, gVisor clears *ctid even in a read-only page, by clone(2) as well",
		affects: func(c *call, on machine) bool {
			return on.arch == "arm64" && clears(c) && c.has(linux.CLONE_VM) && c.ctidPlace() == atReadOnly
		},
		fields: clearedFields,
	},
	{
		name: "thread pointer on arm64",
		why:  "on arm64, Linux accepts any value; the calls are compared with amd64",
		affects: func(c *call, on machine) bool {
			return on.arch == "arm64" && c.has(linux.CLONE_SETTLS) && c.passed(linux.Clone4Args{TLS: threadPointers[c.tls]}).TLS >= 1<<47-4096
		},
	},
}

// reapsItself returns whether the child is reaped because it was the first process of a PID
// namespace, and shared signal handlers with its parent: see "init with shared handlers".
func reapsItself(c *call) bool {
	return c.has(linux.CLONE_NEWPID|linux.CLONE_SIGHAND) && !c.has(linux.CLONE_PARENT) && c.signal() == uint64(unix.SIGCHLD) && c.end != endExec
}

// hasOddStack returns whether the child's stack pointer is not canonical.
func (c *call) hasOddStack() bool {
	sp := int64(c.passed(linux.Clone4Args{StackStart: stacks[c.stack]}).StackStart)
	return sp != sp<<16>>16
}

func clears(c *call) bool { return c.has(linux.CLONE_CHILD_CLEARTID) }

// clearedFields are the fields that show whether *ctid was cleared. ptid may be the same address.
var clearedFields = []string{"live-ptid", "live-ctid", "final-ptid", "final-ctid"}

// without returns an outcome without some fields.
func without(outcome string, fields []string) string {
	if fields == nil {
		return ""
	}
	return strings.Join(slices.DeleteFunc(strings.Fields(outcome), func(f string) bool {
		name, _, _ := strings.Cut(f, "=")
		return slices.Contains(fields, name)
	}), " ")
}
