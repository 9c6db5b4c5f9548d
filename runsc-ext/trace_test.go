package main_test

import (
	"bytes"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "gvisor.dev/gvisor/pkg/sentry/seccheck/points/points_go_proto"

	"runsc-ext/test/sandbox"
)

// Trace sessions and the flags of level fd use the same part of the sentry, where the
// end of a session removes everything: neither may lose anything by the other, in
// whatever order they come and go, with children that are there and with new ones.
func TestTraceSession(t *testing.T) {
	skipWithoutRestore(t)
	for _, platform := range sandbox.Platforms {
		t.Run(platform, func(t *testing.T) {
			t.Parallel()
			bin := install(t)
			write(t, bin+levelFile, "fd")
			// "fd" makes 6 children, pauses while it has them, and sees to their ends.
			c := newCheckpointed(t, bin, platform, "pause", "fd", "pause", "fd", "fd")
			events := newEvents(t, c.id)
			s := c.begin(t, "run")
			trace := func(args ...string) string {
				t.Helper()
				r := run(t, c.bin, slices.Concat(c.flags, []string{"trace"}, args, []string{c.id})...)
				if r.status != 0 {
					t.Error(r)
				}
				return r.stdout
			}
			create := func() { trace("create", "-config="+events.config) }
			remove := func() { trace("delete", "-name=Default") }
			for _, tc := range []struct {
				printed string // before the pause
				clones  int32  // events since the last pause
				do      func()
				sinks   []string // after
			}{
				{"", 0, create, []string{"remote"}},
				{"", 6, remove, nil}, // The hook was there, and goes.
				{"fd: ok\n", 0, create, []string{"remote"}},
				{"", 6, func() {}, []string{"remote", "clone4"}},
				{"fd: ok\n", 6, remove, nil},
			} {
				var printed string
				for !strings.HasSuffix(printed, pausing) {
					line, err := s.stdout.ReadString('\n')
					if printed += line; err != nil {
						t.Fatalf("the program printed %q and did not pause: %v", printed, s.end(t))
					}
				}
				if printed != tc.printed+pausing {
					t.Errorf("the program printed %q, want %q", printed, tc.printed+pausing)
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
				s.stdin.Write([]byte("\n"))
			}
			if r := s.end(t); r.status != 0 || r.stdout != "fd: ok\n" {
				t.Errorf("got %v, want status 0 and the last children's end", r)
			}
		})
	}
}

// events is the other end of a trace session: what a user has to watch a sandbox.
type events struct {
	config string // of the session

	// clones is how many tasks were made by a container.
	clones atomic.Int32
}

func newEvents(t *testing.T, container string) *events {
	t.Helper()
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	e := &events{config: filepath.Join(dir, "session.json")}
	write(t, e.config, fmt.Sprintf(`{"trace_session": {"name": "Default", "points": [{"name": "sentry/clone", "context_fields": ["container_id"]}], "sinks": [{"name": "remote", "config": {"endpoint": %q}}]}}`, socket))
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

// receive counts what a session sends.
func (e *events) receive(conn net.Conn, container string) {
	defer conn.Close()
	buf := make([]byte, 1<<16)
	// The first message says which version it speaks, and wants to hear one.
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

// want fails the test if there are not at least n clones, soon; threads of the program
// count as well. With n 0 nobody looks.
func (e *events) want(t *testing.T, n int32) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); e.clones.Load() < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("the session has told of %d clones, want %d", e.clones.Load(), n)
			return
		}
	}
}
