// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"runsc-ext/test/sandbox"
)

// TestRestore checks that a restored sandbox has the operator's level at the time of the
// restore, because a restored sentry is a new process with new tables. It also checks that a
// parent in a call with CLONE_VFORK returns from the call after a restore, through each ABI.
func TestRestore(t *testing.T) {
	needRoot(t)
	all, off := sandbox.ABIs(), sandbox.OffABIs()
	ok, enosys := sandbox.Results("ok", all...), sandbox.Results("ENOSYS", off...)

	pause := []string{"pause"}
	type row struct {
		name          string
		before, after string // the operator's level
		steps         []string
		want          string // what the guest prints
	}
	rows := []row{
		{name: "between calls", before: "on", after: "on", steps: slices.Concat(all, pause, all), want: ok + sandbox.Pausing + ok},
		{name: "switched off", before: "on", after: "off", steps: slices.Concat(all, pause, off), want: ok + sandbox.Pausing + enosys},
		{name: "switched on", before: "off", after: "on", steps: slices.Concat(off, pause, all), want: enosys + sandbox.Pausing + ok},
		// A descriptor goes on working at a lower level.
		{name: "descriptors", before: "fd", after: "fd", steps: []string{"fd", "fd"}, want: sandbox.Pausing + "fd: ok\n" + sandbox.Pausing + "fd: ok\n"},
		{name: "descriptors, lowered", before: "fd", after: "on", steps: []string{"fd", "fd"}, want: sandbox.Pausing + "fd: ok\nfd: EINVAL\n"},
	}
	for _, abi := range all {
		vfork := abi + ",vfork,pause"
		rows = append(rows,
			row{name: abi + " vfork", before: "on", after: "on", steps: slices.Concat([]string{vfork}, all), want: sandbox.Pausing + vfork + ": ok\n" + ok},
			row{name: abi + " vfork, switched off", before: "on", after: "off", steps: slices.Concat([]string{vfork}, off), want: sandbox.Pausing + vfork + ": ok\n" + enosys},
		)
	}
	for _, tc := range rows {
		for _, platform := range sandbox.Platforms {
			t.Run(tc.name+","+platform, func(t *testing.T) {
				t.Parallel()
				bin := install(t)
				sandbox.WriteFile(t, bin+sandbox.LevelSuffix, tc.before)
				c := sandbox.NewContainer(t, bin, platform, guest(t, tc.steps...)...)
				printed := checkpoint(t, c)
				sandbox.WriteFile(t, bin+sandbox.LevelSuffix, tc.after)
				r := restore(t, c)
				r.Stdout = printed + r.Stdout
				r.Check(t, 0, tc.want)
			})
		}
	}
}

// TestRestoreRefused checks that restore reports why it cannot restore an image, and leaves no
// container behind.
func TestRestoreRefused(t *testing.T) {
	needRoot(t)
	for _, tc := range []struct {
		name     string
		level    string   // annotation in the restored bundle; the checkpointed one has none
		from, to string   // what is replaced in the image
		want     []string // in standard error
	}{
		{
			name:  "unknown level",
			level: "sometimes",
			want:  []string{sandbox.LevelAnnotation, `"sometimes"`, "off, on, fd"},
		},
		{
			// gVisor requires that its own annotations are unchanged. The operator's file
			// can switch clone4 off in a restored sandbox.
			name:  "changed level",
			level: "off",
			want:  []string{"Annotations", sandbox.LevelAnnotation, `"off"`},
		},
		{
			// The state in an image has the types of one version.
			name: "other version",
			from: `"runsc_version":"runsc-ext `,
			to:   `"runsc_version":"runsc-int `,
			want: []string{"version does not match", "checkpoint: runsc-int ", "current: runsc-ext "},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := sandbox.NewContainer(t, install(t), sandbox.Platforms[0], guest(t, "pause")...)
			checkpoint(t, c)
			c.AnnotateLevel(t, tc.level)
			if tc.from != "" {
				name := filepath.Join(image(c), "checkpoint.img")
				b, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(string(b), tc.from) {
					t.Fatalf("%s does not contain %q", name, tc.from)
				}
				sandbox.WriteFile(t, name, strings.Replace(string(b), tc.from, tc.to, 1))
			}
			restore(t, c).CheckRefused(t, tc.want...)
			c.CheckGone(t)
		})
	}
}

// image returns the directory of a container's checkpoint.
func image(c *sandbox.Container) string { return filepath.Join(c.Bundle, "image") }

// checkpoint runs a container until the guest pauses, and checkpoints the container, which then
// exits. It returns the guest's output until then.
func checkpoint(t *testing.T, c *sandbox.Container) string {
	t.Helper()
	s := c.Begin(t, "run")
	printed := s.ReadTo(t, sandbox.Pausing)
	if r := c.Runsc(t, "checkpoint", "-image-path="+image(c), c.ID); r.Status != 0 {
		t.Fatal(r)
	}
	s.Wait(t).Check(t, 0, "")
	return printed
}

// restore restores a container and waits until the guest exits.
func restore(t *testing.T, c *sandbox.Container) sandbox.Result {
	t.Helper()
	s := c.Begin(t, "restore", "-image-path="+image(c))
	s.Say("\n") // ends up to two pauses
	return s.Wait(t)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: without root, runsc cannot create, checkpoint or restore containers")
	}
}

// vforkStep returns a step in which a parent waits in clone4 while its child pauses.
func vforkStep() string { return runtime.GOARCH + ",vfork,pause" }
