// SPDX-License-Identifier: Apache-2.0

// Package differential compares random calls of clone4 in a sandbox with the same calls on the
// reference kernel, a Linux that has clone4.
//
// Call i of a seed is always the same. A new process makes each call. The outcome is one line
// of text: the error, or what the child and its parent see. The line has nothing that differs
// from run to run: the ID that clone4 returns is "ret", and an address is "given" or "callers".
//
// For some flags, a line shows only whether clone4 accepts them: CLONE_IO and CLONE_SYSVSEM,
// which have no effect in gVisor, and CLONE_PTRACE and CLONE_UNTRACED, because no caller is
// traced. Package syscalls tests the latter two.
//
// knownDifferences lists the ways in which gVisor's clone(2) differs from Linux, and what is
// therefore not compared. -v counts the calls in which each difference shows. -older makes the
// calls by clone(2), in which each difference must show too.
//
// `go test` makes 1,000 calls on systrap and on ptrace, and compares the outcomes with the lines
// in testdata. Without -short, it also makes 200 calls in each available emulated machine. On
// arm64, the calls use its one ABI, and must have the outcomes of Linux on amd64. Calls of
// another seed are compared with the reference kernel itself:
//
//	go test ./test/differential -seed 7 -calls 5000
//
// This makes only call 17 of them:
//
//	go test ./test/differential -seed 7 -first 17 -calls 1 -v
//
// After a change of the generator or of the outcomes, record testdata again:
//
//	go test ./test/differential -record
package differential
