// SPDX-License-Identifier: Apache-2.0

// Command upgrade compares another version of gVisor with the pinned one, and prints which checks
// fail only with the other version. It works on copies of the module, and does not change the
// source. docs/upgrading.md has the steps of an upgrade.
//
//	go run ./test/tools/upgrade [version]
//
// The version is anything that `go get gvisor.dev/gvisor@version` accepts. The default is the head
// of gVisor's branch "go", which the go command can build. If that branch cannot be resolved, it
// is the newest version of the module proxy. The command needs a machine on which sandboxes start,
// and ten minutes. CI does not run it.
package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

const gvisor = "gvisor.dev/gvisor"

// result is the result of a check.
type result string

const (
	ok       result = "ok"
	failed   result = "FAIL"
	notTried result = "-"
)

// checks are the checks that run with each version. They need Go, and a machine on which sandboxes
// start.
var checks = []struct {
	name string
	args []string
}{
	{"requirements", []string{"go", "mod", "tidy", "-diff"}},
	{"build", []string{"go", "build", "-o", "bin/runsc-ext", "./runsc-ext"}},
	{"build for arm64", []string{"env", "GOARCH=arm64", "go", "build", "-o", os.DevNull, "./runsc-ext"}},
	{"vet", []string{"go", "vet", "./..."}},
	{"vet for arm64", []string{"env", "GOARCH=arm64", "go", "vet", "./..."}},
	{"start", []string{"bin/runsc-ext", "--version"}},
	{"unit tests", []string{"go", "test", "-count=1", "./abi/...", "./sentry/...", "./runsc-ext/internal/..."}},
	{"tests of the binary", []string{"go", "test", "-count=1", "./runsc-ext"}},
	{"suite in the sandbox", []string{"go", "test", "-count=1", "-short", "./test/syscalls", "./test/clonefd"}},
	{"examples", []string{"go", "test", "-count=1", "./examples/..."}},
}

func main() {
	broken, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "upgrade:", err)
		os.Exit(2)
	}
	if broken {
		os.Exit(1)
	}
}

// run returns whether a check fails only with the other version.
func run(args []string) (bool, error) {
	query := ""
	switch {
	case len(args) > 1 || len(args) == 1 && strings.HasPrefix(args[0], "-"):
		return false, fmt.Errorf("usage: go run ./test/tools/upgrade [version]")
	case len(args) == 1:
		query = args[0]
	}
	gomod, err := output("", "go", "env", "GOMOD")
	if err != nil {
		return false, err
	}
	root := filepath.Dir(gomod)
	pinned, err := output(root, "go", "list", "-m", "-f", "{{.Version}}", gvisor)
	if err != nil {
		return false, err
	}
	other, err := resolve(root, query)
	if err != nil {
		return false, err
	}
	if other == pinned {
		fmt.Println("That is the pinned version, so there is nothing to compare.")
		return false, nil
	}
	tmp, err := os.MkdirTemp("", "upgrade-*")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(tmp)

	fmt.Printf("pinned: %s\n", pinned)
	before, err := try(root, filepath.Join(tmp, "pinned"), "")
	if err != nil {
		return false, err
	}
	fmt.Printf("\nother: %s\n", other)
	after, err := try(root, filepath.Join(tmp, "other"), other)
	if err != nil {
		return false, err
	}

	broken := 0
	fmt.Printf("\n%-22s %-8s %s\n", "", "pinned", "other")
	for _, c := range checks {
		fmt.Printf("%-22s %-8s %s\n", c.name, before[c.name], after[c.name])
		if before[c.name] == ok && after[c.name] != ok {
			broken++
		}
	}
	fmt.Printf("\nWith %s, %d checks fail that pass with the pinned version.\n", other, broken)
	if broken > 0 {
		fmt.Println("docs/upgrading.md says what each test checks.")
	}
	return broken > 0, nil
}

