// SPDX-License-Identifier: Apache-2.0

package attacks

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"runsc-ext/test/attacks/guest"
	"runsc-ext/test/box"
	"runsc-ext/test/sandbox"
)

var (
	tries   = flag.Int("tries", 0, "make so many tries of each attack, not the attack's own number")
	seed    = flag.Uint64("seed", 1, "make the choices of this seed")
	only    = flag.String("only", "", "make the attacks whose names contain this")
	isGuest = flag.Bool("guest", false, "be the guest; test nothing")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if *isGuest {
		os.Exit(guest.Main(flag.Args()))
	}
	os.Exit(box.Run(m))
}

// TestAttack checks that no attack ends, hangs or outwits a sandbox: afterwards the
// sandbox answers, has no task left, and its log has no report. The guest is an ordinary
// user without capabilities.
func TestAttack(t *testing.T) {
	for _, a := range guest.Attacks() {
		if !strings.Contains(a.Name, *only) {
			continue
		}
		t.Run(a.Name, func(t *testing.T) {
			for _, p := range box.Platforms() {
				t.Run(p, func(t *testing.T) {
					b := box.New(t, box.Options{Platform: p, Level: a.Level, User: 1000})
					var out guest.Outcome
					b.Say(&out, command(a, 1))
					check(b, a, out)
					t.Logf("%+v", out)
					b.WantAnswer()
					b.End()
					b.Report()
				})
			}
		})
	}
}

// check notes as problems what is wrong with an outcome.
func check(b *box.Box, a guest.Attack, out guest.Outcome) {
	if out.Error != "" {
		b.Problem("%s: %s", a.Name, out.Error)
	}
	if len(out.Left) > 0 {
		b.Problem("%s: tasks left: %q", a.Name, out.Left)
	}
}

// command returns the guest's command for an attack, with a part of its tries.
func command(a guest.Attack, part int) string {
	n := a.Tries
	if *tries != 0 {
		n = *tries
	}
	return fmt.Sprintf("attack %s %d %d", a.Name, *seed, (n+part-1)/part)
}

// TestNative checks that each attack comes to its end where it attacks nothing: on the
// reference kernel.
func TestNative(t *testing.T) {
	var commands []string
	for _, a := range guest.Attacks() {
		if a.Level == "on" && strings.Contains(a.Name, *only) {
			commands = append(commands, command(a, 20))
		}
	}
	bin, err := sandbox.BuildTest("runsc-ext/test/attacks", runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	cmd, err := sandbox.Native(bin, append([]string{"-guest"}, commands...)...)
	if m := sandbox.Missing(""); errors.As(err, &m) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	output, err := cmd.Output()
	if err != nil {
		t.Errorf("%v: %v", cmd, err)
	}
	lines := bytes.Split(bytes.TrimSpace(output), []byte("\n"))
	if len(lines) != len(commands) {
		t.Errorf("%d outcomes, want %d:\n%s", len(lines), len(commands), output)
	}
	for _, line := range lines {
		var out guest.Outcome
		if err := json.Unmarshal(line, &out); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		t.Logf("%+v", out)
		if out.Error != "" || len(out.Left) > 0 {
			t.Errorf("%s: %s; left: %q", out.Attack, out.Error, out.Left)
		}
	}
}
