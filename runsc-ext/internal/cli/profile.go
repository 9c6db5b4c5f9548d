// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// The two names of clone4's number in OCI seccomp profiles. Released kernels have
// userfaultfd(2) at that number. The sentry finds the number by either name; see
// syscalls.Options.
const (
	callName    = "clone4"
	earlierName = "userfaultfd"
)

// checkProfile checks the seccomp profile of the container that the subcommand starts, if
// gVisor will make a filter of the profile.
func (c *commandLine) checkProfile() error {
	spec := c.spec()
	if spec == nil || c.flag("oci-seccomp") != "true" {
		return nil
	}
	var s struct {
		Linux struct{ Seccomp *specs.LinuxSeccomp }
	}
	if json.Unmarshal(spec, &s) != nil {
		return nil // runsc reports the error in the spec.
	}
	return checkNames(s.Linux.Seccomp)
}

// checkNames returns an error if a seccomp profile allows one name of clone4's number and
// refuses the other. In the filter that gVisor makes of a profile, the first rule for a number
// counts, so the order of the rules would decide.
func checkNames(profile *specs.LinuxSeccomp) error {
	if profile == nil {
		return nil
	}
	type verdict struct{ allowed, refused bool }
	verdicts := make(map[string]verdict)
	for _, rule := range profile.Syscalls {
		for _, name := range rule.Names {
			v := verdicts[name]
			if rule.Action == specs.ActAllow {
				v.allowed = true
			} else {
				v.refused = true
			}
			verdicts[name] = v
		}
	}
	call, earlier := verdicts[callName], verdicts[earlierName]
	if call.allowed && earlier.refused || call.refused && earlier.allowed {
		return fmt.Errorf("the seccomp profile (linux.seccomp in config.json) allows one of %s and %s and refuses the other, but both have the same system call number: name one of them, or give both the same action", callName, earlierName)
	}
	return nil
}
