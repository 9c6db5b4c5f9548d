// SPDX-License-Identifier: Apache-2.0

// Package syscalls has the tests of clone4. The same test binary runs in a sandbox and on the
// reference kernel, a Linux that has clone4 and defines the expected results. Package clonefd
// has the tests of CLONE_FD and CLONE_AUTOREAP.
//
// On a machine without clone4, `go test` builds runsc-ext and runs the test binary in every
// environment that the machine has; see kit.Main. Flags such as -run, -v and -count are passed
// on.
package syscalls
