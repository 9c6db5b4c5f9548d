// SPDX-License-Identifier: Apache-2.0

// Command large is a guest of test/perf: a Go program that has written to 32 MB of memory.
// A fork of large copies more than a fork of the C guest. The line "large/METHOD COUNT"
// asks large to create COUNT processes, one after the other. large answers as the C guest
// does.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

func main() {
	debug.SetGCPercent(-1)
	memory := make([]byte, 32<<20)
	for i := 0; i < len(memory); i += os.Getpagesize() {
		memory[i] = 1
	}
	p := rawclone.NewProgram()
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if err := answer(in, p); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
}

// answer answers one line of standard input.
func answer(in *bufio.Scanner, p *rawclone.Program) error {
	var method string
	var n int
	if _, err := fmt.Sscanf(in.Text(), "large/%s %d", &method, &n); err != nil {
		return fmt.Errorf("%q is not \"large/METHOD COUNT\": %w", in.Text(), err)
	}
	p.Reset()
	l, child := p.NewList(1), p.NewList(1)
	child.Exit(0)
	var call *rawclone.Op
	switch {
	case method == "clone3":
		call = l.Sys(unix.SYS_CLONE3, cloneArgs(p), 64)
	case method == "clone4" && hasClone4():
		call = l.Sys(linux.SYS_CLONE4, 0, int(unix.SIGCHLD), 0, 0)
	default:
		fmt.Println("unsupported")
		return nil
	}
	call.Child = child.First()
	if err := life(call); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	fmt.Println("ready ")
	in.Scan()
	start := time.Now()
	for range n {
		if err := life(call); err != nil {
			return fmt.Errorf("%s: %w", method, err)
		}
	}
	fmt.Println(time.Since(start).Nanoseconds())
	fmt.Println("done")
	return nil
}

// cloneArgs returns a struct clone_args for clone3(2) that creates a process like fork(2).
func cloneArgs(p *rawclone.Program) []byte {
	args := p.Buffer(64)
	const exitSignal = 4 // index of the field, in words of 8 bytes
	*rawclone.WordOf(args[8*exitSignal:]) = uintptr(unix.SIGCHLD)
	return args
}

// hasClone4 returns whether the kernel has clone4. It calls clone4 with invalid arguments,
// for which clone4 returns EFAULT. A kernel without clone4 returns another error.
func hasClone4() bool {
	const all = ^uintptr(0)
	_, _, errno := unix.RawSyscall6(linux.SYS_CLONE4, all, all, 8, all, 0, 0)
	return errno == unix.EFAULT
}

// life creates a process, which exits, and waits for the process.
func life(call *rawclone.Op) error {
	pid, errno := rawclone.Do(call)
	if errno != 0 {
		return errno
	}
	_, err := unix.Wait4(int(pid), nil, unix.WALL, nil)
	return err
}
