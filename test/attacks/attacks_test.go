// SPDX-License-Identifier: Apache-2.0

package attacks

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"runsc-ext/test/attacks/guest"
	"runsc-ext/test/box"
	"runsc-ext/test/kit"
	"runsc-ext/test/sandbox"
)

var (
	tries   = flag.Int("tries", 0, "`number` of tries of each attack; 0 for the attack's own number")
	limit   = flag.Duration("limit", 1500*time.Millisecond, "begin no new round of an attack after this `time`")
	seed    = flag.Uint64("seed", 1, "`seed` of the random choices")
	only    = flag.String("only", "", "run only the attacks whose names contain this `text`")
	isGuest = flag.Bool("guest", false, "run as the guest, and test nothing")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if *isGuest {
		os.Exit(guest.Main(flag.Args()))
	}
	os.Exit(box.Run(m))
}

// each runs f for each attack that -only selects, on all platforms at once.
func each(t *testing.T, attacks []guest.Attack, f func(t *testing.T, a guest.Attack, o box.Options)) {
	t.Helper()
	for _, a := range attacks {
		if !strings.Contains(a.Name, *only) {
			continue
		}
		t.Run(a.Name, func(t *testing.T) {
			for _, p := range box.Platforms() {
				t.Run(p, func(t *testing.T) {
					t.Parallel()
					f(t, a, options(t, a, p))
				})
			}
		})
	}
}

// named returns the attacks with these names. An architecture may lack some of the attacks.
func named(names ...string) []guest.Attack {
	return slices.DeleteFunc(slices.Clone(guest.Attacks()), func(a guest.Attack) bool { return !slices.Contains(names, a.Name) })
}

// TestAttack checks that a sandbox withstands each attack: the attack sees no wrong result.
// Afterwards the sandbox answers, has no task left, and has no report in its logs. The guest
// is an ordinary user without capabilities.
func TestAttack(t *testing.T) {
	each(t, guest.Attacks(), func(t *testing.T, a guest.Attack, o box.Options) {
		b := box.New(t, o)
		var out guest.Outcome
		b.Say(&out, command(a, 1))
		survived(t, b, a, out)
	})
}

// survived checks the outcome of an attack, and the sandbox afterwards.
func survived(t *testing.T, b *box.Box, a guest.Attack, out guest.Outcome) {
	t.Helper()
	check(b, a, out)
	t.Logf("%+v", out)
	b.WantAnswer()
	b.End()
	b.Report()
}

