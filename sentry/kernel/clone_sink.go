// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/seccheck"
	pb "gvisor.dev/gvisor/pkg/sentry/seccheck/points/points_go_proto"
)

// cloneSink is the sink at gVisor's Clone point, the one place in Task.Clone where the
// child exists and has not started: an error from the sink undoes the child.
//
// The sink is there only from the first call of CloneWithFD on. Whoever deletes a
// trace session removes all sinks, this one included: the next call puts it back. A
// call under way at that moment finds no sink at the point, and attaches its child
// afterwards: see pendingClone.attachLate.
type cloneSink struct {
	seccheck.SinkDefaults

	// pending has the *pendingClone of each *kernel.Task that is in CloneWithFD.
	pending sync.Map

	// appended is how often the sink was added, stopped how often it was removed.
	// mu serializes additions.
	mu       sync.Mutex
	appended atomic.Uint64
	stopped  atomic.Uint64
}

var clonePoint cloneSink

// expect has the point attach p to the child that t is about to create.
func (s *cloneSink) expect(t *kernel.Task, p *pendingClone) {
	s.pending.Store(t, p)
	if s.ready() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ready() {
		seccheck.Global.AppendSink(s, s.requests())
		s.appended.Add(1)
	}
}

func (s *cloneSink) forget(t *kernel.Task) { s.pending.Delete(t) }

// ready returns whether the point calls the sink.
func (s *cloneSink) ready() bool {
	return s.appended.Load() != s.stopped.Load() && seccheck.Global.Enabled(seccheck.PointClone)
}

// requests returns what AppendSink needs for the point to call the sink.
//
// AppendSink replaces the fields of a point: they are not kept for each sink. A trace
// session that has the point keeps its fields, because the sink then requests
// nothing. If no session has the point, one may be created before AppendSink runs:
// the fields that the sink requests are all that a session can ask for.
func (s *cloneSink) requests() []seccheck.PointReq {
	if seccheck.Global.Enabled(seccheck.PointClone) {
		return nil
	}
	const name = "sentry/clone" // seccheck.PointClone, in metadata.go
	req := seccheck.PointReq{Pt: seccheck.PointClone}
	for _, f := range seccheck.Points[name].OptionalFields {
		req.Fields.Local.Add(f.ID)
	}
	for _, f := range seccheck.Points[name].ContextFields {
		req.Fields.Context.Add(f.ID)
	}
	return []seccheck.PointReq{req}
}

// Name implements seccheck.Sink.Name.
func (s *cloneSink) Name() string { return "clone4" }

// Stop implements seccheck.Sink.Stop. It is called with seccheck's registration mutex
// locked, so that it must not call seccheck.
func (s *cloneSink) Stop() { s.stopped.Add(1) }

// Clone implements seccheck.Sink.Clone. It is called on the goroutine of the task
// that clones, without a lock. If two calls have added the sink, it is called twice.
func (s *cloneSink) Clone(ctx context.Context, _ seccheck.FieldSet, info *pb.CloneInfo) error {
	t := kernel.TaskFromContext(ctx)
	v, ok := s.pending.Load(t)
	if !ok {
		return nil
	}
	p := v.(*pendingClone)
	if p.attached {
		return nil
	}
	return p.attach(t, t.Kernel().TaskSet().Root.TaskWithID(kernel.ThreadID(info.CreatedThreadId)))
}
