// Command threeabis makes children by clone4 in every way that the architecture has,
// waits for them and ends with status 42 if each did what it should.
package main

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

func main() {
	calls := []rawclone.Op{{Trap: linux.SYS_CLONE4}}
	if runtime.GOARCH == "amd64" {
		calls = append(calls,
			rawclone.Op{Trap: linux.SYS_CLONE4_X32},
			rawclone.Op{Trap: linux.SYS_CLONE4_I386, Entry: rawclone.Int80})
	}
	status := 42
	for _, call := range calls {
		for _, flags := range []uint64{0, linux.CLONE_VFORK | linux.CLONE_PARENT_SETTID} {
			if err := makeChild(call, flags|uint64(unix.SIGCHLD)); err != nil {
				fmt.Fprintf(os.Stderr, "clone4 by %#x with flags %#x: %v\n", call.Trap, flags, err)
				status = 1
			}
		}
	}
	os.Exit(status)
}

// makeChild makes a child by call and waits for it. The struct that it passes is 8
// bytes: an address for ptid, and on compat ABIs an empty ctid.
func makeChild(call rawclone.Op, flags uint64) error {
	const childStatus = 5
	p := rawclone.NewProgram()
	tid, args := p.Word(), p.Word()
	*args = rawclone.Addr(tid)
	call.Args = [6]uintptr{0, uintptr(flags), unsafe.Sizeof(*args), rawclone.Addr(args)}
	call.Child = p.List(rawclone.Op{Trap: unix.SYS_EXIT_GROUP, Args: [6]uintptr{childStatus}})
	pid, errno := rawclone.Do(p.List(call))
	if errno != 0 {
		return errno
	}
	for {
		var ws unix.WaitStatus
		_, err := unix.Wait4(int(pid), &ws, 0, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case ws.ExitStatus() != childStatus:
			return fmt.Errorf("the child ended with wait status %#x", ws)
		}
		return nil
	}
}
