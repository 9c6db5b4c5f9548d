// SPDX-License-Identifier: Apache-2.0

package clone4

import (
	"errors"
	"testing"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/metric"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"

	extsyscalls "runsc-ext/sentry/syscalls"
)

// TestOutcome checks that success and every error of clone4(2) have values of their own, and
// that all other errors share one value.
func TestOutcome(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want string
	}{
		{err: nil, want: "created"},
		{err: linuxerr.EINVAL, want: "EINVAL"},
		{err: linuxerr.EFAULT, want: "EFAULT"},
		{err: linuxerr.EAGAIN, want: "EAGAIN"},
		{err: linuxerr.EPERM, want: "EPERM"},
		{err: linuxerr.ENOMEM, want: "ENOMEM"},
		{err: linuxerr.ENOSPC, want: "ENOSPC"},
		{err: linuxerr.EUSERS, want: "EUSERS"},
		{err: linuxerr.EMFILE, want: "EMFILE"},
		{err: linuxerr.ENFILE, want: "ENFILE"},
		{err: linuxerr.ESRCH, want: "other_error"},
		{err: errors.New("no errno"), want: "other_error"},
	} {
		t.Run(tc.want, func(t *testing.T) {
			if got := outcome(tc.err).Value; got != tc.want {
				t.Errorf("%v is counted as %q, want %q", tc.err, got, tc.want)
			}
		})
	}
}

// TestCount checks that the handler of each ABI counts a call once, under its own ABI.
func TestCount(t *testing.T) {
	einval := outcome(linuxerr.EINVAL)
	for abi := range abiValues {
		abi := extsyscalls.ABI(abi)
		t.Run(abiValues[abi].Value, func(t *testing.T) {
			before := values(einval)
			call := newHandler(LevelOn, 8).call(abi)
			if _, _, err := call.Fn(new(kernel.Task), 0, arch.SyscallArguments{{Value: 1}}); err != linuxerr.EINVAL {
				t.Fatalf("an unknown flag: %v, want EINVAL", err)
			}
			before[abi]++
			if got := values(einval); got != before {
				t.Errorf("the calls by ABI are %v, want %v", got, before)
			}
		})
	}
}

// values returns the counts of an outcome, by ABI.
func values(outcome *metric.FieldValue) (counted [len(abiValues)]uint64) {
	for i, abi := range abiValues {
		counted[i] = calls.Value(abi, outcome)
	}
	return counted
}
