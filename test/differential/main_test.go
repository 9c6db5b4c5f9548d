// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"runsc-ext/test/kit"
)

var (
	seed   = flag.Uint64("seed", recordedSeed, "make the calls of this seed")
	first  = flag.Int("first", 0, "number of the first call")
	calls  = flag.Int("calls", 0, "make this many calls on each platform; 0: 1,000, and 200 in an emulated machine")
	record = flag.Bool("record", false, "record testdata again, on the reference kernel")
	older  = flag.Bool("older", false, "make the calls by clone(2) as far as possible: a difference that remains is gVisor's own")

	// Flags for the test binary in a sandbox or on the reference kernel.
	outcomes = flag.Bool("outcomes", false, "make the calls on this kernel and print their outcomes; test nothing")
	nABIs    = flag.Int("abis", len(kit.ABIs()), "with -outcomes: make calls through this many ABIs, the first with 64-bit words")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if *outcomes {
		if err := printOutcomes(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// printOutcomes makes calls, and prints a line for each.
func printOutcomes() error {
	r, err := newRecorder()
	if err != nil {
		return err
	}
	r.older = *older
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return fmt.Errorf("uname: %w", err)
	}
	w := bufio.NewWriter(os.Stdout)
	defer w.Flush()
	fmt.Fprintf(w, "# %s %s %s\n", unix.ByteSliceToString(uts.Sysname[:]), unix.ByteSliceToString(uts.Release[:]), unix.ByteSliceToString(uts.Machine[:]))
	for i := *first; i < *first+*calls; i++ {
		c := generate(*seed, i, *nABIs)
		out := "not made: such a child cannot run here"
		if kit.HasOddStacks() || !c.hasOddStack() {
			if out, err = r.record(c); err != nil {
				return fmt.Errorf("call %d: %v: %w", i, c, err)
			}
		}
		fmt.Fprintf(w, "%d %v%s%s\n", i, c, becomes, out)
		w.Flush() // so that the missing line shows a call that hangs
	}
	return nil
}
