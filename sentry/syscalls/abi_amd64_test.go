// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	_ "gvisor.dev/gvisor/pkg/sentry/platform/platforms"
	"gvisor.dev/gvisor/pkg/sentry/syscalls/linux"

	extlinux "runsc-ext/abi/linux"
	"runsc-ext/sentry/platform/int80"
)

// TestGVisorRegisters checks which registers a call uses. The number is all of ORIG_RAX, the
// result is in RAX, a restart takes the number from ORIG_RAX, and args64 returns the
// arguments.
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
	if regs.Rax != number || regs.Rip != ip-2 {
		t.Errorf("a restart is of number %#x at %#x, want %#x at %#x", regs.Rax, regs.Rip, uint64(number), ip-2)
	}
}

// TestGVisorPlatforms checks that gVisor has no platform that this package does not know. A
// new platform may report INT $0x80 in another way.
func TestGVisorPlatforms(t *testing.T) {
	want := append(slices.Sorted(maps.Keys(platforms)), "slimvm")
	got := platform.List()
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("gVisor has the platforms %v, and this package knows %v", got, want)
	}
}

// everyABI returns entries for a new call in every ABI of amd64.
func everyABI(number uint32) []Entry {
	return []Entry{
		{ABI: AMD64, Number: number, Call: newCall("newcall")},
		{ABI: X32, Number: number, Call: newCall("newcall")},
		{ABI: I386, Number: number, Call: newCall("newcall")},
	}
}

// TestInstallRefusesHook checks that Install refuses a gVisor version that uses the hook or
// the slot's number, with a message for whoever upgrades gVisor.
func TestInstallRefusesHook(t *testing.T) {
	for _, tc := range []struct {
		name string
		use  func(table *kernel.SyscallTable)
		want []string
	}{
		{
			name: "external hook",
			use:  func(table *kernel.SyscallTable) { table.External = func(*kernel.Kernel) {} },
			want: []string{"external hook"},
		},
		{
			name: "filter of the hook",
			use: func(table *kernel.SyscallTable) {
				table.ExternalFilterBefore = func(*kernel.Task, uintptr, arch.SyscallArguments) bool { return true }
			},
			want: []string{"external hook"},
		},
		{
			name: "slot",
			use: func(table *kernel.SyscallTable) {
				table.Table[slotNumber] = kernel.Syscall{Name: "newer", Fn: answer}
			},
			want: []string{"2000", `"newer"`},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			keepTables(t)
			tc.use(linux.AMD64)
			err := Install(Options{}, everyABI(1999))
			if err == nil {
				t.Fatal("Install succeeded")
			}
			for _, want := range append(tc.want, "build with a gVisor version") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %s", err, want)
				}
			}
		})
	}
}

// TestInstallABIs checks what Install does to gVisor's table and platforms. The slot can be
// called and is not listed. gVisor asks the hook about the numbers of the entries and about
// none of its own calls. Every platform has a gate for INT $0x80.
func TestInstallABIs(t *testing.T) {
	keepTables(t)
	const nr = 1998
	listed := len(linux.AMD64.Table)
	if err := Install(Options{}, everyABI(nr)); err != nil {
		t.Fatal(err)
	}
	table := linux.AMD64
	if table.Lookup(slotNumber) == nil {
		t.Error("the slot is not called")
	}
	if table.FeatureEnable.Word(slotNumber)&kernel.ExternalBeforeEnable != 0 {
		t.Error("the hook is asked about the slot")
	}
	if len(table.Table) != listed+1 {
		t.Errorf("the table lists %d calls, want %d and the entry", len(table.Table), listed)
	}
	for _, low := range []uint32{nr | extlinux.X32_SYSCALL_BIT, nr + int80.SystrapMark} {
		for _, sysno := range []uintptr{uintptr(low), 0xdead<<32 | uintptr(low), 0xdead<<32 | nr} {
			if table.FeatureEnable.Word(sysno)&kernel.ExternalBeforeEnable == 0 {
				t.Errorf("the hook is not asked about %#x", sysno)
			}
		}
	}
	for sysno := range table.Table {
		if table.FeatureEnable.Word(sysno)&kernel.ExternalBeforeEnable != 0 {
			t.Errorf("the hook is asked about %d, %s", sysno, table.LookupName(sysno))
		}
	}
	for name := range platforms {
		if c, err := platform.Lookup(name); err != nil || fmt.Sprintf("%T", c) != "int80.constructor" {
			t.Errorf("platform %s has the constructor %T, %v, want one of package int80", name, c, err)
		}
	}
}

