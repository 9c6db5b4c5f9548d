// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"runtime"
	"strings"
	"sync"
)

// Guest returns the path of the program in ./guest, which calls clone4 as its arguments say.
// It is static.
var Guest = sync.OnceValues(func() (string, error) {
	return Build("runsc-ext/test/sandbox/guest", runtime.GOARCH)
})

// Pausing is the line that the guest prints when it pauses: until a byte comes on its
// standard input.
const Pausing = "pausing\n"

// ABIs returns the ABIs that clone4 can be called through. Each is a step of the guest.
func ABIs() []string {
	if runtime.GOARCH == "amd64" {
		return []string{"amd64", "x32", "i386"}
	}
	return []string{runtime.GOARCH}
}

// Results returns what the guest prints if each of steps has the same result: "ok", or the
// name of an error.
func Results(result string, steps ...string) string {
	var b strings.Builder
	for _, step := range steps {
		b.WriteString(step + ": " + result + "\n")
	}
	return b.String()
}
