// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTypeOfEvaluateSyscallFilters checks that gVisor's method has the type that
// seccomp_unsafe.go declares. The linker compares only names.
func TestTypeOfEvaluateSyscallFilters(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "gvisor.dev/gvisor").Output()
	if err != nil {
		t.Fatal(err)
	}
	src, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "pkg/sentry/kernel/seccomp.go"))
	if err != nil {
		t.Fatal(err)
	}
	const want = "\nfunc (t *Task) evaluateSyscallFilters(sysno int32, args arch.SyscallArguments, ip hostarch.Addr) uint32 {\n"
	if !strings.Contains(string(src), want) {
		t.Errorf("gVisor's seccomp.go does not have %q", want)
	}
}
