// Command checkpointed is the program in a container that is checkpointed and
// restored. It takes its arguments one after the other:
//
//	pause      pauses
//	ABI        makes a child by clone4, called as ABI calls it
//	ABI,vfork  the same with CLONE_VFORK; it is the child that pauses
//
// To pause is to print a line that says so and to read a byte from standard input.
// For each child there is a line that says what came of it.
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

// abis has the call of clone4 by each ABI.
var abis = map[string]rawclone.Op{
	runtime.GOARCH: {Trap: linux.SYS_CLONE4},
	"x32":          {Trap: linux.SYS_CLONE4_X32},
	"i386":         {Trap: linux.SYS_CLONE4_I386, Entry: rawclone.Int80},
}

// pausing is the line that says so. Its length is that of a word.
const pausing = "pausing\n"

// childStatus is the exit status of the children.
const childStatus = 42

func main() {
	for _, arg := range os.Args[1:] {
		if arg == "pause" {
			fmt.Print(pausing)
			if _, err := io.ReadFull(os.Stdin, make([]byte, 1)); err != nil {
				fmt.Println("pause:", err)
			}
			continue
		}
		abi, vfork := strings.CutSuffix(arg, ",vfork")
		fmt.Println(arg+":", makeChild(abis[abi], vfork))
	}
}

// makeChild makes a child by op and waits for its end. It returns "ok", or what
// was wrong.
func makeChild(op rawclone.Op, vfork bool) string {
	p := rawclone.NewProgram()
	text := p.Word()
	*text = uintptr(binary.LittleEndian.Uint64([]byte(pausing)))
	ops := []rawclone.Op{{Trap: unix.SYS_GETPID}}
	flags := uintptr(unix.SIGCHLD)
	if vfork {
		flags |= linux.CLONE_VFORK | linux.CLONE_VM
		ops = append(ops,
			rawclone.Op{Trap: unix.SYS_WRITE, Args: [6]uintptr{1, rawclone.Addr(text), uintptr(len(pausing))}},
			rawclone.Op{Trap: unix.SYS_READ, Args: [6]uintptr{0, rawclone.Addr(text), 1}},
		)
	}
	child := p.List(append(ops, rawclone.Op{Trap: unix.SYS_EXIT_GROUP, Args: [6]uintptr{childStatus}})...)
	op.Args[1], op.Child = flags, child

	pid, errno := rawclone.Do(p.List(op))
	if errno != 0 {
		return unix.ErrnoName(errno)
	}
	if read := rawclone.At(child, len(ops)-1).Ret; vfork && read != 1 {
		return fmt.Sprintf("went on while the child was in its pause, or its read returned %#x", read)
	}
	var ws unix.WaitStatus
	waited, err := unix.Wait4(int(pid), &ws, 0, nil)
	for err == unix.EINTR {
		waited, err = unix.Wait4(int(pid), &ws, 0, nil)
	}
	if err != nil || waited != int(pid) || child.Ret != pid || ws.ExitStatus() != childStatus {
		return fmt.Sprintf("clone4 returned %d, the child is %d; wait4 returned %d, %v, and the wait status is %#x", pid, child.Ret, waited, err, ws)
	}
	return "ok"
}
