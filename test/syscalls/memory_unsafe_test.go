package syscalls

// Sound because all of this memory is mapped outside of Go's heap: it does not
// move, and lives at least as long as the test.

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// buffer returns size bytes of shared memory.
func (s *script) buffer(size int) []byte {
	first := s.p.Word()
	for i := 8; i < size; i += 8 {
		s.p.Word()
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(first)), size)
}

// bytes returns what is at an address that encode has returned, or behind it.
func (s *script) bytes(at uintptr, size int) []byte {
	return unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&at))), size)
}

// addr returns the address of memory that does not move.
func addr(mem []byte) uintptr {
	return uintptr(unsafe.Pointer(&mem[0]))
}

// unsafePointer returns the same as a pointer, for the calls that take one.
func unsafePointer(mem []byte) unsafe.Pointer {
	return unsafe.Pointer(&mem[0])
}

// word returns the address of the first word of mem.
func word(mem []byte) *uintptr {
	return (*uintptr)(unsafe.Pointer(&mem[0]))
}

// wordAt maps a page of shared memory at a given address and returns its first
// word.
func wordAt(t *testing.T, where uintptr) *uintptr {
	t.Helper()
	size := uintptr(unix.Getpagesize())
	at := *(*unsafe.Pointer)(unsafe.Pointer(&where))
	mem, err := unix.MmapPtr(-1, 0, at, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON|unix.MAP_FIXED_NOREPLACE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.MunmapPtr(mem, size) })
	return (*uintptr)(mem)
}

// nodename returns the host name in what uname(2) wrote to buf.
func nodename(buf []byte) string {
	return unix.ByteSliceToString((*unix.Utsname)(unsafe.Pointer(&buf[0])).Nodename[:])
}

// sizeOfUtsname is the size of what uname(2) writes.
const sizeOfUtsname = int(unsafe.Sizeof(unix.Utsname{}))

// siginfo is what siginfo_t says of a child.
type siginfo struct {
	signo, errno, code, _ int32
	pid                   int32
	uid                   uint32
	status                int32
}

// siginfoOf returns the siginfo_t in buf.
func siginfoOf(buf []byte) siginfo {
	return *(*siginfo)(unsafe.Pointer(&buf[0]))
}
