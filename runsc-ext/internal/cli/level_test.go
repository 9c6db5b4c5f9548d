// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"runsc-ext/sentry/syscalls/clone4"
)

const (
	off = clone4.LevelOff
	on  = clone4.LevelOn
	fd  = clone4.LevelFD
)

// TestSandboxLevel checks that the annotation can lower the operator's level and never raise
// it, and that an unknown level is an error.
func TestSandboxLevel(t *testing.T) {
	unknown := func(value string) []string { return []string{LevelAnnotation, value, "off, on, fd"} }
	for _, tc := range []struct {
		name     string
		spec     string
		operator clone4.Level
		want     clone4.Level
		err      []string // in the error; nil if there is none
	}{
		{name: "no annotations", spec: `{}`, operator: on, want: on},
		{name: "no annotations, off", spec: `{}`, operator: off, want: off},
		{name: "no annotations, fd", spec: `{}`, operator: fd, want: fd},
		{name: "other annotations", spec: `{"annotations": {"dev.gvisor.ext.clone": "off", "clone4": "off"}}`, operator: on, want: on},
		{name: "same", spec: `{"annotations": {"dev.gvisor.ext.clone4": "on"}}`, operator: on, want: on},
		{name: "same, off", spec: `{"annotations": {"dev.gvisor.ext.clone4": "off"}}`, operator: off, want: off},
		{name: "same, fd", spec: `{"annotations": {"dev.gvisor.ext.clone4": "fd"}}`, operator: fd, want: fd},
		{name: "lower", spec: `{"annotations": {"dev.gvisor.ext.clone4": "off"}}`, operator: on, want: off},
		{name: "lower from fd", spec: `{"annotations": {"dev.gvisor.ext.clone4": "on"}}`, operator: fd, want: on},
		{name: "lower from fd to off", spec: `{"annotations": {"dev.gvisor.ext.clone4": "off"}}`, operator: fd, want: off},
		{name: "lower beside others", spec: `{"ociVersion": "1.0.0", "annotations": {"a": "b", "dev.gvisor.ext.clone4": "off"}, "linux": {"x": [1]}}`, operator: on, want: off},
		{name: "raise", spec: `{"annotations": {"dev.gvisor.ext.clone4": "on"}}`, operator: off, err: []string{LevelAnnotation, `"on"`, `"off"`, "FILE", LevelFileSuffix}},
		{name: "raise above the default", spec: `{"annotations": {"dev.gvisor.ext.clone4": "fd"}}`, operator: on, err: []string{LevelAnnotation, `"fd"`, `"on"`, "FILE", LevelFileSuffix}},
		{name: "raise from off to fd", spec: `{"annotations": {"dev.gvisor.ext.clone4": "fd"}}`, operator: off, err: []string{LevelAnnotation, `"fd"`, `"off"`, "FILE", LevelFileSuffix}},
		{name: "unknown", spec: `{"annotations": {"dev.gvisor.ext.clone4": "max"}}`, operator: on, err: unknown(`"max"`)},
		{name: "unknown, off", spec: `{"annotations": {"dev.gvisor.ext.clone4": "max"}}`, operator: off, err: unknown(`"max"`)},
		{name: "empty", spec: `{"annotations": {"dev.gvisor.ext.clone4": ""}}`, operator: on, err: unknown(`""`)},
		{name: "space", spec: `{"annotations": {"dev.gvisor.ext.clone4": "off "}}`, operator: on, err: unknown(`"off "`)},
		{name: "CRLF", spec: `{"annotations": {"dev.gvisor.ext.clone4": "off\r\n"}}`, operator: on, err: unknown(`"off\r\n"`)},
		{name: "byte-order mark", spec: `{"annotations": {"dev.gvisor.ext.clone4": "\ufeffoff"}}`, operator: on, err: unknown(`"\ufeffoff"`)},
		{name: "1 MB", spec: `{"annotations": {"dev.gvisor.ext.clone4": "` + strings.Repeat("off", 1<<20/3) + `"}}`, operator: on, err: unknown(`offoff`)},
		// runsc reads these specs in the same way, or reports their errors.
		{name: "key in other case", spec: `{"Annotations": {"dev.gvisor.ext.clone4": "off"}}`, operator: on, want: off},
		{name: "annotations twice", spec: `{"annotations": {"dev.gvisor.ext.clone4": "off"}, "annotations": {"a": "b"}}`, operator: on, want: off},
		{name: "no JSON", spec: `annotations: {}`, operator: on, want: on},
		{name: "empty spec", spec: ``, operator: on, want: on},
		{name: "spec with a byte-order mark", spec: "\ufeff{}", operator: on, want: on},
		{name: "cut off", spec: `{"annotations": {"dev.gvisor.ext.clone4": "off"`, operator: on, want: on},
		{name: "value that is no string", spec: `{"annotations": {"dev.gvisor.ext.clone4": false}}`, operator: on, want: on},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := sandboxLevel([]byte(tc.spec), setting{tc.operator, "FILE"})
			checkLevel(t, got.level, err, tc.want, tc.err)
		})
	}
}

