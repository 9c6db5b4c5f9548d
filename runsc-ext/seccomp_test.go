// SPDX-License-Identifier: Apache-2.0

package main_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"runsc-ext/test/sandbox"
)

// TestOCISeccomp checks what a profile does to clone4 through every ABI: a profile that names
// the call, by either name, and a profile that decides by its default action.
func TestOCISeccomp(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skipf("the ABIs are those of amd64, this is %s", runtime.GOARCH)
	}
	docker, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		t.Fatal(err)
	}
	dockerWith := func(name string) *specs.LinuxSeccomp {
		p := *docker
		p.Syscalls = append([]specs.LinuxSyscall{{Names: []string{name}, Action: specs.ActAllow}}, docker.Syscalls...)
		return &p
	}
	refuse := func(name string) *specs.LinuxSeccomp { return profile(specs.ActAllow, name, specs.ActErrno) }

	both := refuse("userfaultfd")
	both.Syscalls = append(both.Syscalls, refuse("clone4").Syscalls...)
	for _, tc := range []struct {
		name    string
		flag    string // after --oci-seccomp
		profile *specs.LinuxSeccomp
		level   string   // annotation
		want    []string // for each of amd64, x32, i386
	}{
		// A task with any filter has no i386 clone4; see docs/abis.md.
		{name: "allow all", profile: refuse("swapon"), want: []string{"ok", "ok", "ENOSYS"}},
		{name: "errno", profile: refuse("clone4"), want: []string{"EPERM", "ENOSYS", "ENOSYS"}},
		{name: "old name", profile: refuse("userfaultfd"), want: []string{"EPERM", "ENOSYS", "ENOSYS"}},
		{name: "both names", profile: both, want: []string{"EPERM", "ENOSYS", "ENOSYS"}},
		{name: "old name, off", profile: refuse("userfaultfd"), level: "off", want: []string{"EPERM", "ENOSYS", "ENOSYS"}},
		{name: "name, off", profile: refuse("clone4"), level: "off", want: []string{"ENOSYS", "ENOSYS", "ENOSYS"}},

		// A profile allows a name for amd64 only: gVisor makes no filter for other ABIs.
		{name: "Docker's", profile: docker, want: []string{"EPERM", "EPERM", "EPERM"}},
		{name: "Docker's with old name", profile: dockerWith("userfaultfd"), want: []string{"ok", "EPERM", "EPERM"}},
		{name: "Docker's with clone4", profile: dockerWith("clone4"), want: []string{"ok", "EPERM", "EPERM"}},

		// Without --oci-seccomp, which is the default, runsc ignores profiles.
		{name: "not in use", flag: "--oci-seccomp=false", profile: docker, want: []string{"ok", "ok", "ok"}},
	} {
		for _, platform := range sandbox.Platforms {
			t.Run(tc.name+","+platform, func(t *testing.T) {
				t.Parallel()
				abis := sandbox.ABIs()
				if tc.level == "off" {
					abis = sandbox.OffABIs()
				}
				var want string
				for i, abi := range abis {
					want += sandbox.Results(tc.want[i], abi)
				}
				c := underProfile(t, platform, tc.profile, guest(t, abis...)...)
				c.AnnotateLevel(t, tc.level)
				if tc.flag != "" {
					c.Flags = append(c.Flags, tc.flag)
				}
				c.Run(t).Check(t, 0, want)
			})
		}
	}
}

// TestOCISeccompContradiction checks that a container does not start if its profile treats
// the two names of clone4's number differently, and that the message names both.
func TestOCISeccompContradiction(t *testing.T) {
	p := profile(specs.ActAllow, "clone4", specs.ActAllow)
	p.Syscalls = append(p.Syscalls, profile(specs.ActAllow, "userfaultfd", specs.ActErrno).Syscalls...)
	for _, tc := range []struct {
		name  string
		flag  string // after --oci-seccomp
		level string // the operator's
		want  string // in the message; "" if the container starts
	}{
		{name: "refused", want: "allows one of clone4 and userfaultfd and refuses the other"},
		{name: "profiles not in use", flag: "--oci-seccomp=false"},
		{name: "clone4 off", level: "off"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bin := install(t)
			if tc.level != "" {
				sandbox.WriteFile(t, bin+sandbox.LevelSuffix, tc.level)
			}
			c := sandbox.NewContainer(t, bin, sandbox.Platforms[0], guest(t, "exit=0")...)
			c.Flags = append(c.Flags, "--oci-seccomp")
			if tc.flag != "" {
				c.Flags = append(c.Flags, tc.flag)
			}
			c.Edit(t, func(spec *specs.Spec) { spec.Linux.Seccomp = p })
			r := c.Run(t)
			if tc.want == "" {
				r.Check(t, 0, "")
			} else if r.Status != 128 || !strings.Contains(r.Stderr, tc.want) {
				t.Errorf("got %v, want status 128 and %q", r, tc.want)
			}
		})
	}
}

// TestOCISeccompKill checks that the action "kill" kills only the thread that makes the call, as
// it does for every call in gVisor.
func TestOCISeccompKill(t *testing.T) {
	step := runtime.GOARCH + ",inner"
	for _, tc := range []struct {
		action specs.LinuxSeccompAction
		want   string
	}{
		{action: specs.ActKill, want: "SIGSYS"},
		{action: specs.ActAllow, want: "ok"},
	} {
		for _, platform := range sandbox.Platforms {
			t.Run(string(tc.action)+","+platform, func(t *testing.T) {
				t.Parallel()
				c := underProfile(t, platform, profile(specs.ActAllow, "clone4", tc.action), guest(t, step)...)
				c.Run(t).Check(t, 0, sandbox.Results(tc.want, step))
			})
		}
	}
}

// underProfile returns a container with an OCI seccomp profile.
func underProfile(t *testing.T, platform string, profile *specs.LinuxSeccomp, args ...string) *sandbox.Container {
	t.Helper()
	c := sandbox.NewContainer(t, binary(t), platform, args...)
	c.Flags = append(c.Flags, "--oci-seccomp")
	c.Edit(t, func(spec *specs.Spec) { spec.Linux.Seccomp = profile })
	return c
}

// profile returns a profile with a rule for one name, and a default action for other names.
func profile(otherwise specs.LinuxSeccompAction, name string, action specs.LinuxSeccompAction) *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{DefaultAction: otherwise, Syscalls: []specs.LinuxSyscall{{Names: []string{name}, Action: action}}}
}