// options returns the options of a sandbox for an attack. $TMPDIR of the guest is a directory
// of the host.
func options(t *testing.T, a guest.Attack, platform string) box.Options {
	t.Helper()
	root, volume := t.TempDir(), t.TempDir()
	if err := os.Chmod(volume, 0o777); err != nil {
		t.Fatal(err)
	}
	return box.Options{Platform: platform, Level: a.Level, User: 1000, Patience: 3 * time.Minute, Edit: func(spec map[string]any) {
		process := spec["process"].(map[string]any)
		// runsc makes no mounts in a container whose root is that of the host, so the
		// container has another root, with a link to the guest program.
		program := process["args"].([]any)[0].(string)
		in := filepath.Join(root, program)
		if err := os.MkdirAll(filepath.Dir(in), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(program, in); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
		spec["root"] = map[string]any{"path": root, "readonly": true}
		process["env"] = append(process["env"].([]any), "TMPDIR=/volume")
		spec["mounts"] = append(spec["mounts"].([]any), map[string]any{"type": "bind", "source": volume, "destination": "/volume"})
	}}
}

// TestAttackStrace checks the same as TestAttack in a sandbox that logs all calls (strace).
func TestAttackStrace(t *testing.T) {
	each(t, named("flip/x32/syscall", "flip/i386/events", "args/fd"), func(t *testing.T, a guest.Attack, o box.Options) {
		o.Flags = []string{"--debug", "--strace"}
		b := box.New(t, o)
		var out guest.Outcome
		b.Say(&out, command(a, 4))
		survived(t, b, a, out)
	})
}

// TestAttackPaused checks the same as TestAttack in a sandbox that is paused, resumed and
// checkpointed during the attack. The sandbox runs on after a checkpoint.
func TestAttackPaused(t *testing.T) {
	needRoot(t)
	each(t, named("flip/x32/syscall", "flip/i386/events", "args/fd"), func(t *testing.T, a guest.Attack, o box.Options) {
		b := box.New(t, o)
		var started guest.Outcome
		b.Say(&started, "nothing")
		b.Send(command(a, 2))
		outcome := make(chan guest.Outcome)
		go func() {
			var out guest.Outcome
			b.Receive(&out)
			outcome <- out
		}()
		do := func(args ...string) {
			if out, err := b.Run(args...); err != nil {
				b.Problem("runsc %v: %v: %s", args, err, out)
			}
		}
		var out guest.Outcome
		for round, attacking := 0, true; attacking; round++ {
			select {
			case out = <-outcome:
				attacking = false
			default:
				do("pause", b.ID)
				do("resume", b.ID)
				if round < 2 {
					do("checkpoint", "-leave-running", "-image-path="+t.TempDir(), b.ID)
				}
			}
		}
		survived(t, b, a, out)
	})
}

// TestAttackRestored checks the same as TestAttack for an attack that begins in one sandbox and
// ends in another: the second sandbox is restored from a checkpoint of the first. If the
// checkpoint misses the attack, the attack begins again in the second sandbox.
func TestAttackRestored(t *testing.T) {
	needRoot(t)
	each(t, named("flip/i386/events", "args", "descriptors", "tracers/fd"), func(t *testing.T, a guest.Attack, o box.Options) {
		b := box.New(t, o)
		var out guest.Outcome
		b.Say(&out, "nothing")
		a.Tries *= 100 // The attack ends by its time limit.
		b.Send(command(a, 1))
		time.Sleep(*limit / 4)
		image := t.TempDir()
		if out, err := b.Run("checkpoint", "-image-path="+image, b.ID); err != nil {
			b.Problem("checkpoint: %v: %s", err, out)
		}
		b.Wait()
		b.LookIntoLogs()
		b.Report()

		o.Restore = image
		b = box.New(t, o)
		b.Say(&out, "nothing")
		if out.Attack == a.Name {
			b.Receive(new(guest.Outcome))
		} else {
			t.Log("the checkpoint came before or after the attack: attacking the restored sandbox")
			b.Say(&out, command(a, 1))
		}
		survived(t, b, a, out)
	})
}

// TestAttackBeside checks that an attack has no effect on other programs in the sandbox. Some
// of these programs run as other users in the attacker's container (runsc exec). Others run in
// two more containers, one of which has a seccomp profile that refuses clone4.
func TestAttackBeside(t *testing.T) {
	needRoot(t)
	abis := kit.ABIs()
	// results returns the expected results of the guest's command inherit, by call. The
	// calls are a fork, a call with CLONE_NEWNS and, after chroot, one with CLONE_NEWNS and
	// one with CLONE_NEWUSER.
	results := func(fork, newNS, chrootNS, chrootUser string) map[string]string {
		want := make(map[string]string)
		for _, abi := range abis {
			want[abi.Name+", fork"], want[abi.Name+", NEWNS"] = fork, newNS
			want[abi.Name+", chroot, NEWNS"], want[abi.Name+", chroot, NEWUSER"] = chrootNS, chrootUser
		}
		return want
	}
	refused := make(map[string]string)
	for call := range results("", "", "", "") {
		refused[call] = "ENOSYS" // see docs/abis.md
		if strings.HasPrefix(call, abis[0].Name) {
			refused[call] = "EPERM"
		}
	}
	each(t, named("descriptors", "tracers/fd"), func(t *testing.T, a guest.Attack, o box.Options) {
		in := func(pod *box.Box, edit func(spec map[string]any)) *box.Box {
			o := options(t, a, o.Platform)
			o.In, o.Flags = pod, []string{"--oci-seccomp"}
			if edit != nil {
				first := o.Edit
				o.Edit = func(spec map[string]any) {
					first(spec)
					edit(spec)
				}
			}
			b := box.New(t, o)
			var out guest.Outcome
			b.Say(&out, "nothing")
			return b
		}
		// In gVisor, the PID namespace of the first container includes the processes of the
		// other containers, so the first container only idles.
		pod := in(nil, nil)
		attacker, neighbor := in(pod, nil), in(pod, nil)
		filtered := in(pod, func(spec map[string]any) {
			spec["linux"].(map[string]any)["seccomp"] = map[string]any{
				"defaultAction": "SCMP_ACT_ALLOW",
				"syscalls":      []any{map[string]any{"names": []string{"clone4"}, "action": "SCMP_ACT_ERRNO"}},
			}
		})
		var out guest.Outcome
		neighbor.Say(&out, "keep")
		check(neighbor, a, out)
		attacker.Send(command(a, 1))
		for _, other := range []struct {
			name   string
			b      *box.Box
			exec   []string // flags of runsc exec; nil for the first program of the container
			want   map[string]string
			status string // a line of /proc/PID/status that children inherit
		}{
			{name: "root", b: attacker, exec: []string{"-user=0:0", "-cap=CAP_SYS_CHROOT"}, want: results("child", "EPERM", "EPERM", "EPERM"), status: "CapEff: 0000000000040000"},
			{name: "root with CAP_SYS_ADMIN", b: attacker, exec: []string{"-user=0:0", "-cap=CAP_SYS_CHROOT", "-cap=CAP_SYS_ADMIN"}, want: results("child", "child", "child", "EPERM"), status: "CapEff: 0000000000240000"},
			{name: "user", b: attacker, exec: []string{"-user=2000:2000"}, want: results("child", "EPERM", "EPERM", "child"), status: "CapEff: 0000000000000000"},
			{name: "neighbor", b: neighbor, want: results("child", "EPERM", "EPERM", "child"), status: "Seccomp: 0"},
			{name: "filtered", b: filtered, want: refused, status: "Seccomp: 2"},
		} {
			var out guest.Outcome
			if other.exec == nil {
				other.b.Say(&out, "inherit")
			} else {
				answer, err := other.b.Run(slices.Concat([]string{"exec"}, other.exec, []string{other.b.ID, other.b.Guest, "-guest", "inherit"})...)
				if err == nil {
					err = json.Unmarshal(answer, &out)
				}
				if err != nil {
					t.Errorf("%s: runsc exec: %v: %s", other.name, err, answer)
					continue
				}
			}
			check(other.b, a, out)
			if !maps.Equal(out.Calls, other.want) {
				t.Errorf("%s: calls return %q, want %q", other.name, out.Calls, other.want)
			}
			if !slices.Contains(out.Status, other.status) {
				t.Errorf("%s: children inherit %q, want %q", other.name, out.Status, other.status)
			}
		}
		attacker.Receive(&out)
		check(attacker, a, out)
		t.Logf("%+v", out)
		neighbor.Say(&out, "kill")
		check(neighbor, a, out)
		for _, b := range []*box.Box{attacker, neighbor, filtered} {
			b.WantAnswer()
			b.CloseInput()
			if status := b.Wait(); status != 0 {
				b.Problem("%s: exit status %d", b.ID, status)
			}
		}
		pod.End()
		for _, b := range []*box.Box{attacker, neighbor, filtered, pod} {
			// gVisor leaks references for every container but the first of a sandbox,
			// even for an idle container.
			b.Problems = slices.DeleteFunc(b.Problems, func(problem string) bool { return strings.Contains(problem, "Leak checking detected") })
			b.Report()
		}
	})
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("runsc needs root for exec, checkpoints and a second container in a sandbox")
	}
}