// levelInputs are what people may put in the place of a level file.
var levelInputs = []struct {
	name  string
	write func(t *testing.T, name string)
	found bool
	want  clone4.Level
	err   []string // in the error; nil if there is none
}{
	{name: "missing", write: func(*testing.T, string) {}},
	{name: "off", write: contents("off"), found: true, want: off},
	{name: "on", write: contents("on"), found: true, want: on},
	{name: "fd", write: contents("fd"), found: true, want: fd},
	{name: "newline", write: contents("off\n"), found: true, want: off},
	{name: "CRLF", write: contents("off\r\n"), found: true, want: off},
	{name: "byte-order mark", write: contents("\ufeffoff\r\n"), found: true, want: off},
	{name: "UTF-16", write: contents("\xff\xfeo\x00f\x00f\x00"), err: []string{`\xff\xfe`, "off, on, fd"}},
	{name: "empty", write: contents(""), err: []string{`""`, "off, on, fd"}},
	{name: "newline alone", write: contents("\n"), err: []string{`""`, "off, on, fd"}},
	{name: "unknown", write: contents("sometimes"), err: []string{`"sometimes"`, "off, on, fd"}},
	{name: "upper case", write: contents("OFF"), err: []string{`"OFF"`, "off, on, fd"}},
	{name: "two levels", write: contents("off\non\n"), err: []string{`"off\non"`, "off, on, fd"}},
	{name: "1 MB", write: contents(strings.Repeat("off", 1<<20/3)), err: []string{`"offoff`, `..."`, "off, on, fd"}},
	{name: "1 MB of spaces after it", write: contents("off" + strings.Repeat(" ", 1<<20)), found: true, want: off},
	{name: "1 MB of spaces before it", write: contents(strings.Repeat(" ", 1<<20) + "off"), err: []string{`""`, "off, on, fd"}},
	{name: "directory", write: func(t *testing.T, name string) { must(t, os.Mkdir(name, 0o755)) }, err: []string{"not a regular file", "off, on or fd"}},
	{name: "FIFO", write: func(t *testing.T, name string) { must(t, unix.Mkfifo(name, 0o644)) }, err: []string{"not a regular file", "off, on or fd"}},
	{name: "device", write: func(t *testing.T, name string) { must(t, os.Symlink("/dev/zero", name)) }, err: []string{"not a regular file", "off, on or fd"}},
	{name: "link", write: func(t *testing.T, name string) {
		contents("off")(t, name+"-target")
		must(t, os.Symlink(name+"-target", name))
	}, found: true, want: off},
	{name: "link to nowhere", write: func(t *testing.T, name string) { must(t, os.Symlink("/nowhere", name)) }, err: []string{"symbolic link to nowhere", "remove it"}},
	{name: "link to itself", write: func(t *testing.T, name string) { must(t, os.Symlink(name, name)) }, err: []string{"too many levels of symbolic links", "remove it"}},
	{name: "unreadable", write: func(t *testing.T, name string) {
		if os.Geteuid() == 0 {
			t.Skip("root reads all files")
		}
		contents("off")(t, name)
		must(t, os.Chmod(name, 0))
	}, err: []string{"permission denied", "make the file readable"}},
}

