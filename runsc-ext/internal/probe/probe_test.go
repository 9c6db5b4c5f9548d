package probe

import (
	"bytes"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/runsc/config"

	"runsc-ext/abi/linux"
	"runsc-ext/sentry/syscalls/clone4"
)

var worked = outcome{PID: 7, Ran: true, Reaped: true}

// The first column that people read is why something does not work: the cause
// nearest to what they can change.
func TestMeaning(t *testing.T) {
	supported, unsupported := abi{supported: true}, abi{}
	for _, tc := range []struct {
		name  string
		abi   abi
		o     outcome
		level clone4.Level
		want  string
	}{
		{"works", supported, worked, clone4.LevelOn, "works: child 7"},
		{"works unexpectedly", unsupported, worked, clone4.LevelOn, "works: child 7"},
		{"killed by a signal", unsupported, outcome{Signal: unix.SIGSEGV}, clone4.LevelOn, "SIGSEGV: the platform"},
		{"not built in", unsupported, outcome{Errno: syscall.ENOSYS}, clone4.LevelOn, "ENOSYS: this version"},
		{"not built in, and off", unsupported, outcome{Errno: syscall.ENOSYS}, clone4.LevelOff, "ENOSYS: this version"},
		{"off", supported, outcome{Errno: syscall.ENOSYS}, clone4.LevelOff, "ENOSYS: clone4 is switched off"},
		{"gone although on", supported, outcome{Errno: syscall.ENOSYS}, clone4.LevelOn, "ENOSYS: function not implemented"},
		{"works, fd", supported, outcome{PID: 7, Ran: true, Reaped: true, FD: true}, clone4.LevelFD, "works: child 7 was made, ran and was reaped, another"},
		{"no descriptor", supported, worked, clone4.LevelFD, "child 7 was made, ran and was reaped, but CLONE_FD"},
		{"another error", supported, outcome{Errno: syscall.EINVAL}, clone4.LevelOn, "EINVAL: invalid argument"},
		{"child did not run", supported, outcome{PID: 7}, clone4.LevelOn, "child 7 was made, but did not run"},
		{"child was not reaped", supported, outcome{PID: 7, Ran: true}, clone4.LevelOn, "child 7 ran, but could not be waited for"},
	} {
		if got := meaning(tc.abi, tc.o, tc.level); !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}

// The exit status rests on OK: all that is supported has to work, all the way to
// the child's exit status; what is not supported does not count.
func TestReportOK(t *testing.T) {
	all := make([]outcome, len(abis))
	for i := range all {
		all[i] = worked
	}
	conf := &config.Config{Platform: "systrap"}
	if r := newReport(conf, clone4.LevelOn, all); !r.OK {
		t.Errorf("all work: got %+v, want OK", r)
	}
	if r := newReport(conf, clone4.LevelFD, all); r.OK || r.ABIs[0].Works {
		t.Errorf("nothing is read from descriptors, at the level that has them: got %+v, want not OK", r)
	}
	for i, abi := range abis {
		for _, o := range []outcome{
			{Errno: syscall.ENOSYS},
			{Signal: unix.SIGSEGV},
			{PID: 7},
			{PID: 7, Ran: true},
			{PID: 7, Reaped: true},
			{Ran: true, Reaped: true},
		} {
			outcomes := append([]outcome(nil), all...)
			outcomes[i] = o
			r := newReport(conf, clone4.LevelOn, outcomes)
			if r.OK != !abi.supported {
				t.Errorf("%s is %+v: OK is %t, want %t", abi.name, o, r.OK, !abi.supported)
			}
			for j, a := range r.ABIs {
				if a.Works != (j != i) {
					t.Errorf("%s is %+v: %s works = %t, want %t", abi.name, o, a.ABI, a.Works, j != i)
				}
			}
		}
	}
}

// Numbers are to be found in the tables that people have: those of x32 have its
// bit apart.
func TestWriteText(t *testing.T) {
	r := report{Version: "v", Platform: "p", Clone4: "on", ABIs: []result{
		{ABI: "amd64", Instruction: "syscall", Number: linux.SYS_CLONE4_AMD64, Meaning: "first"},
		{ABI: "x32", Instruction: "syscall", Number: linux.SYS_CLONE4_X32, Meaning: "second"},
		{ABI: "i386", Instruction: "int $0x80", Number: linux.SYS_CLONE4_I386, Meaning: "third"},
	}}
	const want = `v, platform p, clone4 on

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
