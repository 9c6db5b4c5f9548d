// SPDX-License-Identifier: Apache-2.0

//go:build cgo

// Command runsc-ext is gVisor's OCI runtime, runsc, with an extended sentry: the programs in
// its sandboxes can call clone4. It must be built with CGO_ENABLED=0.
package main

import (
	"fmt"
	"os"
)

// main refuses to run. The sentry executes its own binary again in an empty root directory,
// which has no C library and no dynamic linker. The sentry's seccomp filters are made for a
// program without C. The go command uses cgo wherever it finds a C compiler, and a package
// cannot forbid that.
func main() {
	fmt.Fprint(os.Stderr, `runsc-ext: this binary was built with cgo, and cannot run a sandbox.
In the source directory, build or run it without cgo:
	CGO_ENABLED=0 go build ./runsc-ext
	CGO_ENABLED=0 go run ./runsc-ext probe
`)
	os.Exit(128)
}
