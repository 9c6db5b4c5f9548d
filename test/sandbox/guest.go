// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"runsc-ext/internal/rawclone"
)

// Guest returns the path of the program in ./guest, which calls clone4 as its arguments say.
// It is static.
var Guest = sync.OnceValues(func() (string, error) {
	return Build("runsc-ext/test/sandbox/guest", runtime.GOARCH)
})

// Pausing is the line that the guest prints when it pauses: until a byte comes on its
// standard input.
const Pausing = "pausing\n"

// ABIs returns the ABIs that clone4 can be called through. Each is a step of the guest.
func ABIs() []string {
	if runtime.GOARCH == "amd64" {
		return []string{"amd64", "x32", "i386"}
	}
	return []string{runtime.GOARCH}
}

// OffABIs returns the ABIs through which clone4 is ENOSYS at level off. INT $0x80 is then what
// the machine's kernel makes of it: SIGSEGV without IA32 emulation, as in stock runsc.
var OffABIs = sync.OnceValue(func() []string {
	abis := ABIs()
	if len(abis) == 3 && !hasInt80() {
		abis = abis[:2]
	}
	return abis
})

// hasInt80 returns whether INT $0x80 is a system call on this machine. A child tries it.
func hasInt80() bool {
	const getpid = 20 // i386
	l := rawclone.NewProgram().NewList(2)
	l.Append(rawclone.Op{Trap: getpid, Entry: rawclone.Int80})
	l.Exit(0)
	pid, errno := l.Start(uint64(unix.SIGCHLD))
	if errno != 0 {
		return false
	}
	for {
		var ws unix.WaitStatus
		if _, err := unix.Wait4(pid, &ws, 0, nil); err != unix.EINTR {
			return err == nil && ws.Exited()
		}
	}
}

// Results returns what the guest prints if each of steps has the same result: "ok", or the
// name of an error.
func Results(result string, steps ...string) string {
	var b strings.Builder
	for _, step := range steps {
		b.WriteString(step + ": " + result + "\n")
	}
	return b.String()
}
