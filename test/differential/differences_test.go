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

// difference is where gVisor differs from Linux outside of clone4: with -older the
// same shows for clone(2). On arm64 it may be where amd64 differs, on which the
// calls were made that those there are compared with.
type difference struct {
	name string
	why  string

	// affects returns whether a call that is made on a machine meets it.
	affects func(c *call, on machine) bool

	// fields are the names of what is not compared; nil if nothing is.
	fields []string
}

// machine is what a sandbox runs on.
type machine struct{ arch, platform string }

var knownDifferences = []difference{
	{
		name: "half an ID",
		why:  "where an ID is written across the end of writable memory, Linux writes nothing and gVisor the first bytes",
		affects: func(c *call, _ machine) bool {
			return c.ptid == atStraddling && c.has(linux.CLONE_PARENT_SETTID) ||
				c.ctidPlace() == atStraddling && c.flags&(linux.CLONE_CHILD_SETTID|linux.CLONE_CHILD_CLEARTID) != 0
		},
		fields: []string{"child-ptid", "child-ctid", "live-ptid", "live-ctid", "final-ptid", "final-ctid"},
	},
	{
		name:    "CLEARTID, memory not shared",
		why:     "Linux clears *ctid only if another task has the child's memory; gVisor always does, which shows where ctid is in a shared mapping",
		affects: func(c *call, _ machine) bool { return clears(c) && !c.has(linux.CLONE_VM) && c.ctidPlace() == atShared },
		fields:  clearedFields,
	},
	{
		name:    "CLEARTID, execve",
		why:     "Linux clears *ctid when the child leaves the memory that it shares; gVisor does not if it leaves it by execve",
		affects: func(c *call, _ machine) bool { return clears(c) && c.end == endExec },
		fields:  clearedFields,
	},
	{
		name:    "CLEARTID, killed",
		why:     "Linux clears *ctid also if a signal ended the child; gVisor does not",
		affects: func(c *call, _ machine) bool { return clears(c) && c.end == endKill },
		fields:  clearedFields,
	},
	{
		name: "own ID, parent's ID",
		why:  "where ptid and ctid are the same word for parent and child and the child has another ID in its PID namespace, that is what Linux leaves there, and gVisor the parent's",
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
		why:     "when the first process of a PID namespace ends, Linux ignores SIGCHLD for it, and so for a parent that shares its handlers: that has nothing to wait for. gVisor does not",
		affects: func(c *call, _ machine) bool { return reapsItself(c) },
		fields:  []string{"plain", "signal"},
	},
	{
		name: "non-canonical stack pointer",
		why:  "the KVM platform and some hypervisors cannot run a task whose stack pointer is not canonical",
		affects: func(c *call, on machine) bool {
			return c.hasOddStack() && (on.platform == "kvm" || on.arch == runtime.GOARCH && !kit.HasOddStacks())
		},
	},
	{
		name:    "number on arm64",
		why:     "Linux takes the low half of a register for the number of a system call; gVisor takes all of it on arm64, for every call",
		affects: func(c *call, on machine) bool { return on.arch == "arm64" && c.number != 0 },
	},
	{
		name: "half an address on arm64",
		why:  "the memory of these tests is below 4 GB on amd64 only: four to seven bytes of an address are another address on arm64",
		affects: func(c *call, on machine) bool {
			return on.arch == "arm64" && c.size < linux.SizeOfClone4Args && c.size%8 >= 4
		},
	},
	{
		name: "thread pointer on arm64",
		why:  "Linux takes any value on arm64; what these calls are compared with is amd64",
		affects: func(c *call, on machine) bool {
			return on.arch == "arm64" && c.has(linux.CLONE_SETTLS) && c.passed(linux.Clone4Args{TLS: threadPointers[c.tls]}).TLS >= 1<<47-4096
		},
	},
}

// reapsItself returns whether a child that was the first process of its PID
// namespace has made its parent ignore SIGCHLD, and so been reaped.
func reapsItself(c *call) bool {
	return c.has(linux.CLONE_NEWPID|linux.CLONE_SIGHAND) && !c.has(linux.CLONE_PARENT) && c.signal() == uint64(unix.SIGCHLD) && c.end != endExec
}

// hasOddStack returns whether the child's stack pointer is not canonical.
func (c *call) hasOddStack() bool {
	sp := int64(c.passed(linux.Clone4Args{StackStart: stacks[c.stack]}).StackStart)
	return sp != sp<<16>>16
}

func clears(c *call) bool { return c.has(linux.CLONE_CHILD_CLEARTID) }

// clearedFields show that *ctid was cleared. ptid may be the same address.
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
