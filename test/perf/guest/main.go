// SPDX-License-Identifier: Apache-2.0

// Command guest is what test/perf measures with: it runs in a sandbox, or natively,
// and prints how long things took.
//
//	guest calls PASSES      single calls
//	guest children PASSES   children and threads
//	guest ends PASSES       children, by how their end is seen
//	guest live CHILDREN     one more child, beside so many live ones
//	guest hold CHILDREN     makes so many, says "ready", and waits for its input to end
//	guest time COMMAND...   how long a command took
//
// Each line of output is a name and nanoseconds. What the kernel refuses is left out.
//
// What is measured runs as a list of raw system calls, in a child that shares memory
// with this process: the Go runtime is not in the figures.
package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: guest calls|children|ends|live|hold NUMBER, or guest time COMMAND...; got %q", args)
	}
	if args[0] == "time" {
		return timeCommand(args[1:])
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	debug.SetGCPercent(-1)
	switch args[0] {
	case "calls":
		return measure(n, 10, singleCalls)
	case "children":
		return measure(n, 1, children)
	case "ends":
		return measure(n, 1, ends)
	case "live":
		return live(n)
	case "hold":
		return hold(n)
	}
	return fmt.Errorf("unknown command %q", args[0])
}

// report prints a result.
func report(name string, ns float64) {
	fmt.Printf("%s\t%.1f\n", name, ns)
}

// measure runs every variant once a pass, in a new order each time, and so many times
// in a row: systrap finds out by the calls of some milliseconds how it should wait for
// the next. A pass before the first warms up.
func measure(passes, inARow int, variants func(dir string) ([]variant, error)) error {
	dir, err := os.MkdirTemp("", "guest-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	all, err := variants(dir)
	if err != nil {
		return err
	}
	memory := rawclone.NewProgram()
	for pass := range passes + 1 {
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, v := range all {
			for range inARow {
				ns, err := v.measure(memory)
				if err != nil {
					return err
				}
				if pass > 0 {
					report(v.name, ns)
				}
			}
		}
	}
	return nil
}

// live makes children that live on, and measures one more by each method that there
// is. Those children share memory: with a memory of its own for each, 10,000 would
// take minutes to make.
func live(n int) error {
	pids, err := population(n, linux.CLONE_VM)
	if err != nil {
		return err
	}
	defer end(pids)
	p := rawclone.NewProgram()
	for _, m := range there([]method{clone, clone3, fullClone4}) {
		create := p.List(m.process(p, p.List(call(unix.SYS_EXIT))))
		const times = 20
		start := time.Now()
		for range times {
			if err := life(create); err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
		}
		report(fmt.Sprintf("live-%d/%s", n, m.name), float64(time.Since(start).Nanoseconds())/times)
	}
	return nil
}

// hold makes children, and keeps them while the input is open.
func hold(n int) error {
	pids, err := population(n, 0)
	if err != nil {
		return err
	}
	defer end(pids)
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// population makes n children that do nothing.
func population(n int, flags uintptr) ([]int, error) {
	p := rawclone.NewProgram()
	idle := p.List(call(unix.SYS_PPOLL), call(unix.SYS_EXIT))
	op := clone.call(p, cloneArgs{flags: flags | uintptr(unix.SIGCHLD)})
	op.Child = idle
	create := p.List(op)
	var pids []int
	for range n {
		pid, errno := rawclone.Do(create)
		if errno != 0 {
			end(pids)
			return nil, fmt.Errorf("child %d of %d: %w", len(pids)+1, n, errno)
		}
		pids = append(pids, int(pid))
	}
	return pids, nil
}

func end(pids []int) {
	for _, pid := range pids {
		unix.Kill(pid, unix.SIGKILL)
	}
	for range pids {
		unix.Wait4(-1, nil, unix.WALL, nil)
	}
}

func timeCommand(args []string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%v: %w", cmd, err)
	}
	report("time", float64(time.Since(start).Nanoseconds()))
	return nil
}
