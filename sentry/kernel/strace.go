package kernel

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"gvisor.dev/gvisor/pkg/bits"
	"gvisor.dev/gvisor/pkg/eventchannel"
	metricpb "gvisor.dev/gvisor/pkg/metric/metric_go_proto"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/strace"
	pb "gvisor.dev/gvisor/pkg/sentry/strace/strace_go_proto"
)

// Format returns the arguments of a call in the words of strace. It must not fail,
// whatever the guest has passed.
type Format func(t *kernel.Task, args arch.SyscallArguments) []string

// Trace makes the sentry's strace print the call at sysno of table, and those of
// X32, I386 and AMD64Low32, by their own names and formats. gVisor prints the name
// that it has for a number, and knows formats only for its own calls.
//
// Trace must be called after Add, and before the sentry boots. An error means that
// this gVisor cannot take the name.
func Trace(table *kernel.SyscallTable, sysno uintptr, format Format) error {
	names, ok := strace.Lookup(table.OS, table.Arch)
	if !ok {
		return nil // A sentry has the strace of its own architecture.
	}
	name := table.LookupName(sysno)
	info, err := straceInfo(name)
	if err != nil {
		return err
	}
	names[sysno] = info // for --strace-syscalls, and where seccomp names a call
	s := &stracer{table: table, sysno: sysno, name: name, format: format}
	eventchannel.AddEmitter(s)
	return nil
}

// stracer prints the calls of the extension, and leaves all others to gVisor's.
type stracer struct {
	kernel.Stracer
	table  *kernel.SyscallTable
	sysno  uintptr
	name   string
	format Format
}

// Emit implements eventchannel.Emitter.Emit. A sentry that boots gives the tables
// its stracer, and announces its metrics when it is ready for its first task. In
// between is the place for ours.
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

// String implements fmt.Stringer.String, for the line that says that s left the
// event channel.
func (s *stracer) String() string { return fmt.Sprintf("strace of %s", s.name) }

// SyscallEnter implements kernel.Stracer.SyscallEnter.
func (s *stracer) SyscallEnter(t *kernel.Task, sysno uintptr, args arch.SyscallArguments, flags uint32) any {
	if sentToSlot(t) {
		return &tracedCall{} // It was entered before, and will say itself how it ends.
	}
	c := &tracedCall{start: time.Now(), flags: flags}
	if sysno == s.sysno {
		c.name, c.args = s.name, s.format(t, args)
	} else if c.name, c.args = traceABI(t, sysno); c.name == "" {
		return s.Stracer.SyscallEnter(t, sysno, args, flags)
	}
	if bits.IsOn(flags, kernel.StraceEnableLog) {
		t.Infof("%s E %s(%s)", t.Name(), c.name, strings.Join(c.args, ", "))
	}
	if bits.IsOn(flags, kernel.StraceEnableEvent) {
		eventchannel.Emit(&pb.Strace{
			Process:  t.Name(),
			Function: c.name,
			Args:     c.args,
			Info:     &pb.Strace_Enter{Enter: &pb.StraceEnter{}},
		})
	}
	return c
}

// SyscallExit implements kernel.Stracer.SyscallExit.
func (s *stracer) SyscallExit(context any, t *kernel.Task, sysno, rval uintptr, err error) {
	c, ok := context.(*tracedCall)
	if !ok {
		s.Stracer.SyscallExit(context, t, sysno, rval, err)
		return
	}
	if !sentToSlot(t) {
		c.exit(t, rval, err)
	}
}

// tracedCall is a call that is being made.
type tracedCall struct {
	name  string
	args  []string
	start time.Time
	flags uint32 // where to print it
}

// exit prints what came of the call.
func (c *tracedCall) exit(t *kernel.Task, rval uintptr, err error) {
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
		eventchannel.Emit(&pb.Strace{
			Process:  t.Name(),
			Function: c.name,
			Args:     c.args,
			Info:     &pb.Strace_Exit{Exit: exit},
		})
	}
}
