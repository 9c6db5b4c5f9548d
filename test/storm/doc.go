// SPDX-License-Identifier: Apache-2.0

// Package storm tests a sandbox as a whole: a guest throws calls of clone4 at the sandbox,
// from all sides at once, and afterwards nothing of them may be left.
//
//	go test ./test/storm
//
// makes a short storm at each level on each platform. A million calls at one level on one
// platform take about 15 minutes on two processors that have nothing else to do:
//
//	go test ./test/storm -run 'TestStorm$/on/systrap' -calls=1000000 -timeout=2h -v
//
// With -v the test prints what the calls returned, the rate, and the memory of the sandbox
// after each round. Some flags, beside those of go test:
//
//	-calls N         make so many calls in each sandbox
//	-seed N          make other calls
//	-lockdep         build a sentry that checks the order of its locks
//	-runsc FILE      test this binary
//	-keep-logs DIR   keep the logs of a sandbox with a problem
//
// The test binary is the guest as well, with the flag -guest: guest_test.go.
package storm
