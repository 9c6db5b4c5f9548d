// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestCheckNames checks that a profile must treat the two names of one number alike, whatever
// the order of its rules.
func TestCheckNames(t *testing.T) {
	rule := func(action specs.LinuxSeccompAction, names ...string) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: names, Action: action}
	}
	for _, tc := range []struct {
		name  string
		rules []specs.LinuxSyscall
		bad   bool
	}{
		{name: "no rules"},
		{name: "other names", rules: []specs.LinuxSyscall{rule(specs.ActAllow, "clone"), rule(specs.ActErrno, "swapon")}},
		{name: "clone4 allowed", rules: []specs.LinuxSyscall{rule(specs.ActAllow, "clone", "clone4")}},
		{name: "userfaultfd refused", rules: []specs.LinuxSyscall{rule(specs.ActErrno, "userfaultfd")}},
		{name: "both allowed", rules: []specs.LinuxSyscall{rule(specs.ActAllow, "clone4", "userfaultfd")}},
		{name: "both refused", rules: []specs.LinuxSyscall{rule(specs.ActKill, "clone4"), rule(specs.ActErrno, "userfaultfd")}},
		{name: "clone4 allowed first", rules: []specs.LinuxSyscall{rule(specs.ActAllow, "clone4"), rule(specs.ActErrno, "userfaultfd")}, bad: true},
		{name: "clone4 allowed last", rules: []specs.LinuxSyscall{rule(specs.ActErrno, "userfaultfd"), rule(specs.ActAllow, "clone4")}, bad: true},
		{name: "userfaultfd allowed first", rules: []specs.LinuxSyscall{rule(specs.ActAllow, "userfaultfd"), rule(specs.ActTrap, "clone4")}, bad: true},
		{name: "one name both", rules: []specs.LinuxSyscall{rule(specs.ActAllow, "clone4"), rule(specs.ActKill, "clone4")}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := checkNames(&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: tc.rules})
			if (err != nil) != tc.bad {
				t.Errorf("error %v, want one: %t", err, tc.bad)
			}
			if tc.bad && err != nil && (!strings.Contains(err.Error(), "clone4") || !strings.Contains(err.Error(), "userfaultfd")) {
				t.Errorf("%q does not name both", err)
			}
		})
	}
	if err := checkNames(nil); err != nil {
		t.Errorf("without a profile: %v", err)
	}
}
