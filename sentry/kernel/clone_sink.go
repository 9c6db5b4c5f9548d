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

// cloneSink is a seccheck sink for gVisor's Clone point. Only at that point of Task.Clone can
// this package change a child before the child starts. An error from a sink undoes the
// child.
//
// The first call of CloneWithFD adds the sink. The end of a trace session removes all
// sinks, including this one, and the next call adds the sink again. If the sink is removed
// during a call, the call attaches its child later: see pendingClone.attachLate.
type cloneSink struct {
	seccheck.SinkDefaults

	// pending maps each *kernel.Task that is in CloneWithFD to its *pendingClone.
	pending sync.Map

	// appended counts how often the sink was added, and stopped how often the sink
	// was removed. mu serializes additions.
	mu       sync.Mutex
	appended atomic.Uint64
	stopped  atomic.Uint64
}

var clonePoint cloneSink

// expect makes the sink attach p to the child that t is about to create.
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

// add adds the sink to the Clone point. For each point, gVisor collects the fields that the
// last added sink requests. This sink needs no fields, and each field would cost time in
// every clone of the sandbox.
//
// Without a trace session, add lets seccheck.Create add the sink. Create holds the mutex of
// sessions, so no session can be created meanwhile and lose its fields. Create then returns
// errAdded, and leaves no session. With a session, Create returns another error, and add
// adds the sink with the fields that the session may need.
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

// errAdded is the error that seccheck.Create returns when Create has added the sink.
var errAdded = errors.New("the sink is added")

// registerSink makes the name of the sink known to seccheck.Create. seccheck has no lock for
// the known names, so registerSink is called before the sentry boots: see EnableCloneFD.
//
// seccheck calls New with the mutex of sessions locked. In add, cloneSink.mu is locked too,
// and was locked first. New may lock seccheck's registration mutex, as AppendSink does.
var registerSink = sync.OnceFunc(func() {
	seccheck.RegisterSink(seccheck.SinkDesc{
		Name: sinkName,
		New: func(config map[string]any, _ *fd.FD) (seccheck.Sink, error) {
			s, ok := config[sinkName].(*cloneSink)
			if !ok {
				return nil, fmt.Errorf("the sink %s is reserved for the sentry: use another sink", sinkName)
			}
			s.append([]seccheck.PointReq{{Pt: seccheck.PointClone}})
			return nil, errAdded
		},
	})
})

func (s *cloneSink) forget(t *kernel.Task) { s.pending.Delete(t) }

// ready returns whether the Clone point calls the sink.
func (s *cloneSink) ready() bool {
	return s.appended.Load() != s.stopped.Load() && seccheck.Global.Enabled(seccheck.PointClone)
}

// requests returns the requests by which the sink is added beside a trace session.
//
// If the session uses the Clone point, the sink requests nothing, and the session keeps its
// fields. Otherwise the sink requests the point with all fields. Another session that uses
// the point may be created before the sink is added, and must keep its fields too.
func (s *cloneSink) requests() []seccheck.PointReq {
	if seccheck.Global.Enabled(seccheck.PointClone) {
		return nil
	}
	const name = "sentry/clone" // name of seccheck.PointClone, in metadata.go
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

// Stop implements seccheck.Sink.Stop. seccheck calls Stop with its registration mutex
// locked, so Stop must not call seccheck.
func (s *cloneSink) Stop() { s.stopped.Add(1) }

// Clone implements seccheck.Sink.Clone. gVisor calls Clone on the goroutine of the task that
// clones, without a lock. If the sink was added twice, gVisor calls Clone twice.
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
