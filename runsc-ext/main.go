// SPDX-License-Identifier: Apache-2.0

//go:build !cgo

// Command runsc-ext is gVisor's OCI runtime, runsc, with an extended sentry: the programs in
// its sandboxes can call clone4. Every command and flag of runsc works as it does in runsc.
package main

import "runsc-ext/runsc-ext/internal/cli"

func main() {
	cli.Main()
}
