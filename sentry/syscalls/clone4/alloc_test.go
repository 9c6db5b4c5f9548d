package clone4

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
)

// refused are calls that end in the handler, or at the first check of kernel.Clone.
// Neither looks at more of the task than its scratch buffer.
var refused = []struct {
	name string
	fn   kernel.SyscallFn
	args arch.SyscallArguments
}{
	{"size", Clone4, arch.SyscallArguments{{}, {}, {Value: 1 << 63}}},
	{"flag", Clone4, arch.SyscallArguments{{Value: 1}}},
	{"compat-size", CompatClone4, arch.SyscallArguments{{}, {}, {Value: 1 << 31}}},
	{"compat-flag", CompatClone4, arch.SyscallArguments{{Value: 1}}},
}

// What the handler allocates, a guest can make it allocate as often as it likes.
func TestNoAllocations(t *testing.T) {
	task := new(kernel.Task)
	for _, tc := range refused {
		var err error
		if n := testing.AllocsPerRun(100, func() { _, _, err = tc.fn(task, 0, tc.args) }); n != 0 {
			t.Errorf("%s: %v allocations, want none", tc.name, n)
		}
		if !errors.Is(err, linuxerr.EINVAL) {
			t.Errorf("%s: error %v, want EINVAL", tc.name, err)
		}
	}
}

func BenchmarkRefused(b *testing.B) {
	task := new(kernel.Task)
	for _, bc := range refused {
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bc.fn(task, 0, bc.args)
			}
		})
	}
}

// The rest of the way to Task.Clone needs a running task. What the compiler says that
// it allocates is nothing but what CopyScratchBuffer does for those who ask for more
// than it has; see TestGVisorScratchBuffer.
func TestNoEscapes(t *testing.T) {
	cmd := exec.Command("go", "list", "-f", "{{.Dir}}", ".", "runsc-ext/sentry/kernel")
	dirs, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	paths := strings.Fields(string(dirs))
	if len(paths) != 2 {
		t.Fatalf("%v: %q", cmd, dirs)
	}
	for _, file := range []struct {
		path      string
		functions []string
	}{
		{filepath.Join(paths[0], "clone4.go"), []string{"Clone4", "CompatClone4", "clone4", "clone4FD", "copyIn", "cloneFlags", "decode", "decodeFD"}},
		{filepath.Join(paths[1], "clone.go"), []string{"Clone"}},
		{filepath.Join(paths[1], "abi_amd64.go"), []string{"candidates", "lookup", "allowed", "sendToSlot", "args32", "args64"}},
	} {
		if strings.HasSuffix(file.path, "_amd64.go") && runtime.GOARCH != "amd64" {
			continue
		}
		escapes := escapes(t, file.path)
		source, err := os.ReadFile(file.path)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(source), "\n")
		fset := token.NewFileSet()
		parsed, err := parser.ParseFile(fset, file.path, source, 0)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, decl := range parsed.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || !slices.Contains(file.functions, fn.Name.Name) {
				continue
			}
			found++
			for line := fset.Position(fn.Pos()).Line; line <= fset.Position(fn.End()).Line; line++ {
				for _, what := range escapes[line] {
					if !strings.HasPrefix(what, "make([]byte, ") || !strings.Contains(lines[line-1], "CopyScratchBuffer(") {
						t.Errorf("%s:%d: %s: %s", file.path, line, fn.Name.Name, what)
					}
				}
			}
		}
		if found != len(file.functions) {
			t.Errorf("%s: %d of %d functions: name those that a call goes through now", file.path, found, len(file.functions))
		}
	}
}

// escapes returns what the compiler says on each line of a file that is allocated on
// the heap.
func escapes(t *testing.T, path string) map[int][]string {
	cmd := exec.Command("go", "build", "-gcflags=-m", ".")
	cmd.Dir = filepath.Dir(path)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	// The output may be that of an earlier build, from another folder.
	dir, file := filepath.Split(path)
	said := regexp.MustCompile(`(?m)^(?:\./|\S*\b`+filepath.Base(dir)+`/)`+regexp.QuoteMeta(file)+`:(\d+):\d+: (.*)$`).FindAllStringSubmatch(string(out), -1)
	if len(said) == 0 {
		t.Fatalf("%v says nothing on %s:\n%s", cmd, path, out)
	}
	found := make(map[int][]string)
	for _, m := range said {
		line, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(m[2], "escapes to heap") || strings.HasPrefix(m[2], "moved to heap") {
			found[line] = append(found[line], m[2])
		}
	}
	return found
}
