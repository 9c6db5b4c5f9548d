// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
	"runsc-ext/test/kit"
)

// inherited are the lines of /proc/PID/status that a child inherits from its parent.
var inherited = []string{"Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"}

// inherit makes calls through every ABI, some of them for a new namespace or after chroot. inherit
// checks that each child has the status of its parent.
func inherit(out *Outcome) error {
	status, err := statusOf(os.Getpid())
	if err != nil {
		return err
	}
	out.Status, out.Calls = status, make(map[string]string)
	for _, abi := range kit.ABIs() {
		for _, c := range []struct {
			name   string
			flags  uint64
			chroot bool
		}{
			{name: "fork", flags: kit.SIGCHLD},
			{name: "NEWNS", flags: linux.CLONE_NEWNS | kit.SIGCHLD},
			{name: "chroot, NEWNS", flags: linux.CLONE_NEWNS | kit.SIGCHLD, chroot: true},
			{name: "chroot, NEWUSER", flags: linux.CLONE_NEWUSER | kit.SIGCHLD, chroot: true},
		} {
			result, err := callFrom(abi, c.flags, c.chroot)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", abi.Name, c.name, err)
			}
			out.Calls[abi.Name+", "+c.name] = result
		}
	}
	return nil
}

// callFrom makes a call in a new process. The result is "child" or the name of an error.
func callFrom(abi *kit.ABI, flags uint64, chroot bool) (result string, err error) {
	p := rawclone.NewProgram()
	defer p.Free()
	caller, child := p.NewList(4), p.NewList(1)
	kit.Forever(child)
	if chroot {
		caller.Sys(unix.SYS_CHROOT, p.Path("/proc"))
	}
	call := abi.Clone4(caller, flags, linux.Clone4Args{}, child)
	call.Ret = notWritten
	kit.Forever(caller)
	pid, errno := caller.Start(kit.SIGCHLD)
	if errno != 0 {
		return "", errno
	}
	defer func() {
		unix.Kill(pid, unix.SIGKILL)
		if e := reap(pid); err == nil {
			err = e
		}
		// The child of the call becomes a child of the guest, which is a subreaper.
		if of := int(call.Ret); of > 0 && of != notWritten {
			unix.Kill(of, unix.SIGKILL)
			if e := reap(of); err == nil {
				err = e
			}
		}
	}()
	for over := time.Now().Add(patience); atomic.LoadUintptr(&call.Ret) == notWritten; time.Sleep(time.Millisecond) {
		if time.Now().After(over) {
			return "", fmt.Errorf("the call has not returned within %v", patience)
		}
	}
	if errno := call.Errno(); errno != 0 {
		return kit.ErrnoName(errno), nil
	}
	callers, err := statusOf(pid)
	if err != nil {
		return "", err
	}
	childs, err := statusOf(int(call.Ret))
	if err != nil {
		return "", err
	}
	if flags&linux.CLONE_NEWUSER == 0 && !slices.Equal(callers, childs) {
		return "", fmt.Errorf("the child has the status %q, want %q", childs, callers)
	}
	return "child", nil
}

// statusOf returns the inherited lines of /proc/PID/status.
func statusOf(pid int) ([]string, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(string(status)) {
		if name, value, _ := strings.Cut(line, ":"); slices.Contains(inherited, name) {
			lines = append(lines, name+": "+strings.TrimSpace(value))
		}
	}
	return lines, nil
}

// kept are the children of keep.
var kept []int

// keep creates a child through each ABI. The children exist until kill.
func keep() error {
	for _, abi := range kit.ABIs() {
		p := rawclone.NewProgram()
		l, child := p.NewList(1), p.NewList(1)
		kit.Forever(child)
		pid, errno := rawclone.Do(abi.Clone4(l, kit.SIGCHLD, linux.Clone4Args{}, child))
		if errno != 0 {
			return fmt.Errorf("%s: %w", abi.Name, errno)
		}
		kept = append(kept, int(pid))
	}
	return nil
}

// kill checks that the children of keep have neither exited nor stopped, and kills them.
func kill() error {
	for _, pid := range kept {
		if pid, err := unix.Wait4(pid, nil, unix.WALL|unix.WNOHANG|unix.WUNTRACED, nil); pid != 0 || err != nil {
			return fmt.Errorf("wait4 for a child of keep returns %d, %v, want 0: the child must still run", pid, err)
		}
		unix.Kill(pid, unix.SIGKILL)
		if err := reap(pid); err != nil {
			return err
		}
	}
	kept = nil
	return nil
}
