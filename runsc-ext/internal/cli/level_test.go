package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"runsc-ext/sentry/syscalls/clone4"
)

// The annotation lowers the operator's level and never raises it, and a value
// that is no level is an error: not the operator's level, not off.
func TestSandboxLevel(t *testing.T) {
	const off, on, fd = clone4.LevelOff, clone4.LevelOn, clone4.LevelFD
	for _, tc := range []struct {
		name     string
		spec     string
		operator clone4.Level
		want     clone4.Level
		err      []string // in the error; nil if there is none
	}{
		{"no annotations", `{}`, on, on, nil},
		{"no annotations, off", `{}`, off, off, nil},
		{"other annotations", `{"annotations": {"dev.gvisor.ext.clone": "off", "clone4": "off"}}`, on, on, nil},
		{"same", `{"annotations": {"dev.gvisor.ext.clone4": "on"}}`, on, on, nil},
		{"lower", `{"annotations": {"dev.gvisor.ext.clone4": "off"}}`, on, off, nil},
		{"lower beside others", `{"ociVersion": "1.0.0", "annotations": {"a": "b", "dev.gvisor.ext.clone4": "off"}, "linux": {"x": [1]}}`, on, off, nil},
		{"same, off", `{"annotations": {"dev.gvisor.ext.clone4": "off"}}`, off, off, nil},
		{"raise", `{"annotations": {"dev.gvisor.ext.clone4": "on"}}`, off, off, []string{LevelAnnotation, `"on"`, `"off"`, LevelFileSuffix}},
		{"no annotations, fd", `{}`, fd, fd, nil},
		{"same, fd", `{"annotations": {"dev.gvisor.ext.clone4": "fd"}}`, fd, fd, nil},
		{"lower from fd", `{"annotations": {"dev.gvisor.ext.clone4": "on"}}`, fd, on, nil},
		{"lower from fd to off", `{"annotations": {"dev.gvisor.ext.clone4": "off"}}`, fd, off, nil},
		{"raise above the default", `{"annotations": {"dev.gvisor.ext.clone4": "fd"}}`, on, off, []string{LevelAnnotation, `"fd"`, `"on"`, LevelFileSuffix}},
		{"raise from off to fd", `{"annotations": {"dev.gvisor.ext.clone4": "fd"}}`, off, off, []string{LevelAnnotation, `"fd"`, `"off"`, LevelFileSuffix}},
		{"unknown", `{"annotations": {"dev.gvisor.ext.clone4": "max"}}`, on, off, []string{LevelAnnotation, `"max"`, "off, on, fd"}},
		{"unknown, off", `{"annotations": {"dev.gvisor.ext.clone4": "max"}}`, off, off, []string{LevelAnnotation, `"max"`, "off, on, fd"}},
		{"empty", `{"annotations": {"dev.gvisor.ext.clone4": ""}}`, on, off, []string{LevelAnnotation, `""`, "off, on, fd"}},
		{"spaces", `{"annotations": {"dev.gvisor.ext.clone4": "off "}}`, on, off, []string{LevelAnnotation, `"off "`, "off, on, fd"}},
		// runsc reads these in the same way, or says what is wrong with them.
		{"key in other case", `{"Annotations": {"dev.gvisor.ext.clone4": "off"}}`, on, off, nil},
		{"annotations twice", `{"annotations": {"dev.gvisor.ext.clone4": "off"}, "annotations": {"a": "b"}}`, on, off, nil},
		{"no JSON", `annotations: {}`, on, on, nil},
		{"cut off", `{"annotations": {"dev.gvisor.ext.clone4": "off"`, on, on, nil},
		{"value that is no string", `{"annotations": {"dev.gvisor.ext.clone4": false}}`, on, on, nil},
	} {
		got, err := sandboxLevel(strings.NewReader(tc.spec), tc.operator)
		if got != tc.want || (err != nil) != (tc.err != nil) {
			t.Errorf("%s: got %v, %v, want %v, an error: %t", tc.name, got, err, tc.want, tc.err != nil)
			continue
		}
		for _, want := range tc.err {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %q does not say %s", tc.name, err, want)
			}
		}
	}
}

