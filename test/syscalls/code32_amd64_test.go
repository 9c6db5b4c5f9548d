// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// The program is machine code that calls clone4 in 32-bit code. The address of its data is in
// RSI at first, and then in EBP. In a 64-bit process, only SS is set up for data in 32-bit code,
// so the code addresses all memory through EBP or ESP.
var (
	enter32 = []byte{
		0x89, 0xf5, //                                   mov %esi, %ebp
		0x8b, 0x65, callerStack, //                      mov callerStack(%rbp), %esp
		0xff, 0x6d, farTo32, //                          ljmp *farTo32(%rbp)
	}

	// call32 has the same effect in 64-bit code: see TestCode32.
	call32 = []byte{
		0x31, 0xdb, //                                   xor %ebx, %ebx
		0x8b, 0x4d, callFlags, //                        mov callFlags(%ebp), %ecx
		0xba, 20, 0, 0, 0, //                            mov $20, %edx
		0x8d, 0x75, callArgs, //                         lea callArgs(%ebp), %esi
		0xb8, 0x67, 1, 0, 0, //                          mov $359, %eax
		0xcd, 0x80, //                                   int $0x80

		0x31, 0xff, //                                   xor %edi, %edi
		0x85, 0xc0, //                                   test %eax, %eax
		0x75, 3, //                                      jnz 1f
		0x83, 0xc7, sizeOfRecord, //                     add $sizeOfRecord, %edi
		0x89, 0x44, 0x3d, records + recordEAX, //     1: mov %eax, records+recordEAX(%ebp, %edi)
		0x89, 0x64, 0x3d, records + recordESP, //        mov %esp, records+recordESP(%ebp, %edi)
		0x8c, 0x4c, 0x3d, records + recordCS, //         mov %cs, records+recordCS(%ebp, %edi)
		0x8b, 0x45, childCS, //                          mov childCS(%ebp), %eax
		0x89, 0x44, 0x3d, records + recordSeen, //       mov %eax, records+recordSeen(%ebp, %edi)
		0xff, 0x6d, farTo64, //                          ljmp *farTo64(%ebp)
	}

	// After 32-bit code, the upper halves of registers are undefined.
	exit64 = []byte{
		0x89, 0xed, //                                   mov %ebp, %ebp
		0x89, 0xff, //                                   mov %edi, %edi
		0x8b, 0x7c, 0x3d, records + recordEAX, //        mov records+recordEAX(%rbp, %rdi), %edi
		0x85, 0xff, //                                   test %edi, %edi
		0x74, 26, //                                     jz 1f
		0x48, 0x8d, 0x75, waitStatus, //                 lea waitStatus(%rbp), %rsi
		0xba, 0, 0, 0, 0x40, //                          mov $__WALL, %edx
		0x45, 0x31, 0xd2, //                             xor %r10d, %r10d
		0xb8, unix.SYS_WAIT4, 0, 0, 0, //                mov $SYS_wait4, %eax
		0x0f, 0x05, //                                   syscall
		0x89, 0x45, waitResult, //                       mov %eax, waitResult(%rbp)
		0x31, 0xff, //                                   xor %edi, %edi
		0xeb, 5, //                                      jmp 2f
		0xbf, madeStatus, 0, 0, 0, //                1: mov $madeStatus, %edi
		0xb8, unix.SYS_EXIT_GROUP, 0, 0, 0, //        2: mov $SYS_exit_group, %eax
		0x0f, 0x05, //                                   syscall
	}
)

const (
	// Offsets of 32-bit words in the program's data.
	callerStack = 0
	callFlags   = 4
	callArgs    = 8
	farTo32     = 28 // an offset and a segment, as the next
	farTo64     = 36
	records     = 44 // that of the caller, then that of the child
	waitResult  = 76
	waitStatus  = 80
	sizeOfData  = 84

	// Offsets in the record that each task writes when its call has returned.
	recordEAX    = 0
	recordESP    = 4
	recordCS     = 8
	recordSeen   = 12 // childCS at that time
	sizeOfRecord = 16
	childCS      = records + sizeOfRecord + recordCS

	cs32, cs64 = 0x23, 0x33
	madeStatus = 9
)

