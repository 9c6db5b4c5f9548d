// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"runtime"
	"slices"
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

// ABIs returns the ABIs that clone4 can be called through in a sandbox on this machine. Each
// is a step of the guest. systrap and ptrace leave INT $0x80 to the machine's kernel, which
// may lack it (CONFIG_IA32_EMULATION, or ia32_emulation=off).
var ABIs = sync.OnceValue(func() []string {
	if runtime.GOARCH != "amd64" {
		return []string{runtime.GOARCH}
	}
	abis := []string{"amd64", "x32"}
	if hasInt80() {
		abis = append(abis, "i386")
	}
	return slices.Clip(abis)
})

// hasInt80 returns whether INT $0x80 is a system call on this machine. Without IA32
// emulation it is SIGSEGV, so a child executes it.
func hasInt80() bool {
	const getpid = 20 // i386
	p := rawclone.NewProgram()
	call := rawclone.Op{Trap: getpid, Entry: rawclone.Int80}
	fork := rawclone.Sys(unix.SYS_CLONE, int(unix.SIGCHLD))
	fork.Child = p.List(call, rawclone.Sys(unix.SYS_EXIT_GROUP, 0))
	pid, errno := rawclone.Do(p.List(fork))
	if errno != 0 {
		return false
	}
	var ws unix.WaitStatus
	_, err := unix.Wait4(int(pid), &ws, 0, nil)
	for err == unix.EINTR {
		_, err = unix.Wait4(int(pid), &ws, 0, nil)
	}
	return err == nil && ws.Exited()
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
