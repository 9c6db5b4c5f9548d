// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"strings"
	"testing"

	"runsc-ext/test/sandbox"
)

// TestTypeOfEvaluateSyscallFilters checks that gVisor's method has the type that
// seccomp_unsafe.go declares. The linker compares only names.
func TestTypeOfEvaluateSyscallFilters(t *testing.T) {
	const want = "\nfunc (t *Task) evaluateSyscallFilters(sysno int32, args arch.SyscallArguments, ip hostarch.Addr) uint32 {\n"
	if !strings.Contains(sandbox.GVisorSource(t, "pkg/sentry/kernel/seccomp.go"), want) {
		t.Errorf("gVisor's seccomp.go does not have %q", want)
	}
}
