// SPDX-License-Identifier: Apache-2.0

// Package differential compares random calls of clone4 in the sandbox with the same
// calls on a Linux kernel that has clone4.
//
// Call i of a seed is always the same. It is made by a process of its own, and its
// outcome is one line of text: the error, or what can be seen of the child, by the
// child and by its parent. In a line nothing is left that differs from run to run:
// an ID is "ret" for what clone4 returned, an address is "given" or "callers".
//
// What is not seen: CLONE_IO and CLONE_SYSVSEM, which have no effect in gVisor, and
// CLONE_PTRACE and CLONE_UNTRACED, as no caller is traced; these are accepted or
// not. Package syscalls has tests of the latter two. Where gVisor differs from Linux
// outside of clone4 is in knownDifferences, with what is not compared for that; -v
// says in how many calls each showed, and -older makes the calls by clone(2), where
// each is to show too.
//
// `go test` makes 1,000 calls on each platform that needs nothing of the machine,
// and 200 in the emulated machines where these can be had (none with -short), and
// compares them with the lines in testdata. On arm64 the calls are those of one ABI,
// and are held to what Linux does with them on amd64. Other calls are compared with
// the reference kernel itself:
//
//	go test ./test/differential -seed 7 -calls 5000
//
// Call 17 of them alone, to look at:
//
//	go test ./test/differential -seed 7 -first 17 -calls 1 -v
//
// After a change of the generator, and of what is looked at, testdata is made anew:
//
//	go test ./test/differential -record
package differential
