// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"fmt"
	"maps"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"runsc-ext/test/sandbox"
)

// TestMetrics checks that a scrape of a sandbox counts the calls of clone4 by ABI and by
// outcome, and counts each call once, whichever way the call takes through the sentry.
func TestMetrics(t *testing.T) {
	needRoot(t)
	abis, off := sandbox.ABIs(), sandbox.OffABIs()
	var all []string
	all = append(all, abis...)                        // do not stop the caller
	all = append(all, abis[len(abis)-1]+",vfork")     // stops the caller
	all = append(all, abis[0]+",unknown", "pause")    // is refused
	counted := map[string]int{abis[0] + ",EINVAL": 1} // by ABI and outcome
	for _, abi := range abis {
		counted[abi+",created"]++
	}
	counted[abis[len(abis)-1]+",created"]++
	switchedOff := make(map[string]int)
	for _, abi := range off {
		switchedOff[abi+",switched_off"]++
	}

	for _, tc := range []struct {
		level string
		steps []string
		want  map[string]int
	}{
		{level: "on", steps: all, want: counted},
		{level: "off", steps: append(slices.Clone(off), "pause"), want: switchedOff},
	} {
		for _, platform := range sandbox.Platforms {
			t.Run(tc.level+","+platform, func(t *testing.T) {
				t.Parallel()
				c := sandbox.NewContainer(t, binary(t), platform, guest(t, tc.steps...)...)
				c.AnnotateLevel(t, tc.level)
				s := c.Begin(t, "run")
				s.ReadTo(t, sandbox.Pausing)
				r := c.Runsc(t, "export-metrics", c.ID)
				if r.Status != 0 {
					t.Fatal(r)
				}
				s.Say("")
				s.Wait(t)
				if got := clone4Calls(r.Stdout); !maps.Equal(got, tc.want) {
					t.Errorf("the scrape has %v, want %v:\n%s", got, tc.want, r.Stdout)
				}
			})
		}
	}
}

// clone4Calls returns the numbers of calls in a scrape, by ABI and outcome.
func clone4Calls(scrape string) map[string]int {
	calls := make(map[string]int)
	line := regexp.MustCompile(`(?m)^runsc_clone4_calls\{(.*)\} (\d+) \d+$`)
	label := regexp.MustCompile(`(\w+)="(.*?)"`)
	for _, m := range line.FindAllStringSubmatch(scrape, -1) {
		labels := make(map[string]string)
		for _, l := range label.FindAllStringSubmatch(m[1], -1) {
			labels[l[1]] = l[2]
		}
		var n int
		fmt.Sscan(m[2], &n)
		calls[labels["abi"]+","+labels["outcome"]] += n
	}
	return calls
}

// TestMetricMetadata checks that the metric is in gVisor's list of metrics.
func TestMetricMetadata(t *testing.T) {
	r := sandbox.Run(t, binary(t), "metric-metadata")
	for _, want := range []string{`"/clone4_calls"`, `"outcome"`, `"switched_off"`, `"` + runtime.GOARCH + `"`} {
		if r.Status != 0 || !strings.Contains(r.Stdout, want) {
			t.Errorf("got status %d, want 0 and %s in\n%s", r.Status, want, r.Stdout)
		}
	}
}
