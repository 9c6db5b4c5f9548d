// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"gvisor.dev/gvisor/pkg/abi/sentry"
	"gvisor.dev/gvisor/pkg/bits"
	"gvisor.dev/gvisor/pkg/eventchannel"
	metricpb "gvisor.dev/gvisor/pkg/metric/metric_go_proto"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/strace"
	pb "gvisor.dev/gvisor/pkg/sentry/strace/strace_go_proto"
)

// Format returns the arguments of a call as strace prints them. A Format must accept
// every value that a guest can pass.
type Format func(t *kernel.Task, args arch.SyscallArguments) []string

// traceCalls makes the sentry's strace print the calls of table by their own names and
// formats. gVisor prints the name that it has for a number, and has formats only for
// its own calls.
func traceCalls(table *kernel.SyscallTable, calls map[uintptr]Call) (*stracer, error) {
	s := &stracer{table: table, calls: calls}
	names, ok := strace.Lookup(table.OS, table.Arch)
	if !ok {
		return s, nil // gVisor's strace knows only the architecture of the sentry.
	}
	for sysno, c := range calls {
		info, err := straceInfo(c.Name)
		if err != nil {
			return nil, err
		}
		names[sysno] = info // --strace-syscalls and messages about seccomp use the names
	}
	eventchannel.AddEmitter(s)
	return s, nil
}

// stracer prints the calls of the extension, and leaves other calls to gVisor's stracer.
type stracer struct {
	// Stracer is gVisor's stracer, or nil before the sentry boots.
	kernel.Stracer

	table *kernel.SyscallTable
	calls map[uintptr]Call
}

// Emit implements eventchannel.Emitter.Emit. A booting sentry first gives the tables its
// stracer, and then announces its metrics, before its first task runs. At that
// announcement Emit puts s in front of gVisor's stracer.
func (s *stracer) Emit(msg proto.Message) (hangup bool, err error) {
	if _, ok := msg.(*metricpb.MetricRegistration); !ok {
		return false, nil
	}
	if s.table.Stracer != nil {
		s.Stracer = s.table.Stracer
		s.table.Stracer = s
	}
	return true, nil
}

// Close implements eventchannel.Emitter.Close.
func (*stracer) Close() error { return nil }

// String implements fmt.Stringer.String. gVisor logs s by this name when s leaves the event
// channel.
func (s *stracer) String() string { return fmt.Sprintf("strace of %v", s.table.Arch) }

// SyscallEnter implements kernel.Stracer.SyscallEnter.
func (s *stracer) SyscallEnter(t *kernel.Task, sysno uintptr, args arch.SyscallArguments, flags uint32) any {
	if c, ok := s.calls[sysno]; ok {
		return enter(t, c, args, flags)
	}
	if mayBeABICall(sysno) {
		return tracedCall(notTraced{}) // missing or slot prints the call
	}
	return s.Stracer.SyscallEnter(t, sysno, args, flags)
}

// SyscallExit implements kernel.Stracer.SyscallExit.
func (s *stracer) SyscallExit(context any, t *kernel.Task, sysno, rval uintptr, err error) {
	if c, ok := context.(tracedCall); ok {
		c.exit(t, rval, err)
		return
	}
	s.Stracer.SyscallExit(context, t, sysno, rval, err)
}

// missingFlags returns the strace outputs, log and events, for calls with missing numbers.
func (s *stracer) missingFlags() uint32 {
	if s.Stracer == nil {
		return 0
	}
	return s.table.FeatureEnable.Word(sentry.MaxSyscallNum+1) & kernel.StraceEnableBits
}

// enterMissing prints that t makes a call of the extension by a missing number.
func (s *stracer) enterMissing(t *kernel.Task, c Call, args arch.SyscallArguments) tracedCall {
	flags := s.missingFlags()
	if flags == 0 {
		return notTraced{}
	}
	return enter(t, c, args, flags)
}

// enterRefused prints a call that neither gVisor nor the extension has, in gVisor's format.
func (s *stracer) enterRefused(t *kernel.Task, sysno uintptr, args arch.SyscallArguments) tracedCall {
	flags := s.missingFlags()
	if flags == 0 {
		return notTraced{}
	}
	return &stockTrace{s.Stracer, s.Stracer.SyscallEnter(t, sysno, args, flags), sysno}
}

// tracedCall is a call that strace has begun to print.
type tracedCall interface {
	// exit prints the result.
	exit(t *kernel.Task, rval uintptr, err error)
}

// notTraced is a call that strace does not print.
type notTraced struct{}

func (notTraced) exit(*kernel.Task, uintptr, error) {}

// stockTrace is a call that gVisor's stracer prints.
type stockTrace struct {
	stracer kernel.Stracer
	context any
	sysno   uintptr
}

func (c *stockTrace) exit(t *kernel.Task, rval uintptr, err error) {
	c.stracer.SyscallExit(c.context, t, c.sysno, rval, err)
}

// extTrace is a call of the extension that strace has begun to print.
type extTrace struct {
	name  string
	args  []string
	start time.Time
	flags uint32 // the outputs: log, events
}

// enter prints that t makes c.
func enter(t *kernel.Task, call Call, args arch.SyscallArguments, flags uint32) *extTrace {
	c := &extTrace{name: call.Name, args: call.Format(t, args), start: time.Now(), flags: flags}
	if bits.IsOn(flags, kernel.StraceEnableLog) {
		t.Infof("%s E %s(%s)", t.Name(), c.name, strings.Join(c.args, ", "))
	}
	if bits.IsOn(flags, kernel.StraceEnableEvent) {
		c.emit(t, &pb.Strace{Info: &pb.Strace_Enter{Enter: &pb.StraceEnter{}}})
	}
	return c
}

func (c *extTrace) exit(t *kernel.Task, rval uintptr, err error) {
	elapsed := time.Since(c.start)
	errno := kernel.ExtractErrno(err, 0)
	if bits.IsOn(c.flags, kernel.StraceEnableLog) {
		result := fmt.Sprintf("%d (%#x) (%v)", rval, rval, elapsed)
		if err != nil {
			result = fmt.Sprintf("-1 errno=%d (%s) (%v)", errno, err, elapsed)
		}
		t.Infof("%s X %s(%s) = %s", t.Name(), c.name, strings.Join(c.args, ", "), result)
	}
	if bits.IsOn(c.flags, kernel.StraceEnableEvent) {
		exit := &pb.StraceExit{
			Return:    fmt.Sprintf("%#x", rval),
			ElapsedNs: elapsed.Nanoseconds(),
		}
		if err != nil {
			exit.Error = err.Error()
			exit.ErrNo = int64(errno)
		}
		c.emit(t, &pb.Strace{Info: &pb.Strace_Exit{Exit: exit}})
	}
}

// emit sends an event for the call.
func (c *extTrace) emit(t *kernel.Task, event *pb.Strace) {
	event.Process, event.Function, event.Args = t.Name(), c.name, c.args
	eventchannel.Emit(event)
}
