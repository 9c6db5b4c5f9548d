package kernel

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	_ "gvisor.dev/gvisor/pkg/sentry/platform/platforms"

	"runsc-ext/abi/linux"
)

// Where the registers of a call are: the number is all of ORIG_RAX, the result and
// nothing else is RAX, a restart takes the number from ORIG_RAX, and the arguments
// are those that args64 takes.
func TestGVisorRegisters(t *testing.T) {
	const (
		number = 0xdead000040000222
		ip     = 0x401000
	)
	c := new(arch.Context64)
	regs := &c.StateData().Regs
	regs.Orig_rax, regs.Rax, regs.Rip = number, 1, ip
	regs.Rdi, regs.Rsi, regs.Rdx, regs.R10, regs.R8, regs.R9 = 11, 12, 13, 14, 15, 16
	regs.Rbx, regs.Rcx, regs.Rbp = 21, 22, 23

	c.SyscallSaveOrig()
	if got := c.SyscallNo(); got != number {
		t.Errorf("the number is %#x, want all of ORIG_RAX, %#x", got, uint64(number))
	}
	if got, want := c.SyscallArgs(), args64(regs); got != want {
		t.Errorf("the arguments are %v, want %v", got, want)
	}
	if got := c.IP(); got != ip {
		t.Errorf("the instruction pointer is %#x, want %#x", got, ip)
	}
	c.SetReturn(noReturnYet)
	if got := -int64(regs.Rax); got != int64(unix.ENOSYS) || regs.Orig_rax != number {
		t.Errorf("after SetReturn, RAX is -%d and ORIG_RAX %#x, want -ENOSYS and the number", got, regs.Orig_rax)
	}
	c.RestartSyscall()
	if regs.Rax != number || regs.Rip != ip-uint64(len(int80)) {
		t.Errorf("a restart is of number %#x at %#x, want %#x at %#x", regs.Rax, regs.Rip, uint64(number), ip-len(int80))
	}
}

// The platforms that candidates and withInt80 know. A new one marks INT $0x80 in a
// way of its own, or faults, and then i386's clone4 is not there, or is not told
// from amd64's numbers. (The slimvm platform is such a one: nothing has been tried
// on it.)
func TestGVisorPlatforms(t *testing.T) {
	known := map[string]bool{"kvm": true, "ptrace": true, "slimvm": true, "systrap": true}
	for _, name := range platform.List() {
		if !known[name] && !strings.HasPrefix(name, "test-") {
			t.Errorf("gVisor has a platform %q that this package does not know", name)
		}
		delete(known, name)
	}
	for name := range known {
		t.Errorf("gVisor has no platform %q any more", name)
	}
}

// InstallABIs needs two things that gVisor has not used so far. When it comes to use
// one, a build must fail to start. The messages are for whoever upgrades gVisor.
func TestInstallABIsRefuses(t *testing.T) {
	X32.Table[1] = Call{Syscall: kernel.Syscall{Name: "newcall", Fn: answer}}
	defer func() {
		delete(X32.Table, 1)
		slots = nil
	}()
	check := func(what string, want ...string) {
		t.Helper()
		missing := AMD64.Missing
		err := InstallABIs()
		AMD64.Missing = missing
		slots = nil
		if err == nil {
			t.Fatalf("InstallABIs succeeded though there is %s", what)
		}
		for _, want := range append(want, "build with a gVisor version") {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q does not say %s", what, err, want)
			}
		}
	}

	AMD64.External = func(*kernel.Kernel) {}
	check("an external hook", "external hook")
	AMD64.External = nil

	AMD64.ExternalFilterBefore = func(*kernel.Task, uintptr, arch.SyscallArguments) bool { return true }
	check("a filter of the hook", "external hook")
	AMD64.ExternalFilterBefore = nil

	AMD64.Table[firstSlot] = kernel.Syscall{Name: "newer", Fn: answer}
	check("a call at the number of a slot", "1990", `"newer"`)
	delete(AMD64.Table, firstSlot)
}

// After InstallABIs the sentry finds what the tables have, by way of gVisor's own
// table: slots can be called and are not listed, the hook is asked about the numbers
// that need it and about no call of gVisor's, and the KVM platform is the one with a
// gate for INT $0x80.
func TestInstallABIs(t *testing.T) {
	const nr = 546
	X32.Table[nr] = Call{Syscall: kernel.Syscall{Name: "newcall", Fn: answer}}
	I386.Table[nr] = Call{Syscall: kernel.Syscall{Name: "newcall", Fn: answer}}
	AMD64Low32.Table[nr] = Call{Syscall: kernel.Syscall{Name: "newcall", Fn: answer}}
	listed := len(AMD64.Table)
	if err := InstallABIs(); err != nil {
		t.Fatal(err)
	}

	want := []uint32{nr | linux.X32_SYSCALL_BIT, nr, nr + i386Mark, nr}
	if len(slots) != len(want) {
		t.Errorf("the slots are for %#x, want %#x", slots, want)
	}
	for i := range slots {
		sysno := uintptr(firstSlot + i)
		if AMD64.Lookup(sysno) == nil {
			t.Errorf("slot %d is not called", i)
		}
		if _, ok := AMD64.Table[sysno]; ok {
			t.Errorf("slot %d is listed", i)
		}
		if AMD64.FeatureEnable.Word(sysno)&kernel.ExternalBeforeEnable != 0 {
			t.Errorf("the hook is asked about slot %d", i)
		}
	}
	if len(AMD64.Table) != listed {
		t.Errorf("the table lists %d calls, was %d", len(AMD64.Table), listed)
	}
	for _, low := range want {
		for _, sysno := range []uintptr{uintptr(low), 0xdead<<32 | uintptr(low)} {
			if AMD64.FeatureEnable.Word(sysno)&kernel.ExternalBeforeEnable == 0 {
				t.Errorf("the hook is not asked about %#x", sysno)
			}
		}
	}
	for sysno := range AMD64.Table {
		if AMD64.FeatureEnable.Word(sysno)&kernel.ExternalBeforeEnable != 0 {
			t.Errorf("the hook is asked about %d, %s", sysno, AMD64.LookupName(sysno))
		}
	}
	kvm, err := platform.Lookup("kvm")
	if _, ok := kvm.(int80Constructor); !ok || err != nil {
		t.Errorf("the kvm platform is made by %T, %v, want ours", kvm, err)
	}
}
