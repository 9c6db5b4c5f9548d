// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// Missing is the error for a kernel or an emulated machine that is not available. It skips a
// test.
type Missing string

func (m Missing) Error() string { return string(m) }

// Native returns the command that runs a static program on the reference kernel, a Linux with
// clone4. The kernel is not part of the source. Without it, the error is a Missing.
func Native(program string, args ...string) (*exec.Cmd, error) {
	if runtime.GOARCH != "amd64" {
		return nil, Missing("the reference kernel is for amd64")
	}
	runner, err := runner("CLONE4_LINUX_RUN", "linux-clone4/linux-run", "qemu-system-x86_64")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(runner, append([]string{program}, args...)...)
	cmd.Env = append(os.Environ(), "LINUX_RUN_S=3600")
	return cmd, nil
}

// Emulated returns the command that runs the tests of pkg in a sandbox in an emulated machine.
// settings are added to the environment of the tests. The error is a Missing if the machine is
// not available.
func Emulated(arch, platform string, settings []string, pkg string, args ...string) (*exec.Cmd, error) {
	return EmulatedAt("", arch, platform, settings, pkg, args...)
}

// EmulatedAt is Emulated at a level of clone4; "" is the default.
func EmulatedAt(level, arch, platform string, settings []string, pkg string, args ...string) (*exec.Cmd, error) {
	qemu := map[string]string{"amd64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"}
	runner, err := runner("CLONE4_MACHINE_RUN", "machines/machine-run", qemu[arch])
	if err != nil {
		return nil, err
	}
	bin, err := Build(runscExt, arch)
	if err != nil {
		return nil, err
	}
	tests, err := BuildTest(pkg, arch)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(runner, arch, bin)
	cmd.Args = append(cmd.Args, Flags(platform)...)
	cmd.Args = append(cmd.Args, "do", "/bin/busybox", "env")
	cmd.Args = append(cmd.Args, settings...)
	cmd.Args = append(cmd.Args, "/"+filepath.Base(tests))
	cmd.Args = append(cmd.Args, args...)
	files := tests
	if level != "" {
		levelFile := filepath.Join(filepath.Dir(bin), "level-"+level)
		if err := writeLevel(levelFile, level); err != nil {
			return nil, err
		}
		files += " " + levelFile + ":/" + filepath.Base(bin) + LevelSuffix
	}
	cmd.Env = append(os.Environ(), "MACHINE_FILES="+files, "MACHINE_S=3600")
	if arch == "arm64" && platform == "kvm" {
		cmd.Env = append(cmd.Env, kvmOnARM64...)
	}
	return cmd, nil
}

// kvmOnARM64 describes an emulated arm64 processor that has EL2. The emulator is slow with
// SVE and with the architected algorithm of pointer authentication.
var kvmOnARM64 = []string{"MACHINE_TYPE=virt,virtualization=on", "MACHINE_CPU=max,pauth-impdef=on,sve=off", "MACHINE_SMP=1"}

// runner returns the path of a runner, which needs qemu. The path is in an environment variable,
// or in the directory "shared" beside the source. docs/reference-kernel.md describes runners.
func runner(variable, beside, qemu string) (string, error) {
	path := os.Getenv(variable)
	if path != "" {
		if _, err := exec.LookPath(path); err != nil {
			return "", fmt.Errorf("%s: %w", variable, err)
		}
	} else {
		source, err := sourceDir()
		if err != nil {
			return "", err
		}
		path = filepath.Join(source, "../shared", beside)
		if _, err := os.Stat(path); err != nil {
			return "", Missing(fmt.Sprintf("%s is not set, and %s does not exist: see docs/reference-kernel.md", variable, path))
		}
	}
	for _, program := range []string{qemu, "cpio"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", Missing(fmt.Sprintf("%s is not installed: apt-get install qemu-system-x86 qemu-system-arm cpio", program))
		}
	}
	return path, nil
}
