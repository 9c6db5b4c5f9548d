// SPDX-License-Identifier: Apache-2.0

// Package storm tests a sandbox as a whole. A guest makes random clone4 calls from many
// threads at once. Afterwards the sandbox must answer, and no task, memory or reference of
// the storm may be left.
//
//	go test ./test/storm
//
// runs short storms at the levels on and fd, on each platform. A million calls at one level
// on one platform take about 15 minutes on two idle processors:
//
//	go test ./test/storm -run 'TestStorm$/on/systrap' -calls=1000000 -timeout=2h -v
//
// With -v, the test prints the outcome and the rate of each storm, and the memory of the
// sandbox. The test has these flags beside those of go test:
//
//	-calls N         number of calls in each sandbox
//	-seed N          seed of the random calls
//	-lockdep         build a sentry that checks the order of its locks
//	-runsc FILE      test this binary
//	-platform NAME   test only this platform
//	-keep-logs DIR   keep the logs of a sandbox with a problem
//
// The same binary runs in the sandbox as the guest, with the flag -guest: see guest_test.go.
package storm
