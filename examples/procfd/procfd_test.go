// SPDX-License-Identifier: Apache-2.0

package procfd

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// envCloneFD is the environment variable that says whether the kernel has CLONE_FD.
const envCloneFD = "EXAMPLE_CLONE_FD"

// TestMethod checks that the package uses CLONE_FD if and only if the kernel has it.
func TestMethod(t *testing.T) {
	want, ok := os.LookupEnv(envCloneFD)
	if !ok {
		t.Skipf("%s does not say what this kernel has", envCloneFD)
	}
	if got := fmt.Sprint(haveCloneFD()); got != want {
		t.Errorf("CLONE_FD is used: %s, want %s", got, want)
	}
}

// TestStart checks that commands run at the same time, that a descriptor becomes readable when
// its command exits, and that Wait returns how the command exited.
func TestStart(t *testing.T) {
	tests := []struct {
		command string
		want    Exit
	}{
		{command: "exit 3", want: Exit{Status: 3}},
		{command: "kill -TERM $$", want: Exit{Signal: syscall.SIGTERM}},
		{command: "sleep 0.2", want: Exit{}},
	}
	var fds []int
	for _, tc := range tests {
		fd, err := Start([]string{"sh", "-c", tc.command}, os.Environ())
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); flags != unix.FD_CLOEXEC || err != nil {
			t.Errorf("%q: descriptor flags %#x, %v, want FD_CLOEXEC", tc.command, flags, err)
		}
		fds = append(fds, fd)
	}
	for i, tc := range tests {
		poll := []unix.PollFd{{Fd: int32(fds[i]), Events: unix.POLLIN}}
		n, err := retry(func() (int, error) { return unix.Poll(poll, int((20 * time.Second).Milliseconds())) })
		if n != 1 || err != nil {
			t.Fatalf("%q: poll: %d, %v", tc.command, n, err)
		}
		if got, err := Wait(fds[i]); got != tc.want || err != nil {
			t.Errorf("%q: %+v, %v, want %+v", tc.command, got, err, tc.want)
		}
		if _, err := Wait(fds[i]); err == nil {
			t.Errorf("%q: the second Wait succeeded", tc.command)
		}
	}
	if pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("wait4: %d, %v, want ECHILD", pid, err)
	}
}

// TestStartFails checks that Start returns an error for a command that cannot be executed, and
// leaves no child behind.
func TestStartFails(t *testing.T) {
	script := t.TempDir() + "/script"
	if err := os.WriteFile(script, []byte("#!/no/such/file\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"no-such-command", script} {
		if fd, err := Start([]string{command}, nil); err == nil {
			t.Errorf("%s: descriptor %d, want an error", command, fd)
		}
	}
	if pid, err := unix.Wait4(-1, nil, unix.WALL|unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("wait4: %d, %v, want ECHILD", pid, err)
	}
}