// check records the error and the remaining tasks of an outcome as problems.
func check(b *box.Box, a guest.Attack, out guest.Outcome) {
	if out.Error != "" {
		b.Problem("%s: %s", a.Name, out.Error)
	}
	if len(out.Left) > 0 {
		b.Problem("%s: tasks left: %q", a.Name, out.Left)
	}
}

// command returns the guest's command for an attack. The tries are divided by part.
func command(a guest.Attack, part int) string {
	n := a.Tries
	if *tries != 0 {
		n = *tries
	}
	return fmt.Sprintf("attack %s %d %d %v", a.Name, *seed, (n+part-1)/part, *limit)
}

// TestNative checks the attacks themselves: on the reference kernel, each attack must end
// without an error.
func TestNative(t *testing.T) {
	t.Parallel()
	commands := []string{"keep", "inherit", "kill"}
	for _, a := range guest.Attacks() {
		if a.Level == "on" && strings.Contains(a.Name, *only) {
			commands = append(commands, command(a, 20))
		}
	}
	bin, err := sandbox.BuildTest(pkg, runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	cmd, err := sandbox.Native(bin, guestArgs(commands)...)
	sandbox.Need(t, err)
	checkOutput(t, cmd, commands)
}

// TestEmulated checks that a sandbox withstands attacks in emulated machines: on the KVM
// platform, which has its own gate for INT $0x80, and on arm64. The guest starts as root there.
func TestEmulated(t *testing.T) {
	if testing.Short() {
		t.Skip("emulated machines are slow")
	}
	for _, m := range []struct {
		arch, platform, level string
		attacks               []string
	}{
		{"amd64", "kvm", "on", []string{"flip/x32/untraced", "flip/x32/syscall", "flip/i386/untraced", "flip/i386/events", "registers"}},
		{"arm64", "systrap", "fd", []string{"args", "args/fd", "descriptors", "tracers", "tracers/fd"}},
	} {
		t.Run(m.platform+"-"+m.arch, func(t *testing.T) {
			t.Parallel()
			var commands []string
			for _, a := range guest.Attacks() {
				if slices.Contains(m.attacks, a.Name) && strings.Contains(a.Name, *only) {
					commands = append(commands, command(a, 6))
				}
			}
			cmd, err := sandbox.EmulatedAt(m.level, m.arch, m.platform, nil, pkg, guestArgs(commands)...)
			sandbox.Need(t, err)
			checkOutput(t, cmd, commands)
		})
	}
}

const pkg = "runsc-ext/test/attacks"

// guestArgs returns the arguments with which a test binary executes commands as an ordinary
// user.
func guestArgs(commands []string) []string {
	return append([]string{"-guest", "user"}, commands...)
}

// checkOutput runs a guest, and checks that its output has an outcome without error for each
// command.
func checkOutput(t *testing.T, cmd *exec.Cmd, commands []string) {
	t.Helper()
	output, err := cmd.Output()
	if err != nil {
		t.Errorf("%v: %v", cmd, err)
	}
	var outcomes []guest.Outcome
	for line := range bytes.Lines(output) {
		var out guest.Outcome
		if json.Unmarshal(line, &out) != nil {
			continue // An emulated machine prints standard error too.
		}
		outcomes = append(outcomes, out)
		t.Logf("%+v", out)
		if out.Error != "" || len(out.Left) > 0 {
			t.Errorf("%s: %s; left: %q", out.Attack, out.Error, out.Left)
		}
	}
	if want := len(commands) + 1; len(outcomes) != want {
		t.Errorf("%d outcomes, want %d:\n%s", len(outcomes), want, output)
	}
}
