// SPDX-License-Identifier: Apache-2.0

package clonefd

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/test/kit"
)

// wantInfo is the start of what a read returns for a child of newFDChild: the code and the
// status.
var wantInfo = []byte{kit.CLD_EXITED, 0, 0, 0, 7, 0, 0, 0}

// TestFDShortRead checks that a read with less room than the info returns what fits, and that
// the next read returns end of file.
func TestFDShortRead(t *testing.T) {
	for _, size := range []int{1, 4, 8, fdInfoSize - 1, fdInfoSize, fdInfoSize + 1} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			c := newFDChild(t, kit.SIGCHLD, linux.CLONEFD_NONBLOCK, nil)
			buf := make([]byte, size)
			if n, err := unix.Read(c.fd, buf); err != unix.EAGAIN {
				t.Errorf("read while the child lives: %d, %v, want EAGAIN", n, err)
			}
			if n, err := unix.Read(c.fd, nil); n != 0 || err != nil {
				t.Errorf("read of 0 bytes while the child lives: %d, %v, want 0", n, err)
			}
			if err := unix.SetNonblock(c.fd, false); err != nil {
				t.Fatal(err)
			}
			// Usually the read comes first, and waits for the exit.
			time.AfterFunc(10*time.Millisecond, c.finish)
			n, err := ignoringEINTR(func() (int, error) { return unix.Read(c.fd, buf) })
			if want := min(size, fdInfoSize); n != want || err != nil || !bytes.HasPrefix(buf, wantInfo[:min(n, len(wantInfo))]) {
				t.Errorf("read %d bytes, %v: %x, want %d bytes that begin as %x", n, err, buf, want, wantInfo)
			}
			if n, err := unix.Read(c.fd, make([]byte, fdInfoSize)); n != 0 || err != nil {
				t.Errorf("the next read: %d, %v, want end of file", n, err)
			}
		})
	}
}

// TestFDEmptyRead checks that a read of 0 bytes returns 0 and consumes nothing.
func TestFDEmptyRead(t *testing.T) {
	c := newFDChild(t, kit.SIGCHLD, 0, nil)
	c.finish()
	await(t, c.fd)
	for range 2 {
		if n, err := unix.Read(c.fd, nil); n != 0 || err != nil {
			t.Errorf("read of 0 bytes: %d, %v, want 0", n, err)
		}
	}
	if n, err := unix.Readv(c.fd, [][]byte{{}, {}}); n != 0 || err != nil {
		t.Errorf("readv of 0 bytes: %d, %v, want 0", n, err)
	}
	if info, n, err := read(c.fd); n != fdInfoSize || info.Status != 7 || err != nil {
		t.Errorf("the read after it: %d bytes, %+v, %v, want status 7", n, info, err)
	}
}

// TestFDReadv checks that readv is one read with the room of all its buffers.
func TestFDReadv(t *testing.T) {
	for _, sizes := range [][]int{{8, 16}, {1, 0, 3, 4}, {4, 4, 8, 8, 8}, {3, 2}} {
		t.Run(fmt.Sprint(sizes), func(t *testing.T) {
			c := newFDChild(t, kit.SIGCHLD, 0, nil)
			c.finish()
			await(t, c.fd)
			var parts [][]byte
			room := 0
			for _, size := range sizes {
				parts = append(parts, make([]byte, size))
				room += size
			}
			n, err := unix.Readv(c.fd, parts)
			got := bytes.Join(parts, nil)
			if want := min(room, fdInfoSize); n != want || err != nil || !bytes.HasPrefix(got, wantInfo[:min(n, len(wantInfo))]) {
				t.Errorf("read %d bytes, %v: %x, want %d bytes that begin as %x", n, err, got, want, wantInfo)
			}
			if n, err := unix.Read(c.fd, make([]byte, fdInfoSize)); n != 0 || err != nil {
				t.Errorf("the next read: %d, %v, want end of file", n, err)
			}
		})
	}
}

// TestFDReadFault checks that a read that faults, even in the middle, returns EFAULT and consumes
// nothing.
func TestFDReadFault(t *testing.T) {
	page := unix.Getpagesize()
	mem := kit.Memory(t, 2)
	if err := unix.Mprotect(mem[page:], unix.PROT_READ); err != nil {
		t.Fatal(err)
	}
	for _, fits := range []int{0, 1, 8, fdInfoSize - 1} {
		t.Run(fmt.Sprint(fits), func(t *testing.T) {
			c := newFDChild(t, kit.SIGCHLD, 0, nil)
			c.finish()
			await(t, c.fd)
			if n, err := unix.Read(c.fd, mem[page-fits:][:fdInfoSize]); err != unix.EFAULT {
				t.Errorf("read: %d, %v, want EFAULT", n, err)
			}
			if n, err := unix.Readv(c.fd, [][]byte{mem[page-fits : page], mem[page:]}); err != unix.EFAULT {
				t.Errorf("readv: %d, %v, want EFAULT", n, err)
			}
			if info, n, err := read(c.fd); n != fdInfoSize || info.Status != 7 || err != nil {
				t.Errorf("the read after it: %d bytes, %+v, %v, want status 7", n, info, err)
			}
		})
	}
}

// ignoringEINTR calls f again while a signal interrupts it.
func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		if n, err := f(); err != unix.EINTR {
			return n, err
		}
	}
}
