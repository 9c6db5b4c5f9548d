// SPDX-License-Identifier: Apache-2.0

// Package docs_test checks the manual page, the examples and the links of the documentation.
package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"runsc-ext/test/sandbox"
)

const manPage = "clone4.2"

// TestManPage checks that both formatters of man(1) accept the manual page without a warning.
func TestManPage(t *testing.T) {
	for _, args := range [][]string{
		{"mandoc", "-T", "lint", manPage},
		{"groff", "-ww", "-man", "-t", "-z", manPage},
	} {
		t.Run(args[0], func(t *testing.T) {
			if _, err := exec.LookPath(args[0]); err != nil {
				t.Skipf("%v: apt-get install %s", err, args[0])
			}
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil || len(out) != 0 {
				t.Errorf("%v: %v\n%s", args, err, out)
			}
		})
	}
}

// TestExamples checks that the examples in the pages compile without a warning, and print what the
// pages say, with clone4 and without.
func TestExamples(t *testing.T) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skipf("%v: apt-get install gcc", err)
	}
	for _, tc := range []struct {
		page          string
		program       *regexp.Regexp
		with, without string // output
		status        int    // without
	}{
		{manPage, regexp.MustCompile(`(?s)\n\.SH EXAMPLES\n.*?\n\.EX\n(.*?)\n\.EE\n`), "child\n", "child\n", 0},
		{"getting-started.md", regexp.MustCompile("(?s)\n```c\n(.*?)```\n"), "hello from the child\n", "this kernel has no clone4\n", 1},
	} {
		t.Run(tc.page, func(t *testing.T) {
			page, err := os.ReadFile(tc.page)
			if err != nil {
				t.Fatal(err)
			}
			m := tc.program.FindStringSubmatch(string(page))
			if m == nil {
				t.Fatal("the page has no example")
			}
			source := m[1]
			if tc.page == manPage {
				source = strings.NewReplacer(`\&`, "", `\-`, "-", `\(aq`, "'").Replace(source)
			}
			bin := filepath.Join(t.TempDir(), "example")
			cc := exec.Command(gcc, "-x", "c", "-Wall", "-Wextra", "-Werror", "-pedantic", "-static", "-I", "../include", "-o", bin, "-")
			cc.Stdin = strings.NewReader(source)
			if out, err := cc.CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s\n%s", cc, err, out, source)
			}
			check := func(cmd *exec.Cmd, status int, want string) {
				t.Helper()
				out, err := cmd.CombinedOutput()
				if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != status || string(out) != want {
					t.Errorf("%v: %v, output %q, want status %d and %q", cmd, err, out, status, want)
				}
			}
			check(exec.Command(bin), tc.status, tc.without)
			for _, platform := range sandbox.Platforms {
				cmd, err := sandbox.Do(platform, bin)
				if err != nil {
					t.Fatal(err)
				}
				check(cmd, 0, tc.with)
			}
		})
	}
}

// TestLinks checks that every link leads to a file, and that docs/README.md links to every page.
func TestLinks(t *testing.T) {
	const index = "README.md"
	link := regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)
	linked := make(map[string]bool)
	pages, err := filepath.Glob("*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("there are no pages: %v", err)
	}
	for _, page := range append(pages, "../README.md", "../CONTRIBUTING.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target := filepath.Join(filepath.Dir(page), m[1])
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: a link leads nowhere: %v", page, err)
			}
			if page == index {
				linked[m[1]] = true
			}
		}
	}
	files, err := filepath.Glob("*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		switch filepath.Ext(file) {
		case ".md", ".2":
			if !linked[file] && file != index {
				t.Errorf("docs/%s does not link to %s", index, file)
			}
		}
	}
}

// TestWhereThingsAre checks that the directories that the architecture page lists exist.
func TestWhereThingsAre(t *testing.T) {
	page, err := os.ReadFile("architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	dirs := regexp.MustCompile(`(?m)^    ([a-z0-9/-]+/) `).FindAllStringSubmatch(string(page), -1)
	if len(dirs) < 5 {
		t.Fatalf("the list of directories has another form: %q", dirs)
	}
	for _, m := range dirs {
		if fi, err := os.Stat(filepath.Join("..", m[1])); err != nil || !fi.IsDir() {
			t.Errorf("%s is not a directory: %v", m[1], err)
		}
	}
}
