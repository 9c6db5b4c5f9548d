// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"weak"

	gvisorlinux "gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/seccheck"
	_ "gvisor.dev/gvisor/pkg/sentry/seccheck/sinks/null"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/state"
	"gvisor.dev/gvisor/pkg/usermem"
	"gvisor.dev/gvisor/pkg/waiter"
)

// TestStateFields checks that a checkpoint has every field of our types. state.go lists
// the fields by hand: a field that is missing there is empty after a restore.
func TestStateFields(t *testing.T) {
	for _, v := range []state.Type{(*child)(nil), (*cloneFDFileDescription)(nil)} {
		typ := reflect.TypeOf(v).Elem()
		var want []string
		for i := range typ.NumField() {
			if f := typ.Field(i); f.Tag.Get("state") != "nosave" {
				want = append(want, f.Name)
			}
		}
		if got := v.StateFields(); !slices.Equal(got, want) {
			t.Errorf("%v is saved with the fields %v, and has %v", typ, got, want)
		}
	}
}

// TestOffsetOf checks the offset of a field, and that the error for a missing field names
// the field, the type and the struct.
func TestOffsetOf(t *testing.T) {
	//lint:ignore U1000 reflection finds the fields
	type inner struct{ a, b int32 }
	//lint:ignore U1000 reflection finds the fields
	type outer struct {
		x int64
		inner
	}
	//lint:ignore U1000 reflection finds the field
	type indirect struct{ *inner }
	for _, tc := range []struct {
		name string
		of   func() (uintptr, error)
		want uintptr
		err  []string
	}{
		{"embedded", func() (uintptr, error) { return offsetOf[int32](reflect.TypeFor[outer](), "b") }, 12, nil},
		{"no such field", func() (uintptr, error) { return offsetOf[int32](reflect.TypeFor[outer](), "c") }, 0, []string{"c", "int32", "outer"}},
		{"another type", func() (uintptr, error) { return offsetOf[bool](reflect.TypeFor[outer](), "b") }, 0, []string{"b", "bool", "outer"}},
		{"behind a pointer", func() (uintptr, error) { return offsetOf[int32](reflect.TypeFor[indirect](), "b") }, 0, []string{"b", "pointer"}},
	} {
		got, err := tc.of()
		if got != tc.want || (err != nil) != (tc.err != nil) {
			t.Errorf("%s: %d, %v, want %d, an error: %t", tc.name, got, err, tc.want, tc.err != nil)
		}
		for _, want := range tc.err {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q does not say %s", tc.name, err, want)
			}
		}
	}
	if err := EnableCloneFD(); err != nil {
		t.Error(err)
	}
}

// TestCloneSink checks that the Clone point is not enabled before it is used, that a
// trace session keeps its fields beside the sink, and that the sink comes back after
// the end of a session.
func TestCloneSink(t *testing.T) {
	seccheck.Initialize()
	if err := EnableCloneFD(); err != nil {
		t.Fatal(err)
	}
	s := new(cloneSink)
	sinks := func() []string {
		var names []string
		seccheck.Global.SentToSinks(func(s seccheck.Sink) error {
			names = append(names, s.Name())
			return nil
		})
		return names
	}
	use := func(want ...string) {
		t.Helper()
		task := new(kernel.Task)
		for range 3 {
			s.expect(task, &pendingClone{})
			s.forget(task)
		}
		if got := sinks(); !slices.Equal(got, want) {
			t.Errorf("the sinks are %v, want %v", got, want)
		}
		if !seccheck.Global.Enabled(seccheck.PointClone) {
			t.Error("the Clone point is not enabled in use")
		}
	}
	disabled := func(when string) {
		t.Helper()
		if seccheck.Global.Enabled(seccheck.PointClone) {
			t.Errorf("the Clone point is enabled %s", when)
		}
	}

	disabled("before the first use")
	createSession(t)
	use("null", "clone4")
	checkSessionFields(t, "created before the sink was added")
	deleteSession(t)
	disabled("after the end of the session")
	use("clone4")
	if set := seccheck.Global.GetFieldSet(seccheck.PointClone); !set.Local.Empty() || !set.Context.Empty() {
		t.Errorf("without a session, clones collect the fields %+v, want none", set)
	}
	if err := seccheck.Create(&seccheck.SessionConfig{Name: seccheck.DefaultSessionName, Sinks: []seccheck.SinkConfig{{Name: sinkName}}}, false); err == nil {
		t.Error("a session with the sentry's own sink was created")
	}
	createSession(t)
	use("clone4", "null")
	checkSessionFields(t, "created after the sink was added")
	deleteSession(t)
	use("clone4")

	// A session that ends while the sink is being added leaves a sink that the
	// point does not call.
	createSession(t)
	deleteSession(t)
	seccheck.Global.AppendSink(s, nil)
	s.appended.Add(1)
	use("clone4", "clone4")

	createSession(t)
	deleteSession(t)
}

