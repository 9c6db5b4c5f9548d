// SPDX-License-Identifier: Apache-2.0

package clonefd

import (
	"testing"

	"runsc-ext/test/kit"
)

func TestMain(m *testing.M) {
	const few = "^(TestFDArgsSize|TestFDNoChild|TestFDRead|TestFDAutoreap|TestFDKillOnClose)$"
	kit.Main(m, kit.Suite{
		Package: "runsc-ext/test/clonefd",
		Level:   "fd",
		Few: map[string]string{
			"kvm-amd64-emulated":     few,
			"systrap-arm64-emulated": few,
			"ptrace-arm64-emulated":  "^(TestFDRead|TestFDAutoreap)$",
			"kvm-arm64-emulated":     "^(TestFDRead|TestFDAutoreap)$",
		},
	})
}
