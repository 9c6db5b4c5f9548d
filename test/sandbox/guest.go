// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"runsc-ext/internal/rawclone"
)

// Guest returns the path of the program in ./guest. The program is static, and its arguments
// say how it calls clone4.
var Guest = sync.OnceValues(func() (string, error) {
	return Build("runsc-ext/test/sandbox/guest", runtime.GOARCH)
})

// Pausing is the line that the guest prints when it pauses. The guest goes on when it reads a
// byte from standard input.
const Pausing = "pausing\n"

// ABIs returns the ABIs of clone4. Each name is a step of the guest.
func ABIs() []string {
	if runtime.GOARCH == "amd64" {
		return []string{"amd64", "x32", "i386"}
	}
	return []string{runtime.GOARCH}
}

// OffABIs returns the ABIs through which clone4 is ENOSYS at level off. At that level, as in
// stock runsc, INT $0x80 is SIGSEGV if the machine's kernel has no IA-32 emulation.
var OffABIs = sync.OnceValue(func() []string {
	abis := ABIs()
	if len(abis) == 3 && !hasInt80() {
		abis = abis[:2]
	}
	return abis
})

// hasInt80 returns whether INT $0x80 is a system call on this machine. A child tries the
// instruction, because it may be SIGSEGV.
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

// Results returns the output of the guest if all steps have the same result: "ok", or the name
// of an error.
func Results(result string, steps ...string) string {
	var b strings.Builder
	for _, step := range steps {
		b.WriteString(step + ": " + result + "\n")
	}
	return b.String()
}
