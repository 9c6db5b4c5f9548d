// SPDX-License-Identifier: Apache-2.0

package int80

import (
	"bytes"
	"testing"

	"gvisor.dev/gvisor/pkg/sentry/platform"
)

// TestLength checks that length finds INT $0x80 behind the prefixes that a processor accepts,
// and finds it in no other code.
func TestLength(t *testing.T) {
	for _, tc := range []struct {
		name string
		code []byte
		want int
	}{
		{name: "plain", code: []byte{0xcd, 0x80}, want: 2},
		{name: "followed by code", code: []byte{0xcd, 0x80, 0x90, 0x90}, want: 2},
		{name: "REP", code: []byte{0xf3, 0xcd, 0x80}, want: 3},
		{name: "operand size", code: []byte{0x66, 0xcd, 0x80}, want: 3},
		{name: "REX.W", code: []byte{0x48, 0xcd, 0x80}, want: 3},
		{name: "several", code: []byte{0x2e, 0x66, 0xf2, 0x41, 0xcd, 0x80}, want: 6},
		{name: "longest", code: append(bytes.Repeat([]byte{0x66}, 13), 0xcd, 0x80), want: 15},
		{name: "other vector", code: []byte{0xcd, 0x81}},
		{name: "SYSCALL", code: []byte{0x0f, 0x05}},
		{name: "later instruction", code: []byte{0x90, 0xcd, 0x80}},
		{name: "LOCK", code: []byte{0xf0, 0xcd, 0x80}},
		{name: "cut off", code: []byte{0xcd}},
		{name: "prefixes alone", code: []byte{0x66, 0x66}},
		{name: "unreadable"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := length(tc.code); got != tc.want {
				t.Errorf("length(% x) = %d, want %d", tc.code, got, tc.want)
			}
		})
	}
}

// TestGVisorPlatformIsReplaced checks that gVisor finds the last platform that was registered
// under a name.
func TestGVisorPlatformIsReplaced(t *testing.T) {
	type constructor struct {
		platform.Constructor
		n int
	}
	const name = "test-replaced"
	platform.Register(name, constructor{n: 1})
	platform.Register(name, constructor{n: 2})
	got, err := platform.Lookup(name)
	if err != nil || got != (constructor{n: 2}) {
		t.Errorf("Lookup finds %+v, %v, want the second that was registered", got, err)
	}
}
