// SPDX-License-Identifier: Apache-2.0

package kit

import (
	"strings"
	"syscall"
	"testing"

	"runsc-ext/internal/rawclone"
)

// CheckErrno reports an error unless an operation returned want; 0 is success.
func CheckErrno(t *testing.T, what string, o *rawclone.Op, want syscall.Errno) {
	t.Helper()
	if got := o.Errno(); got != want {
		t.Errorf("%s: %s, want %s", what, ErrnoName(got), ErrnoName(want))
	}
}

// CheckStatus reports an error unless Status describes the wait status as want.
func CheckStatus[T ~uint32 | ~uintptr](t *testing.T, what string, status T, want string) {
	t.Helper()
	if got := Status(status); got != want {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

// CheckWait is CheckStatus for a wait4 that must return the child of call.
func CheckWait(t *testing.T, what string, call, wait *rawclone.Op, status *uintptr, want string) {
	t.Helper()
	if wait.Ret != call.Ret {
		t.Errorf("%s: wait4 returned %d (%s), want the child, %d", what, int(wait.Ret), ErrnoName(wait.Errno()), call.Ret)
		return
	}
	CheckStatus(t, what, *status, want)
}

// CheckRet reports an error unless got is want.
func CheckRet(t *testing.T, what string, got, want uintptr) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %#x, want %#x", what, got, want)
	}
}

// OnEach runs f as a subtest for each of the flags. The flags are the name of the subtest.
func OnEach(t *testing.T, flags []uint64, f func(t *testing.T, flags uint64)) {
	t.Helper()
	for _, v := range flags {
		t.Run(strings.ReplaceAll(Flags(v), "|", ","), func(t *testing.T) { f(t, v) })
	}
}