// TestNewABIs checks the lower half of ORIG_RAX by which each ABI's call is found. It also
// checks that positions do not depend on the order of entries, because a checkpoint saves
// positions.
func TestNewABIs(t *testing.T) {
	const nr = 1998
	entries := everyABI(nr)
	x := newABIs(entries)
	type key struct {
		rax   uint32
		int80 bool
		mark  uint32
	}
	keys := func(x *abis) (keys []key) {
		for _, c := range x.calls {
			keys = append(keys, key{c.rax, c.int80, c.mark})
			if c.amd64Number != nr {
				t.Errorf("%#x has the amd64 number %d, want %d", c.rax, c.amd64Number, nr)
			}
		}
		return keys
	}
	got := keys(x)
	for _, want := range []key{
		{rax: nr},
		{rax: nr | extlinux.X32_SYSCALL_BIT},
		{rax: nr, int80: true},
		{rax: nr + int80.SystrapMark, int80: true, mark: int80.SystrapMark},
	} {
		if !slices.Contains(got, want) {
			t.Errorf("the calls are %+v, without %+v", got, want)
		}
	}
	if len(got) != 4 {
		t.Errorf("there are %d calls, want 4", len(got))
	}
	slices.Reverse(entries)
	if again := keys(newABIs(entries)); !slices.Equal(got, again) {
		t.Errorf("the calls of reversed entries are %+v, want %+v", again, got)
	}
}

// TestDecision checks that a decision restores the call and all of ORIG_RAX, and that no
// other value of RAX counts as a decision.
func TestDecision(t *testing.T) {
	x := newABIs(everyABI(1998))
	for position, c := range x.calls {
		for _, upper := range []uint64{0, 1, 0xdeadbeef, 1<<32 - 1} {
			orig := upper<<32 | uint64(c.rax)
			regs := arch.Registers{}
			regs.Orig_rax = orig
			decide(&regs, position)
			regs.Orig_rax = slotNumber
			got, ok := x.decided(&regs)
			if !ok || got != &x.calls[position] {
				t.Errorf("position %d: found %v, %t", position, got, ok)
			}
			if regs.Orig_rax != orig || regs.Rax != uint64(noReturnYet) {
				t.Errorf("position %d: ORIG_RAX is %#x and RAX %#x, want %#x and -ENOSYS", position, regs.Orig_rax, regs.Rax, orig)
			}
			if _, ok := x.decided(&regs); ok {
				t.Errorf("position %d: a decision is taken twice", position)
			}
		}
	}
	for _, rax := range []uint64{
		0, slotNumber, uint64(noReturnYet), 1<<64 - 1,
		decisionMark | uint64(len(x.calls))<<positionShift, // no such call
		decisionMark | (maxCalls-1)<<positionShift,
		decisionMark ^ 1<<40,
	} {
		regs := arch.Registers{}
		regs.Rax, regs.Orig_rax = rax, slotNumber
		if _, ok := x.decided(&regs); ok {
			t.Errorf("RAX %#x is taken for a decision", rax)
		}
		if regs.Rax != rax || regs.Orig_rax != slotNumber {
			t.Errorf("RAX %#x: registers are changed without a decision", rax)
		}
	}
}
