// SPDX-License-Identifier: Apache-2.0

package clonefd

import (
	"os"
	"os/signal"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/test/kit"
)

const fioasync = 0x5452

// TestFDAsync checks that O_ASYNC on a descriptor is EINVAL, with and without an owner, and
// that the attempt does not change the descriptor.
func TestFDAsync(t *testing.T) {
	for _, tc := range []struct {
		name  string
		owner int // 0 for none
	}{
		{name: "no owner"},
		{name: "owner: a process", owner: os.Getpid()},
		{name: "owner: a process group", owner: -unix.Getpgrp()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newFDChild(t, kit.SIGCHLD|linux.CLONE_AUTOREAP, 0, nil)
			if tc.owner != 0 {
				if _, err := unix.FcntlInt(uintptr(c.fd), unix.F_SETOWN, tc.owner); err != nil {
					t.Fatalf("F_SETOWN: %v", err)
				}
			}
			if _, err := unix.FcntlInt(uintptr(c.fd), unix.F_SETFL, unix.O_ASYNC); err != unix.EINVAL {
				t.Errorf("F_SETFL with O_ASYNC: %v, want EINVAL", err)
			}
			if err := unix.IoctlSetPointerInt(c.fd, fioasync, 1); err != unix.EINVAL {
				t.Errorf("FIOASYNC: %v, want EINVAL", err)
			}
			if err := unix.IoctlSetPointerInt(c.fd, fioasync, 0); err != nil {
				t.Errorf("FIOASYNC with 0: %v", err)
			}
			if flags, err := unix.FcntlInt(uintptr(c.fd), unix.F_GETFL, 0); flags != unix.O_RDWR || err != nil {
				t.Errorf("F_GETFL: %#x, %v, want O_RDWR", flags, err)
			}
			c.finish()
			if info, n, err := read(c.fd); n != fdInfoSize || info.Status != 7 || err != nil {
				t.Errorf("read %d bytes, %+v, %v, want status 7", n, info, err)
			}
		})
	}
}

// TestFDAsyncEpoll checks that an epoll set with O_ASYNC sends its signal when a child in it
// exits, and that a read and a poll report the exit too. The listener of such a set locks the
// TaskSet mutex, which the sentry holds when a child exits.
func TestFDAsyncEpoll(t *testing.T) {
	for _, tc := range []struct {
		name      string
		owner     int
		elsewhere bool // the signal is for another process
		nests     int  // epoll sets around the one with the descriptor
	}{
		{name: "owner: a process", owner: os.Getpid()},
		// gVisor sends the signal of a group to the process that created the group.
		{name: "owner: a process group", owner: -unix.Getpgrp(), elsewhere: true},
		{name: "two sets around", owner: os.Getpid(), nests: 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			signals := make(chan os.Signal, 10)
			signal.Notify(signals, unix.SIGIO)
			defer signal.Stop(signals)
			c := newFDChild(t, kit.SIGCHLD|linux.CLONE_AUTOREAP, 0, nil)
			fd := c.fd
			for range tc.nests + 1 {
				ep, err := unix.EpollCreate1(0)
				if err != nil {
					t.Fatal(err)
				}
				defer unix.Close(ep)
				if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
					t.Fatal(err)
				}
				fd = ep
			}
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETOWN, tc.owner); err != nil {
				t.Fatal(err)
			}
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_ASYNC); err != nil {
				t.Fatal(err)
			}
			c.finish()
			await(t, c.fd)
			if !tc.elsewhere {
				select {
				case <-signals:
				case <-time.After(20 * time.Second):
					t.Error("no SIGIO within 20 seconds")
				}
			}
			if got, err := pollFor(fd, unix.POLLIN, 20*time.Second); got != unix.POLLIN || err != nil {
				t.Errorf("the epoll set is ready for %#x, %v, want POLLIN", got, err)
			}
			if info, n, err := read(c.fd); n != fdInfoSize || info.Status != 7 || err != nil {
				t.Errorf("read %d bytes, %+v, %v, want status 7", n, info, err)
			}
		})
	}
}