// TestCode32 checks a call by 32-bit code. The child begins on the stack that the call gives it, and
// on the reference kernel in 32-bit code.
//
// A sandbox does not support 32-bit code for any call, as under stock runsc. On systrap, a task
// goes on in 64-bit code after each visit to the sentry. The ptrace platform takes the registers
// of 32-bit code for those of 64-bit code. It reads a wrong number, and if it interrupts the task,
// it kills that task or another one. KVM has no such segment.
func TestCode32(t *testing.T) {
	native := kit.Native()
	if platform := kit.Platform(); !native && platform != "systrap" {
		t.Skipf("no 32-bit code on %s", platform)
	}
	if !kit.HasInt80() {
		t.Skip("the host kernel has no IA-32 emulation, so no 32-bit code")
	}
	for _, tc := range []struct {
		name    string
		flags   uint64
		stack   bool // give one
		filter  *filter
		native  string
		systrap string
	}{
		{name: "fork", flags: kit.SIGCHLD, native: child, systrap: child},
		{name: "fork, stack", flags: kit.SIGCHLD, stack: true, native: child, systrap: child},
		{name: "VFORK", flags: linux.CLONE_VFORK | kit.SIGCHLD, native: child, systrap: child},
		{name: "VFORK VM", flags: linux.CLONE_VFORK | linux.CLONE_VM | kit.SIGCHLD, stack: true, native: child, systrap: child},
		{name: "VM", flags: linux.CLONE_VM | kit.SIGCHLD, stack: true, native: child, systrap: child},
		// In a sandbox, a task with a filter has no i386 call; see TestSeccomp.
		{name: "filter that allows", flags: kit.SIGCHLD, filter: &filter{otherwise: retAllow}, native: child, systrap: enosys},
		{name: "filter that allows, VFORK", flags: linux.CLONE_VFORK | kit.SIGCHLD, filter: &filter{otherwise: retAllow}, native: child, systrap: enosys},
		{name: "filter that refuses", flags: kit.SIGCHLD, filter: &filter{[]rule{{arch: archAMD64, last: 1<<32 - 1, action: retAllow}}, retRefuse}, native: eperm, systrap: enosys},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want, cs := tc.native, uint32(cs32)
			if !native {
				want, cs = tc.systrap, cs64
			}

			s := kit.NewScript(t)
			code := kit.Memory(t, 1)
			copy(code, slices.Concat(enter32, call32, exit64))
			if err := unix.Mprotect(code, unix.PROT_READ|unix.PROT_EXEC); err != nil {
				t.Fatal(err)
			}
			data := s.Buffer(sizeOfData)
			get := func(offset int) uint32 { return binary.LittleEndian.Uint32(data[offset:]) }
			put := func(offset int, v ...uint32) {
				if _, err := binary.Encode(data[offset:], binary.LittleEndian, v); err != nil {
					t.Fatal(err)
				}
			}
			callerESP := uint32(kit.Stack(t))
			childESP, stackStart := callerESP, uint32(0)
			if tc.stack {
				childESP = uint32(kit.Stack(t))
				stackStart = childESP
			}
			in32 := uint32(rawclone.AddrOf(code)) + uint32(len(enter32))
			put(callerStack, callerESP)
			put(callFlags, uint32(tc.flags))
			put(callArgs, 0, 0, stackStart, 0, 0)
			put(farTo32, in32, cs32)
			put(farTo64, in32+uint32(len(call32)), cs64)
			if tc.filter != nil {
				tc.filter.install(s.List, false)
			}
			s.Sys(rawclone.TrapJump, code, data)
			s.Run()

			type record struct{ eax, esp, cs uint32 }
			recordAt := func(i int) record {
				return record{eax: get(i + recordEAX), esp: get(i + recordESP), cs: get(i + recordCS)}
			}
			caller, made := recordAt(records), recordAt(records+sizeOfRecord)
			wantCaller, wantMade := record{eax: caller.eax, esp: callerESP, cs: cs}, record{esp: childESP, cs: cs}
			if want == child {
				result, ws := get(waitResult), unix.WaitStatus(get(waitStatus))
				if int32(caller.eax) <= 0 || result != caller.eax || ws.ExitStatus() != madeStatus {
					t.Errorf("clone4 returned %#x, and wait4 %#x with %s, want a child with exit status %d", caller.eax, result, kit.Status(ws), madeStatus)
				}
			} else {
				wantMade = record{}
				if got := kit.ErrnoName(unix.Errno(-caller.eax)); got != want {
					t.Errorf("clone4 returned %#x, want %s", caller.eax, want)
				}
			}
			if caller != wantCaller {
				t.Errorf("the caller's EAX, ESP and CS: %#x, want %#x", caller, wantCaller)
			}
			if made != wantMade {
				t.Errorf("the child's EAX, ESP and CS: %#x, want %#x", made, wantMade)
			}
			if seen := get(records + recordSeen); tc.flags&linux.CLONE_VFORK != 0 && seen != wantMade.cs {
				t.Errorf("with CLONE_VFORK, the caller went on before its child exited")
			}
		})
	}
}
