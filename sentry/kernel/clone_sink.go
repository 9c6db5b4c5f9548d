// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/fd"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/seccheck"
	pb "gvisor.dev/gvisor/pkg/sentry/seccheck/points/points_go_proto"
)

// cloneSink is the sink at gVisor's Clone point, the one place in Task.Clone where the
// child exists and has not started. An error from the sink undoes the child.
//
// The first call of CloneWithFD adds the sink. The end of a trace session removes all
// sinks, this one included, and the next call adds the sink again. A call under way at
// that moment finds no sink at the point, and attaches its child afterwards: see
// pendingClone.attachLate.
type cloneSink struct {
	seccheck.SinkDefaults

	// pending has the *pendingClone of each *kernel.Task that is in CloneWithFD.
	pending sync.Map

	// appended counts how often the sink was added, and stopped how often it was
	// removed. mu serializes additions.
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
		s.add()
	}
}

// add has the point call the sink. The fields of a point are those of the last sink that
// requests the point, and the sink needs none: each would cost every clone in the sandbox.
//
// Without a session, seccheck.Create adds the sink: it holds the mutex of sessions, so that
// no session can be created meanwhile and lose its fields. Create fails afterwards, and
// leaves no session. With a session, the sink requests what the session may need.
func (s *cloneSink) add() {
	err := seccheck.Create(&seccheck.SessionConfig{
		Name:  seccheck.DefaultSessionName,
		Sinks: []seccheck.SinkConfig{{Name: sinkName, Config: map[string]any{sinkName: s}}},
	}, false /* force */)
	if !errors.Is(err, errAdded) {
		s.append(s.requests())
	}
}

func (s *cloneSink) append(reqs []seccheck.PointReq) {
	seccheck.Global.AppendSink(s, reqs)
	s.appended.Add(1)
}

// sinkName is the name of the sink in a list of trace sessions.
const sinkName = "clone4"

// errAdded is the error that seccheck.Create returns when it has added the sink.
var errAdded = errors.New("the sink is added")

// registerSink makes the sink known to seccheck.Create. No lock protects what is known.
var registerSink = sync.OnceFunc(func() {
	seccheck.RegisterSink(seccheck.SinkDesc{
		Name: sinkName,
		New: func(config map[string]any, _ *fd.FD) (seccheck.Sink, error) {
			s, ok := config[sinkName].(*cloneSink)
			if !ok {
				return nil, fmt.Errorf("the sink %s is the sentry's own: name another one", sinkName)
			}
			s.append([]seccheck.PointReq{{Pt: seccheck.PointClone}})
			return nil, errAdded
		},
	})
})

func (s *cloneSink) forget(t *kernel.Task) { s.pending.Delete(t) }

// ready returns whether the point calls the sink.
func (s *cloneSink) ready() bool {
	return s.appended.Load() != s.stopped.Load() && seccheck.Global.Enabled(seccheck.PointClone)
}

// requests returns what AppendSink needs for the point to call the sink beside a trace
// session.
//
// A session that has the point keeps its fields, because the sink then requests nothing.
// Else another session may be created before AppendSink runs: the fields that the sink
// requests are all that a session can ask for.
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
func (s *cloneSink) Name() string { return sinkName }

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