// resolve returns the version for query, or the default version if query is empty.
func resolve(root, query string) (string, error) {
	queries := []string{query}
	if query == "" {
		queries = []string{"go", "latest"}
	}
	var version string
	var err error
	for _, q := range queries {
		if version, err = output(root, "go", "list", "-m", "-f", "{{.Version}}", gvisor+"@"+q); err == nil {
			fmt.Printf("%s@%s is %s\n", gvisor, q, version)
			return version, nil
		}
		fmt.Printf("%s@%s cannot be resolved: %v\n", gvisor, q, err)
	}
	return "", err
}

// try runs the checks on a copy of the module in dir, with a version of gVisor, or with the pinned
// version if it is empty. It returns the results by the names of the checks.
func try(root, dir, version string) (map[string]result, error) {
	if err := copyModule(root, dir); err != nil {
		return nil, err
	}
	// Tests keep built binaries in the user's cache. The copy needs its own, because the source may be
	// tested at the same time.
	gocache, err := output(root, "go", "env", "GOCACHE")
	if err != nil {
		return nil, err
	}
	env := append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOCACHE="+gocache, "XDG_CACHE_HOME="+filepath.Join(dir, "cache"))

	if version != "" {
		if err := move(dir, env, version); err != nil {
			return nil, err
		}
	}
	results := make(map[string]result)
	for _, c := range checks {
		if results["build"] == failed {
			results[c.name] = notTried // it would fail for the same reason
			continue
		}
		start := time.Now()
		out, err := command(dir, env, c.args)
		results[c.name] = ok
		if err != nil {
			results[c.name] = failed
		}
		fmt.Printf("  %-22s %s (%.0f s)\n", c.name, results[c.name], time.Since(start).Seconds())
		if err != nil {
			fmt.Printf("    %s: %v\n", strings.Join(c.args, " "), err)
			for _, line := range excerpt(out) {
				fmt.Printf("    | %s\n", line)
			}
		}
	}
	return results, nil
}

// move makes the module in dir require a version of gVisor and the modules that it requires.
func move(dir string, env []string, version string) error {
	if out, err := command(dir, env, []string{"go", "get", gvisor + "@" + version}); err != nil {
		return fmt.Errorf("go get %s@%s: %w\n%s", gvisor, version, err, out)
	}
	gomod := filepath.Join(dir, "go.mod")
	wanted, err := os.ReadFile(gomod)
	if err != nil {
		return err
	}
	command(dir, env, []string{"go", "mod", "tidy"})
	got, err := output(dir, "go", "list", "-m", "-f", "{{.Version}}", gvisor)
	if err == nil && got == version {
		return nil
	}
	// go mod tidy selects another version if this one lacks packages that we import. With
	// this version, the checks report the packages.
	if err := os.WriteFile(gomod, wanted, 0o644); err != nil {
		return err
	}
	if out, err := command(dir, env, []string{"go", "mod", "edit", "-replace=" + gvisor + "=" + gvisor + "@" + version}); err != nil {
		return fmt.Errorf("go mod edit: %w\n%s", err, out)
	}
	command(dir, env, []string{"go", "mod", "tidy", "-e"})
	return nil
}

// copyModule copies the files of the module, with uncommitted changes.
func copyModule(root, dir string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, rel)
		switch {
		case d.IsDir() && (d.Name() == ".git" || rel == "bin"):
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(to, 0o755)
		case !d.Type().IsRegular():
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o644)
	})
}

// command runs a command and returns its output.
func command(dir string, env, args []string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	name := args[0]
	if strings.Contains(name, "/") {
		name = filepath.Join(dir, name)
	}
	cmd := exec.CommandContext(ctx, name, args[1:]...)
	cmd.Dir, cmd.Env = dir, env
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// output returns the only line of a command's output.
func output(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

// passing matches lines of a failed `go test` that are not about the failure.
var passing = regexp.MustCompile(`^(ok\s|\?\s|\s*--- PASS|=== (RUN|PAUSE|CONT|NAME|ON|OK)|\s*$)`)

// excerpt returns the first lines about a failure.
func excerpt(out string) []string {
	const most = 40
	var lines []string
	for _, line := range strings.Split(out, "\n") {
		if passing.MatchString(line) {
			continue
		}
		if len(lines) == most {
			return append(lines, "...")
		}
		lines = append(lines, line)
	}
	return lines
}