// What is read off the command line has to be what runsc does later: a sandbox
// that starts unrecognized would have another sentry, or no check of its level.
func TestParse(t *testing.T) {
	bundle := t.TempDir()
	const config = `{"annotations": {}}`
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	for _, tc := range []struct {
		args    string
		command string
		starts  bool
		spec    bool // the bundle's spec is found
	}{
		{"", "", false, false},
		{"--version", "", false, false},
		{"--no-such-flag run -bundle=B id", "", false, false},

		{"run -bundle=B id", "run", true, true},
		{"run --bundle B id", "run", true, true},
		{"--debug --platform ptrace -root=/r run -detach -bundle=B -pid-file=p id", "run", true, true},
		{"--log=l --log-format json create -console-socket s --bundle=B id", "create", true, true},
		{"restore -image-path=i -bundle=B id", "restore", true, true},
		{"run -bundle=E id", "run", true, false},
		{"run -no-such-flag -bundle=B id", "run", true, false},

		{"do -quiet /bin/run -bundle=B", "do", true, false},
		{"probe -format=json", "probe", true, false},
		{"sandboxexec -options=o true", "sandboxexec", true, false},
		{"bwrap --ro-bind / / true", "bwrap", true, false},

		{"delete -force run", "delete", false, false},
		{"exec id run -bundle=B", "exec", false, false},
		{"start id", "start", false, false},
		{"help run", "help", false, false},
	} {
		args := strings.Fields(tc.args)
		for i := range args {
			args[i] = strings.NewReplacer("B", bundle, "E", empty).Replace(args[i])
		}
		inv := parse(args)
		if inv.command != tc.command || inv.startsSandbox() != tc.starts {
			t.Errorf("%q: got command %q, starts a sandbox: %t, want %q, %t", tc.args, inv.command, inv.startsSandbox(), tc.command, tc.starts)
		}
		spec := inv.spec()
		if (spec != nil) != tc.spec {
			t.Errorf("%q: there is a spec: %t, want %t", tc.args, spec != nil, tc.spec)
		}
		if spec != nil {
			if b, err := io.ReadAll(spec); string(b) != config || err != nil {
				t.Errorf("%q: the spec is %q, %v, want %q", tc.args, b, err, config)
			}
		}
	}
}

// The sentry gets its spec as a file descriptor, which runsc reads after us: it
// must be open then, and at the offset where it was.
func TestParseBoot(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	spec := `{"annotations": {"` + LevelAnnotation + `": "off"}, "hostname": "` + strings.Repeat("x", 100_000) + `"}`
	if _, err := f.WriteString(spec); err != nil {
		t.Fatal(err)
	}
	const offset = 5
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		t.Fatal(err)
	}

	inv := parse([]string{"--platform=systrap", "boot", "--bundle=/nowhere", fmt.Sprintf("--spec-fd=%d", f.Fd()), "id"})
	if inv.command != bootCommand || inv.startsSandbox() {
		t.Errorf("got command %q, starts a sandbox: %t, want the one that is a sandbox", inv.command, inv.startsSandbox())
	}
	r := inv.spec()
	if r == nil {
		t.Fatal("no spec")
	}
	if b, err := io.ReadAll(r); string(b) != spec || err != nil {
		t.Errorf("the spec is %d bytes, %v, want %d", len(b), err, len(spec))
	}
	if at, err := f.Seek(0, io.SeekCurrent); at != offset || err != nil {
		t.Errorf("the file is at %d, %v, want %d", at, err, offset)
	}

	if inv := parse([]string{"boot", "id"}); inv.spec() != nil {
		t.Error("boot without -spec-fd has a spec")
	}
}
