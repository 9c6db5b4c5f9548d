// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"testing"
)

// TestBallast checks that the ballast defers the next garbage collection, and that the
// ballast takes no memory.
func TestBallast(t *testing.T) {
	if ballast != nil {
		t.Skip("the ballast is measured once: Go clears, and so touches, memory that it allocates again")
	}
	runtime.GC()
	goal, held := heapGoal(t), resident(t)
	allocateBallast()
	runtime.GC()
	if got, want := heapGoal(t)-goal, int64(2*ballastSize-4<<20); got < want {
		t.Errorf("the ballast raises the goal of the heap from %d by %d bytes, want at least %d", goal, got, want)
	}
	if got, most := resident(t)-held, int64(ballastSize/2); got > most {
		t.Errorf("the process has %d more bytes in memory with the ballast, want at most %d", got, most)
	}
}

// heapGoal returns the size of the heap, in bytes, at which the next garbage collection ends.
func heapGoal(t *testing.T) int64 {
	t.Helper()
	sample := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		t.Fatalf("this Go version has no metric %s", sample[0].Name)
	}
	return int64(sample[0].Value.Uint64())
}

// resident returns how many bytes of this process are in memory (proc_pid_statm(5)).
func resident(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(string(bytes.Fields(b)[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
