package main_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"runsc-ext/test/sandbox"
)

// An OCI profile that names clone4 means clone4, by every ABI: what it refuses must
// not come in by another number. One that does not name it decides by its default,
// as for any other call.
func TestOCISeccomp(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skipf("the ABIs are those of amd64, this is %s", runtime.GOARCH)
	}
	program, err := sandbox.Build("runsc-ext/runsc-ext/testdata/checkpointed", runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	docker, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		t.Fatal(err)
	}
	dockerWith := *docker
	dockerWith.Syscalls = append([]specs.LinuxSyscall{{Names: []string{"clone4"}, Action: specs.ActAllow}}, docker.Syscalls...)

	all := func(results ...string) string {
		return fmt.Sprintf("amd64: %s\nx32: %s\ni386: %s\n", results[0], results[1], results[2])
	}
	for _, tc := range []struct {
		name    string
		flags   string
		profile *specs.LinuxSeccomp
		level   string
		want    string
	}{
		// A task with any filter has no i386 clone4; see docs/abis.md.
		{"allow all", "", names("swapon", specs.ActAllow, specs.ActErrno), "", all("ok", "ok", "ENOSYS")},
		{"errno", "", names("clone4", specs.ActAllow, specs.ActErrno), "", all("EPERM", "ENOSYS", "ENOSYS")},
		{"old name", "", names("userfaultfd", specs.ActAllow, specs.ActErrno), "", all("ok", "ok", "ENOSYS")},
		{"old name, off", "", names("userfaultfd", specs.ActAllow, specs.ActErrno), "off", all("EPERM", "ENOSYS", "ENOSYS")},
		{"name, off", "", names("clone4", specs.ActAllow, specs.ActErrno), "off", all("ENOSYS", "ENOSYS", "ENOSYS")},

		// A profile that allows a name does so for amd64 only: gVisor makes no
		// filter for other ABIs.
		{"Docker's", "", docker, "", all("EPERM", "EPERM", "EPERM")},
		{"Docker's with clone4", "", &dockerWith, "", all("ok", "EPERM", "EPERM")},

		// What runsc does by default.
		{"not in use", "--oci-seccomp=false", docker, "", all("ok", "ok", "ok")},
	} {
		for _, platform := range sandbox.Platforms {
			t.Run(tc.name+","+platform, func(t *testing.T) {
				t.Parallel()
				c := underProfile(t, platform, tc.profile, program, "amd64", "x32", "i386")
				if tc.level != "" {
					c.edit(t, func(spec map[string]any) {
						spec["annotations"] = map[string]string{annotation: tc.level}
					})
				}
				if tc.flags != "" {
					c.flags = append(c.flags, tc.flags)
				}
				if r := run(t, c.bin, c.args("run")...); r.status != 0 || r.stdout != tc.want {
					t.Errorf("got %v, want status 0 and\n%s", r, tc.want)
				}
			})
		}
	}
}

// "kill" ends the thread that makes the call, as everywhere in gVisor: a program
// that has another goes on without it.
func TestOCISeccompKill(t *testing.T) {
	for action, want := range map[specs.LinuxSeccompAction]string{
		specs.ActKill:  "SIGSYS\n",
		specs.ActAllow: "status 0\n",
	} {
		for _, platform := range sandbox.Platforms {
			t.Run(fmt.Sprintf("%s,%s", action, platform), func(t *testing.T) {
				t.Parallel()
				c := underProfile(t, platform, names("clone4", specs.ActAllow, action), guest(t)[0], childCommand)
				if r := run(t, c.bin, c.args("run")...); r.status != 0 || r.stdout != want {
					t.Errorf("got %v, want status 0 and %q", r, want)
				}
			})
		}
	}
}

// underProfile makes a container that runs a program under an OCI seccomp profile.
func underProfile(t *testing.T, platform string, profile *specs.LinuxSeccomp, args ...string) *container {
	t.Helper()
	c := newContainer(t, binary(t), platform, "")
	c.flags = append(c.flags, "--oci-seccomp")
	c.edit(t, func(spec map[string]any) {
		spec["process"].(map[string]any)["args"] = args
		spec["linux"].(map[string]any)["seccomp"] = profile
	})
	return c
}

// names returns a profile with a rule for one name.
func names(name string, otherwise, action specs.LinuxSeccompAction) *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{DefaultAction: otherwise, Syscalls: []specs.LinuxSyscall{{Names: []string{name}, Action: action}}}
}
