// SPDX-License-Identifier: Apache-2.0

package kit

import (
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"runsc-ext/internal/rawclone"
)

// Features that a machine may lack. A sandbox on systrap or ptrace then lacks the feature too,
// because these platforms execute the guest's instructions directly on the machine.
const (
	lacksInt80     = "INT-0x80"
	lacksOddStacks = "non-canonical-stacks"
)

// HasInt80 returns whether INT $0x80 makes a system call with every number, and not only with
// clone4's. A kernel may lack CONFIG_IA32_EMULATION, and the KVM platform never has the
// instruction.
func HasInt80() bool {
	return Platform() != "kvm" && !strings.Contains(lacks(), lacksInt80)
}

// HasOddStacks returns whether a task can run with a stack pointer that is not canonical.
// The KVM platform cannot run one, and neither can some hypervisors.
func HasOddStacks() bool {
	return Platform() != "kvm" && !strings.Contains(lacks(), lacksOddStacks)
}

// lacks returns the features that the machine lacks, even in a sandbox on the machine.
func lacks() string {
	if Native() || Platform() != "" {
		return os.Getenv(envLacks)
	}
	return machineLacks()
}

// machineLacks finds out which features this machine lacks.
var machineLacks = sync.OnceValue(func() string {
	p := rawclone.NewProgram()
	var lacks []string
	if probe := p.NewList(2); Default().Name == "amd64" {
		const getpid = 20
		o := probe.Append(rawclone.Op{Trap: getpid, Entry: rawclone.Int80})
		probe.ExitTask(0)
		runProbe(p, 0, probe)
		if int(o.Ret) <= 0 {
			lacks = append(lacks, lacksInt80)
		}
	}
	const stack = 1 << 63
	probe := p.NewList(2)
	sp := probe.Sys(rawclone.TrapSP)
	probe.ExitTask(0)
	runProbe(p, stack, probe)
	if sp.Ret != stack {
		lacks = append(lacks, lacksOddStacks)
	}
	return strings.Join(lacks, " ")
})

// runProbe runs a list in a child with its own stack, until the child exits in any way.
func runProbe(p *rawclone.Program, stack uint64, probe *rawclone.List) {
	start := p.List(rawclone.Op{Trap: unix.SYS_CLONE, Args: [6]uintptr{uintptr(SIGCHLD), uintptr(stack)}, Child: probe.First()})
	pid, errno := rawclone.Do(start)
	for errno == 0 {
		if _, err := unix.Wait4(int(pid), nil, unix.WALL, nil); err != unix.EINTR {
			return
		}
	}
}