// TestLevelFile checks the level or the error of a level file, alone and beside a second file.
// The lower level counts. A valid second file does not hide an error in the first.
func TestLevelFile(t *testing.T) {
	for _, tc := range levelInputs {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			name, other := filepath.Join(dir, "file"), filepath.Join(dir, "other")
			tc.write(t, name)
			got, found, err := readLevel(name)
			checkLevel(t, got, err, tc.want, tc.err)
			if found != tc.found && tc.err == nil {
				t.Errorf("there is a file: %t, want %t", found, tc.found)
			}

			alone, source := tc.want, name
			if !tc.found {
				alone, source = on, "default"
			}
			wantErr := tc.err
			if wantErr != nil {
				wantErr, alone, source = append([]string{name}, wantErr...), off, ""
			}
			set, err := lowestLevel([]string{name, other})
			checkLevel(t, set.level, err, alone, wantErr)
			if set.source != source {
				t.Errorf("alone: the source is %q, want %q", set.source, source)
			}
			for _, level := range []clone4.Level{off, on, fd} {
				contents(level.String())(t, other)
				want, source := level, other
				switch {
				case wantErr != nil:
					want, source = off, ""
				case tc.found && tc.want <= level:
					want, source = tc.want, name
				}
				set, err := lowestLevel([]string{name, other})
				checkLevel(t, set.level, err, want, wantErr)
				if set.source != source {
					t.Errorf("beside %v: the source is %q, want %q", level, set.source, source)
				}
				// The order of the files does not matter.
				set, err = lowestLevel([]string{other, name})
				checkLevel(t, set.level, err, want, wantErr)
			}
		})
	}
}

// TestVisibleToAll checks that visibleToAll refuses a file that a sentry without root could not
// read, and accepts a missing file or directory.
func TestVisibleToAll(t *testing.T) {
	for _, tc := range []struct {
		name  string
		write func(t *testing.T, dir string)
		err   string
	}{
		{name: "missing", write: func(*testing.T, string) {}},
		{name: "missing directory", write: func(t *testing.T, dir string) { must(t, os.Remove(dir)) }},
		{name: "readable", write: func(t *testing.T, dir string) { contents("off")(t, dir+"/file") }},
		{name: "unreadable", write: func(t *testing.T, dir string) {
			contents("off")(t, dir+"/file")
			must(t, os.Chmod(dir+"/file", 0o600))
		}, err: "chmod o+r"},
		{name: "closed directory", write: func(t *testing.T, dir string) { must(t, os.Chmod(dir, 0o700)) }, err: "chmod o+x"},
		{name: "link into a closed directory", write: func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir+"/closed", 0o755))
			contents("off")(t, dir+"/closed/target")
			must(t, os.Symlink(dir+"/closed/target", dir+"/file"))
			must(t, os.Chmod(dir+"/closed", 0o700))
		}, err: "closed is not open to all"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			parent, err := os.MkdirTemp("", "runsc-ext-test-*") // t.TempDir is private.
			must(t, err)
			t.Cleanup(func() { os.RemoveAll(parent) })
			must(t, os.Chmod(parent, 0o755))
			dir := filepath.Join(parent, "dir")
			must(t, os.Mkdir(dir, 0o755))
			tc.write(t, dir)
			err = visibleToAll(dir + "/file")
			if (err != nil) != (tc.err != "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("got %v, want an error that says %q", err, tc.err)
			}
		})
	}
}

// checkLevel checks a level, or that an error says each of wantErr. A message stays short.
func checkLevel(t *testing.T, got clone4.Level, err error, want clone4.Level, wantErr []string) {
	t.Helper()
	if (err != nil) != (wantErr != nil) || err == nil && got != want {
		t.Fatalf("got %v, %v, want %v, an error: %t", got, err, want, wantErr != nil)
	}
	for _, s := range wantErr {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("the error is %q, want %s in it", err, s)
		}
	}
	if err != nil && len(err.Error()) > 1000 {
		t.Errorf("the error has %d bytes", len(err.Error()))
	}
}

// contents returns a function that writes a file.
func contents(s string) func(t *testing.T, name string) {
	return func(t *testing.T, name string) { must(t, os.WriteFile(name, []byte(s), 0o644)) }
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
