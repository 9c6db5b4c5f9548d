// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bytes"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/runsc/config"

	extlinux "runsc-ext/abi/linux"
	"runsc-ext/sentry/syscalls/clone4"
)

var worked = outcome{PID: 7, Ran: true, Reaped: true}

// TestMeaning checks that the description of an outcome names its cause.
func TestMeaning(t *testing.T) {
	for _, tc := range []struct {
		name  string
		o     outcome
		level clone4.Level
		want  string
	}{
		{name: "works", o: worked, level: clone4.LevelOn, want: "works: child 7"},
		{name: "killed by a signal", o: outcome{Signal: unix.SIGSEGV}, level: clone4.LevelOn, want: "SIGSEGV: this instruction"},
		{name: "off", o: outcome{Errno: syscall.ENOSYS}, level: clone4.LevelOff, want: "ENOSYS: clone4 is switched off, by FILE"},
		{name: "gone although on", o: outcome{Errno: syscall.ENOSYS}, level: clone4.LevelOn, want: "ENOSYS: function not implemented"},
		{name: "works, fd", o: outcome{PID: 7, Ran: true, Reaped: true, FD: true}, level: clone4.LevelFD, want: "works: child 7 was created, ran and was reaped; the exit"},
		{name: "no descriptor", o: worked, level: clone4.LevelFD, want: "child 7 was created, ran and was reaped, but CLONE_FD"},
		{name: "another error", o: outcome{Errno: syscall.EINVAL}, level: clone4.LevelOn, want: "EINVAL: invalid argument"},
		{name: "child did not run", o: outcome{PID: 7}, level: clone4.LevelOn, want: "child 7 was created, but did not run"},
		{name: "child was not reaped", o: outcome{PID: 7, Ran: true}, level: clone4.LevelOn, want: "child 7 ran, but could not be waited for"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := &Probe{Level: tc.level, Source: "FILE"}
			if got := p.meaning(tc.o); !strings.HasPrefix(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// TestReportOK checks that OK, which decides the exit status, requires every ABI to work, up to
// the child's exit status.
func TestReportOK(t *testing.T) {
	all := make([]outcome, len(abis))
	for i := range all {
		all[i] = worked
	}
	conf := &config.Config{Platform: "systrap"}
	on, fd := &Probe{Level: clone4.LevelOn}, &Probe{Level: clone4.LevelFD}
	if r := on.newReport(conf, all); !r.OK {
		t.Errorf("all work: got %+v, want OK", r)
	}
	if r := fd.newReport(conf, all); r.OK || r.ABIs[0].Works {
		t.Errorf("nothing is read from descriptors at level fd: got %+v, want not OK", r)
	}
	for i, abi := range abis {
		for name, o := range map[string]outcome{
			"ENOSYS":      {Errno: syscall.ENOSYS},
			"SIGSEGV":     {Signal: unix.SIGSEGV},
			"did not run": {PID: 7},
			"not reaped":  {PID: 7, Ran: true},
			"ran not":     {PID: 7, Reaped: true},
			"no PID":      {Ran: true, Reaped: true},
		} {
			t.Run(abi.name+","+name, func(t *testing.T) {
				outcomes := append([]outcome(nil), all...)
				outcomes[i] = o
				r := on.newReport(conf, outcomes)
				if r.OK {
					t.Errorf("%+v is OK", o)
				}
				for j, a := range r.ABIs {
					if a.Works != (j != i) {
						t.Errorf("%s works: %t, want %t", a.ABI, a.Works, j != i)
					}
				}
			})
		}
	}
}

// TestAwaited checks that a probe reports how far a sandbox came before it stopped answering.
func TestAwaited(t *testing.T) {
	const line = `{"pid":7,"ran":true,"reaped":true,"fd":false}` + "\n"
	all := strings.Repeat(line, len(abis))
	for _, tc := range []struct {
		name, stdout string
		outcomes     int
		want         string // awaited
		rest         string // that is no outcome
	}{
		{name: "nothing", want: "the sandbox to boot"},
		{name: "started", stdout: started, want: "through the " + abis[0].name + " ABI"},
		{name: "half a line", stdout: started + line[:9], want: "through the " + abis[0].name + " ABI", rest: line[:9]},
		{name: "all", stdout: started + all, outcomes: len(abis), want: "the sandbox to exit"},
		{name: "more", stdout: started + all + "x", outcomes: len(abis), want: "the sandbox to exit", rest: "x"},
		{name: "something else", stdout: "bash: " + line, want: "the sandbox to boot", rest: "bash: " + line},
	} {
		t.Run(tc.name, func(t *testing.T) {
			outcomes, rest := decode(tc.stdout)
			if len(outcomes) != tc.outcomes || rest != tc.rest {
				t.Errorf("got %d outcomes and %q, want %d and %q", len(outcomes), rest, tc.outcomes, tc.rest)
			}
			if got := awaited(tc.stdout, outcomes); !strings.Contains(got, tc.want) {
				t.Errorf("awaited is %q, want %q", got, tc.want)
			}
		})
	}
}

// TestWriteText checks that the text names the source of the level, and prints numbers as
// system call tables do, with the bit of x32 apart.
func TestWriteText(t *testing.T) {
	r := report{Version: "v", Platform: "p", Clone4: "on", Source: "default", ABIs: []result{
		{ABI: "amd64", Instruction: "syscall", Number: extlinux.SYS_CLONE4_AMD64, Meaning: "first"},
		{ABI: "x32", Instruction: "syscall", Number: extlinux.SYS_CLONE4_X32, Meaning: "second"},
		{ABI: "i386", Instruction: "int $0x80", Number: extlinux.SYS_CLONE4_I386, Meaning: "third"},
	}}
	const want = `v, platform p, clone4 on (default)

ABI    CALL       NUMBER          RESULT
amd64  syscall    323             first
x32    syscall    0x40000000+546  second
i386   int $0x80  359             third
`
	var b bytes.Buffer
	if err := writeText(&b, r); err != nil || b.String() != want {
		t.Errorf("got error %v and\n%s\nwant\n%s", err, b.String(), want)
	}
}
