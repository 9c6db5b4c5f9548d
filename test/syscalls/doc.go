// SPDX-License-Identifier: Apache-2.0

// Package syscalls is the suite of tests of clone4. They run inside of a sandbox
// and, the same binary, on a Linux kernel that has the call: the second is what
// the first is held to.
//
// Package clonefd has the tests of CLONE_FD and CLONE_AUTOREAP.
//
// On a machine without clone4, `go test` builds runsc-ext and runs the test
// binary in a sandbox on each platform, and natively and in emulated machines
// where these can be had; see TestMain. Flags such as -run, -v and -count are
// passed on.
package syscalls
