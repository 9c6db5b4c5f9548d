// SPDX-License-Identifier: Apache-2.0

//go:build cgo

// Command runsc-ext is gVisor's OCI runtime, runsc, with an extended sentry: the programs in
// its sandboxes can call clone4. It has to be built with CGO_ENABLED=0.
package main

import (
	"fmt"
	"os"
)

// main refuses to run. The sentry executes its own binary again in an empty root directory,
// without a C library or a dynamic linker, and its seccomp filters are made for a program
// without C. The go command uses cgo where it finds a C compiler, and a package cannot ask for
// none.
func main() {
	fmt.Fprint(os.Stderr, `runsc-ext: this binary was built with cgo, and so cannot be a sandbox.
In the source directory, build it or run it without:
	CGO_ENABLED=0 go build ./runsc-ext
	CGO_ENABLED=0 go run ./runsc-ext probe
`)
	os.Exit(128)
}
