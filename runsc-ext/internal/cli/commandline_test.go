// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestParse checks that parse finds the subcommand and the spec that runsc will find. parse
// must recognize every sandbox that starts, or the sandbox gets another sentry, or no check of
// its level.
func TestParse(t *testing.T) {
	bundle, empty := t.TempDir(), t.TempDir()
	const config = `{"annotations": {}}`
	contents(config)(t, filepath.Join(bundle, "config.json"))
	for _, tc := range []struct {
		args   string // B is a bundle, E an empty directory
		name   string
		starts bool
		spec   string
	}{
		{args: ""},
		{args: "--version"},
		{args: "--no-such-flag run -bundle=B id"},

		{args: "run -bundle=B id", name: "run", starts: true, spec: config},
		{args: "run --bundle B id", name: "run", starts: true, spec: config},
		{args: "--debug --platform ptrace -root=/r run -detach -bundle=B -pid-file=p id", name: "run", starts: true, spec: config},
		{args: "--log=l --log-format json create -console-socket s --bundle=B id", name: "create", starts: true, spec: config},
		{args: "restore -image-path=i -bundle=B id", name: "restore", starts: true, spec: config},
		{args: "run -bundle=E id", name: "run", starts: true},
		{args: "run -no-such-flag -bundle=B id", name: "run", starts: true},

		{args: "do -quiet /bin/run -bundle=B", name: "do", starts: true},
		{args: "probe -format=json", name: "probe", starts: true},
		{args: "sandboxexec -options=o true", name: "sandboxexec", starts: true},
		{args: "bwrap --ro-bind / / true", name: "bwrap", starts: true},

		{args: "delete -force run", name: "delete"},
		{args: "exec id run -bundle=B", name: "exec"},
		{args: "start id", name: "start"},
		{args: "help run", name: "help"},
	} {
		t.Run(tc.args, func(t *testing.T) {
			args := strings.Fields(tc.args)
			for i := range args {
				args[i] = strings.NewReplacer("B", bundle, "E", empty).Replace(args[i])
			}
			c := parse(args)
			if c.name != tc.name || c.starts != tc.starts {
				t.Errorf("got command %q, starts a sandbox: %t, want %q, %t", c.name, c.starts, tc.name, tc.starts)
			}
			if got := string(c.spec()); got != tc.spec {
				t.Errorf("the spec is %q, want %q", got, tc.spec)
			}
		})
	}
}

// TestParseBoot checks that reading the sentry's spec leaves its file descriptor open and at
// the same offset, because runsc reads the spec later.
func TestParseBoot(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "config.json"))
	must(t, err)
	defer f.Close()
	spec := `{"annotations": {"` + LevelAnnotation + `": "off"}, "hostname": "` + strings.Repeat("x", 100_000) + `"}`
	_, err = f.WriteString(spec)
	must(t, err)
	const offset = 5
	_, err = f.Seek(offset, io.SeekStart)
	must(t, err)

	c := parse([]string{"--platform=systrap", "boot", "--bundle=/nowhere", fmt.Sprintf("--spec-fd=%d", f.Fd()), "id"})
	if !c.isSentry() || c.starts {
		t.Errorf("got command %q, starts a sandbox: %t, want boot, which starts none", c.name, c.starts)
	}
	if got := string(c.spec()); got != spec {
		t.Errorf("the spec is %d bytes, want %d", len(got), len(spec))
	}
	if at, err := f.Seek(0, io.SeekCurrent); at != offset || err != nil {
		t.Errorf("the file is at %d, %v, want %d", at, err, offset)
	}
	if got := parse([]string{"boot", "id"}).spec(); got != nil {
		t.Errorf("boot without -spec-fd has the spec %q", got)
	}
}
