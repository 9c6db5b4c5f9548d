// SPDX-License-Identifier: Apache-2.0

package clone4

import (
	"golang.org/x/sys/unix"
	gverrors "gvisor.dev/gvisor/pkg/errors"
	"gvisor.dev/gvisor/pkg/metric"

	extsyscalls "runsc-ext/sentry/syscalls"
)

// calls counts the calls of clone4. gVisor exports it together with its own metrics, as
// runsc_clone4_calls. An increment is one atomic addition, without a lock or an allocation.
//
// Calls that a seccomp filter refuses are not counted, because they do not reach the
// handler.
var calls = metric.MustCreateNewUint64Metric("/clone4_calls", metric.Uint64Metadata{
	Cumulative:  true,
	Sync:        true,
	Description: "Number of calls of clone4, broken down by ABI and by outcome.",
	Fields: []metric.Field{
		metric.NewField("abi", abiValues[:]...),
		metric.NewField("outcome", outcomeValues()...),
	},
})

// abiValues are the values of the field abi.
var abiValues = [...]*metric.FieldValue{
	extsyscalls.AMD64: {Value: "amd64"},
	extsyscalls.X32:   {Value: "x32"},
	extsyscalls.I386:  {Value: "i386"},
	extsyscalls.ARM64: {Value: "arm64"},
}

// Values of the field outcome that are not names of errors.
var (
	created     = &metric.FieldValue{Value: "created"}      // a task was created
	switchedOff = &metric.FieldValue{Value: "switched_off"} // LevelOff, which returns ENOSYS
	otherError  = &metric.FieldValue{Value: "other_error"}
)

// refusals maps the errors of clone4(2) to values of the field outcome.
var refusals = [...]struct {
	errno unix.Errno
	value *metric.FieldValue
}{
	{unix.EINVAL, &metric.FieldValue{Value: "EINVAL"}},
	{unix.EFAULT, &metric.FieldValue{Value: "EFAULT"}},
	{unix.EAGAIN, &metric.FieldValue{Value: "EAGAIN"}},
	{unix.EPERM, &metric.FieldValue{Value: "EPERM"}},
	{unix.ENOMEM, &metric.FieldValue{Value: "ENOMEM"}},
	{unix.ENOSPC, &metric.FieldValue{Value: "ENOSPC"}},
	{unix.EUSERS, &metric.FieldValue{Value: "EUSERS"}},
	{unix.EMFILE, &metric.FieldValue{Value: "EMFILE"}},
	{unix.ENFILE, &metric.FieldValue{Value: "ENFILE"}},
}

func outcomeValues() []*metric.FieldValue {
	values := []*metric.FieldValue{created, switchedOff, otherError}
	for _, r := range refusals {
		values = append(values, r.value)
	}
	return values
}

// count counts a call for which the handler returns err.
func count(abi extsyscalls.ABI, err error) {
	calls.Increment(abiValues[abi], outcome(err))
}

// countSwitchedOff counts a call at LevelOff.
func countSwitchedOff(abi extsyscalls.ABI) {
	calls.Increment(abiValues[abi], switchedOff)
}

func outcome(err error) *metric.FieldValue {
	if err == nil {
		return created
	}
	if e, ok := err.(*gverrors.Error); ok {
		for i := range refusals {
			if uint32(refusals[i].errno) == uint32(e.Errno()) {
				return refusals[i].value
			}
		}
	}
	return otherError
}
