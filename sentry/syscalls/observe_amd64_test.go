// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"fmt"
	"testing"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/syscalls/linux"

	extlinux "runsc-ext/abi/linux"
	"runsc-ext/sentry/platform/int80"
)

// TestObserve checks that Observe reports the calls of the entries by ABI, reports no other
// calls, and leaves the results of all calls unchanged.
func TestObserve(t *testing.T) {
	keepTables(t)
	const number, x32, i386 = 323, 546, 359
	table := linux.AMD64
	stock := table.Table[number]
	stock.Fn = answer
	table.Table[number] = stock
	table.Missing = func(*kernel.Task, uintptr, arch.SyscallArguments) (uintptr, error) { return 0, linuxerr.ENOSYS }

	var reported []ABI
	Observe([]Entry{
		{ABI: AMD64, Number: number, Call: newCall("new")},
		{ABI: X32, Number: x32, Call: newCall("new")},
		{ABI: I386, Number: i386, Call: newCall("new")},
	}, func(abi ABI) { reported = append(reported, abi) })

	if got := table.Table[number]; got.Name != stock.Name || got.SupportLevel != stock.SupportLevel {
		t.Errorf("%d is %q (%v), want %q (%v)", number, got.Name, got.SupportLevel, stock.Name, stock.SupportLevel)
	}
	for _, tc := range []struct {
		name  string
		sysno uintptr
		want  []ABI
	}{
		{name: "amd64", sysno: number, want: []ABI{AMD64}},
		{name: "amd64, upper bits", sysno: 1<<40 | number, want: []ABI{AMD64}},
		{name: "x32", sysno: extlinux.X32_SYSCALL_BIT | x32, want: []ABI{X32}},
		{name: "i386", sysno: i386, want: []ABI{I386}},
		{name: "i386 on systrap", sysno: i386 + int80.SystrapMark, want: []ABI{I386}},
		{name: "x32's number without its bit", sysno: x32},
		{name: "another", sysno: 1000},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reported = nil
			var rval uintptr
			var err error
			wantVal, wantErr := uintptr(0), error(linuxerr.ENOSYS)
			if fn := table.Lookup(tc.sysno); fn != nil {
				rval, _, err = fn(nil, tc.sysno, arch.SyscallArguments{})
				wantVal, wantErr = 42, nil
			} else {
				rval, err = table.Missing(nil, tc.sysno, arch.SyscallArguments{})
			}
			if rval != wantVal || err != wantErr {
				t.Errorf("got %d, %v, want %d, %v", rval, err, wantVal, wantErr)
			}
			if got, want := fmt.Sprint(reported), fmt.Sprint(tc.want); got != want {
				t.Errorf("reported %s, want %s", got, want)
			}
		})
	}
}
