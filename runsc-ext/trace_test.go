// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"bytes"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	pb "gvisor.dev/gvisor/pkg/sentry/seccheck/points/points_go_proto"

	"runsc-ext/test/sandbox"
)

// TestTraceSession checks that trace sessions and the flags of level fd do not disturb each
// other, in whatever order they begin and end. Both are sinks of seccheck, and the end of a
// session removes all sinks.
func TestTraceSession(t *testing.T) {
	needRoot(t)
	for _, platform := range sandbox.Platforms {
		t.Run(platform, func(t *testing.T) {
			t.Parallel()
			bin := install(t)
			sandbox.WriteFile(t, bin+sandbox.LevelSuffix, "fd")
			// "fd" creates 6 children, pauses, and waits until they exit.
			c := sandbox.NewContainer(t, bin, platform, guest(t, "pause", "fd", "pause", "fd", "fd")...)
			events := newEvents(t, c.ID)
			s := c.Begin(t, "run")
			trace := func(args ...string) string {
				t.Helper()
				r := c.Runsc(t, slices.Concat([]string{"trace"}, args, []string{c.ID})...)
				if r.Status != 0 {
					t.Error(r)
				}
				return r.Stdout
			}
			create := func() { trace("create", "-config="+events.config) }
			remove := func() { trace("delete", "-name=Default") }
			for _, tc := range []struct {
				printed string // before the pause
				clones  int32  // events since the last pause
				do      func()
				sinks   []string // after
			}{
				{do: create, sinks: []string{"remote"}},
				{clones: 6, do: remove}, // removes the sink clone4 as well
				{printed: "fd: ok\n", do: create, sinks: []string{"remote"}},
				{clones: 6, do: func() {}, sinks: []string{"remote", "clone4"}},
				{printed: "fd: ok\n", clones: 6, do: remove},
			} {
				if printed, want := s.ReadTo(t, sandbox.Pausing), tc.printed+sandbox.Pausing; printed != want {
					t.Errorf("the guest printed %q, want %q", printed, want)
				}
				events.want(t, tc.clones)
				tc.do()
				want := "SESSIONS (0)\n"
				if tc.sinks != nil {
					want = "SESSIONS (1)\n\"Default\"\n"
					for _, sink := range tc.sinks {
						want += fmt.Sprintf("\tSink: %q, dropped: 0\n", sink)
					}
				}
				if got := trace("list"); got != want {
					t.Errorf("the sessions are %q, want %q", got, want)
				}
				events.clones.Store(0)
				s.Say("")
			}
			s.Wait(t).Check(t, 0, "fd: ok\n")
		})
	}
}

// TestTraceSessionRefusedCalls checks that a failed call returns its error even if a trace
// session is deleted during the call. With CLONE_VFORK, the call has then begun a stop, and gVisor
// ignores the error of such a call. Without a remedy, the caller would get 0, as a child does.
func TestTraceSessionRefusedCalls(t *testing.T) {
	needRoot(t)
	sessions := 30
	if testing.Short() {
		sessions = 5
	}
	for _, platform := range sandbox.Platforms {
		t.Run(platform, func(t *testing.T) {
			bin := install(t)
			sandbox.WriteFile(t, bin+sandbox.LevelSuffix, "fd")
			c := sandbox.NewContainer(t, bin, platform, guest(t, "refused")...)
			events := newEvents(t, c.ID)
			s := c.Begin(t, "run")
			s.ReadTo(t, sandbox.Pausing)
			for range sessions {
				for _, args := range [][]string{{"create", "-config=" + events.config}, {"delete", "-name=Default"}} {
					if r := c.Runsc(t, slices.Concat([]string{"trace"}, args, []string{c.ID})...); r.Status != 0 {
						t.Errorf("%v\nwhile the guest made calls that fail", r)
					}
				}
				if t.Failed() {
					break
				}
			}
			s.Say("")
			s.Wait(t).Check(t, 0, "refused: ok\n")
		})
	}
}

// events is the receiving end of a trace session.
type events struct {
	config string       // of the session
	clones atomic.Int32 // tasks that a container has created
}

func newEvents(t *testing.T, container string) *events {
	t.Helper()
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	e := &events{config: filepath.Join(dir, "session.json")}
	sandbox.WriteFile(t, e.config, fmt.Sprintf(`{"trace_session": {"name": "Default", "points": [{"name": "sentry/clone", "context_fields": ["container_id"]}], "sinks": [{"name": "remote", "config": {"endpoint": %q}}]}}`, socket))
	listener, err := net.Listen("unixpacket", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go e.receive(conn, container)
		}
	}()
	return e
}

// receive counts the clone events of a container.
func (e *events) receive(conn net.Conn, container string) {
	defer conn.Close()
	buf := make([]byte, 1<<16)
	// The first message has the version of the protocol, and expects an answer.
	n, err := conn.Read(buf)
	if err == nil {
		_, err = conn.Write(buf[:n])
	}
	for err == nil {
		if n, err = conn.Read(buf); n < 8 {
			return
		}
		if uint16(buf[2])|uint16(buf[3])<<8 == uint16(pb.MessageType_MESSAGE_SENTRY_CLONE) && bytes.Contains(buf[8:n], []byte(container)) {
			e.clones.Add(1)
		}
	}
}

// want waits for at least n clones, including threads of the guest.
func (e *events) want(t *testing.T, n int32) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); e.clones.Load() < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("the session has reported %d clones, want %d", e.clones.Load(), n)
			return
		}
	}
}