// TestCloneSinkRace checks that a trace session keeps its fields if it is created while
// the sink is being added.
func TestCloneSinkRace(t *testing.T) {
	seccheck.Initialize()
	if err := EnableCloneFD(); err != nil {
		t.Fatal(err)
	}
	for range 5000 {
		s := new(cloneSink)
		task := new(kernel.Task)
		start := make(chan struct{})
		var adding sync.WaitGroup
		adding.Go(func() {
			<-start
			s.expect(task, &pendingClone{})
		})
		close(start)
		createSession(t)
		adding.Wait()
		checkSessionFields(t, "created while the sink was being added")
		deleteSession(t)
		if t.Failed() {
			return
		}
	}
}

func createSession(t *testing.T) {
	t.Helper()
	if err := seccheck.Create(&seccheck.SessionConfig{
		Name:   seccheck.DefaultSessionName,
		Points: []seccheck.PointConfig{{Name: "sentry/clone", ContextFields: []string{"container_id"}}},
		Sinks:  []seccheck.SinkConfig{{Name: "null"}},
	}, false); err != nil {
		t.Fatal(err)
	}
}

func deleteSession(t *testing.T) {
	t.Helper()
	if err := seccheck.Delete(seccheck.DefaultSessionName); err != nil {
		t.Fatal(err)
	}
}

func checkSessionFields(t *testing.T, which string) {
	t.Helper()
	set := seccheck.Global.GetFieldSet(seccheck.PointClone)
	if !set.Context.Contains(seccheck.FieldCtxtContainerID) {
		t.Errorf("a session that was %s has lost its field container_id", which)
	}
}

// TestSinkFields checks that the sink knows the fields of the Clone point: without
// them, a session that is created at the same time loses its own.
func TestSinkFields(t *testing.T) {
	seccheck.Initialize()
	reqs := new(cloneSink).requests()
	if len(reqs) != 1 || reqs[0].Pt != seccheck.PointClone {
		t.Fatalf("the sink requests %+v, want the Clone point", reqs)
	}
	for _, f := range seccheck.Points["sentry/clone"].ContextFields {
		if !reqs[0].Fields.Context.Contains(f.ID) {
			t.Errorf("the sink does not request the field %s", f.Name)
		}
	}
	if reqs[0].Fields.Context.Empty() {
		t.Error("the sink knows no field of the Clone point")
	}
}

// TestNotifyEvent checks what gVisor's two notifications of a child do. The first notifies
// waiting tasks of the exit, and with autoreap acknowledges the exit for the parent. The second
// keeps the result, and drops the thread group.
func TestNotifyEvent(t *testing.T) {
	for _, autoreap := range []bool{false, true} {
		t.Run(fmt.Sprintf("autoreap=%t", autoreap), func(t *testing.T) {
			const status = gvisorlinux.WaitStatus(7 << 8)
			leader := new(kernel.Task)
			c := &child{tg: exitedGroup(leader, status), autoreap: autoreap}
			kept := weak.Make(c.tg)
			e, ch := waiter.NewChannelEntry(childEvents)
			c.queue(&e).EventRegister(&e)

			c.NotifyEvent(waiter.ReadableEvents)
			select {
			case <-ch:
			default:
				t.Error("nobody was notified of the exit")
			}
			if acked := reflect.ValueOf(leader).Elem().FieldByName("exitParentAcked").Bool(); acked != autoreap {
				t.Errorf("the exit is acknowledged: %t, want %t", acked, autoreap)
			}
			if c.threadGroup() == nil {
				t.Error("the thread group is gone before the child was reaped")
			}

			c.NotifyEvent(waiter.ReadableEvents | waiter.EventHUp)
			runtime.GC()
			if kept.Value() != nil {
				t.Error("a child that has been reaped keeps the thread group")
			}
			if got, _, _ := c.result(); !c.exited.Load() || got != status {
				t.Errorf("exited: %t, status %#x, want true and %#x", c.exited.Load(), got, status)
			}
			select {
			case <-ch:
				t.Error("the reaping notified as an exit does")
			default:
			}
		})
	}
}

// TestDiscard checks that a descriptor of a failed call is ready, that its waiters are
// notified, and that the descriptor does not keep the thread group in memory.
func TestDiscard(t *testing.T) {
	tg := new(kernel.ThreadGroup)
	kept := weak.Make(tg)
	c := &child{tg: tg}
	tg = nil
	f := &cloneFDFileDescription{child: c}
	e, ch := waiter.NewChannelEntry(waiter.EventHUp)
	f.EventRegister(&e)
	p := pendingClone{file: f}
	p.discard()
	select {
	case <-ch:
	default:
		t.Error("nobody was notified")
	}
	if got := f.Readiness(childEvents); got != childEvents {
		t.Errorf("the descriptor is ready for %#x, want %#x", got, childEvents)
	}
	buf := make([]byte, 100)
	if n, err := f.Read(context.Background(), usermem.BytesIOSequence(buf), vfs.ReadOptions{}); n != 0 || err != nil {
		t.Errorf("read: %d, %v, want 0", n, err)
	}
	runtime.GC()
	if kept.Value() != nil {
		t.Error("the descriptor keeps the thread group")
	}
	runtime.KeepAlive(f)
}
