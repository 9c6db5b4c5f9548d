// SPDX-License-Identifier: Apache-2.0

// Command runsc-ext, for a build with the race detector. In such a build, this file takes the place of
// main_cgo.go; see test/tools/race.
package main

import (
	"fmt"
	"os"
	"syscall"

	"runsc-ext/runsc-ext/internal/cli"
)

func main() {
	// The race detector brings the C library, which registers each thread for
	// rseq(2). A process that a platform forks unmaps all memory, and the kernel
	// kills it when it next reads the registration. The library reads this
	// setting from the environment only at its start, and a sentry starts with an
	// empty environment.
	const name, value = "GLIBC_TUNABLES", "glibc.pthread.rseq=0"
	if os.Getenv(name) != value {
		err := os.Setenv(name, value)
		if err == nil {
			err = syscall.Exec("/proc/self/exe", os.Args, os.Environ())
		}
		fmt.Fprintln(os.Stderr, "executing again without rseq:", err)
		os.Exit(128)
	}
	cli.Main()
}
