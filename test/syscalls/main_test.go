// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"testing"

	"runsc-ext/test/kit"
)

func TestMain(m *testing.M) {
	kit.Main(m, kit.Suite{
		Package: "runsc-ext/test/syscalls",
		Few: map[string]string{
			"ptrace-arm64-emulated": "^(TestFlagBits|TestStack|TestTLS|TestVforkKilled|TestTracedSteps)$",
			"kvm-arm64-emulated":    "^(TestFlagBits|TestStack|TestTLS|TestVforkKilled)$",
		},
	})
}
