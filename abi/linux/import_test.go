// SPDX-License-Identifier: Apache-2.0

package linux_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestImport checks that another module can import this package without the network and with
// an empty module cache.
func TestImport(t *testing.T) {
	source, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string]string{
		"go.mod": "module example.com/program\n\ngo 1.26\n",
		"main.go": `package main

import (
	"fmt"

	"runsc-ext/abi/linux"
)

func main() { fmt.Println(linux.SYS_CLONE4_I386, linux.SizeOfClone4Args) }
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	command := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off", "GOMODCACHE="+t.TempDir())
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", cmd, err, out)
		}
		return string(out)
	}

	// The package's documentation gives this command.
	command("mod", "edit", "-require=runsc-ext@v0.0.0", "-replace=runsc-ext="+source)
	if got := command("run", "."); got != "359 40\n" {
		t.Errorf("the program printed %q", got)
	}
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mod), "indirect") {
		t.Errorf("the import requires other modules:\n%s", mod)
	}
}
