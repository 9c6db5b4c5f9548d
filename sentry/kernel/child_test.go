package kernel

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/seccheck"
	_ "gvisor.dev/gvisor/pkg/sentry/seccheck/sinks/null"
	"gvisor.dev/gvisor/pkg/state"
)

// What a checkpoint has of a type is listed by hand: a field that is forgotten would
// be empty after a restore.
func TestStateFields(t *testing.T) {
	for _, v := range []state.Type{(*child)(nil), (*cloneFD)(nil)} {
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

// A gVisor in which the fields are others must be refused with words: what is
// written there otherwise is anything.
func TestOffsetOf(t *testing.T) {
	type inner struct{ a, b int32 }
	type outer struct {
		x int64
		inner
	}
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
	if err := CheckCloneFD(); err != nil {
		t.Error(err)
	}
}

// A sandbox that does not use the flags pays nothing for them, and a trace session
// of a user's goes on as it was: with its fields, and with its end the hook comes
// back when it is needed.
func TestHook(t *testing.T) {
	const field = "container_id"
	if err := CheckCloneFD(); err != nil {
		t.Fatal(err)
	}
	seccheck.Initialize()
	enabled := func(want bool, when string) {
		t.Helper()
		if got := seccheck.Global.Enabled(seccheck.PointClone); got != want {
			t.Errorf("%s, the Clone point is enabled: %t, want %t", when, got, want)
		}
	}
	sinks := func() []string {
		var names []string
		seccheck.Global.SentToSinks(func(s seccheck.Sink) error {
			names = append(names, s.Name())
			return nil
		})
		return names
	}
	fields := func() bool {
		set := seccheck.Global.GetFieldSet(seccheck.PointClone)
		return set.Context.Contains(seccheck.FieldCtxtContainerID)
	}
	session := func() {
		t.Helper()
		if err := seccheck.Create(&seccheck.SessionConfig{
			Name:   seccheck.DefaultSessionName,
			Points: []seccheck.PointConfig{{Name: "sentry/clone", ContextFields: []string{field}}},
			Sinks:  []seccheck.SinkConfig{{Name: "null"}},
		}, false); err != nil {
			t.Fatal(err)
		}
	}
	end := func() {
		t.Helper()
		if err := seccheck.Delete(seccheck.DefaultSessionName); err != nil {
			t.Fatal(err)
		}
	}
	task := new(kernel.Task)
	use := func(want ...string) {
		t.Helper()
		for range 3 {
			clonePoint.expect(task, &request{})
			clonePoint.forget(task)
		}
		if got := sinks(); !slices.Equal(got, want) {
			t.Errorf("the sinks are %v, want %v", got, want)
		}
		enabled(true, "in use")
	}

	enabled(false, "not in use")
	session()
	use("null", "clone4")
	if !fields() {
		t.Errorf("the session that was there has lost its field %s", field)
	}
	end()
	enabled(false, "after the session's end")
	use("clone4")
	session()
	use("clone4", "null")
	if !fields() {
		t.Errorf("a session that came later does not have its field %s", field)
	}
	end()
	use("clone4")
}
