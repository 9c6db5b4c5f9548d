// SPDX-License-Identifier: Apache-2.0

package kit

import (
	"encoding/binary"
	"testing"

	"runsc-ext/abi/linux"
	"runsc-ext/internal/rawclone"
)

// ABI is an ABI through which a test can call clone4.
type ABI struct {
	Name   string
	Number uintptr // of clone4
	Entry  uintptr // a value of rawclone.Op.Entry
	Word   int     // size of a word in the args struct, in bytes
}

// ABIs returns the ABIs of this architecture. The first is that of 64-bit programs.
func ABIs() []*ABI {
	var all []*ABI
	for i := range abis {
		all = append(all, &abis[i])
	}
	return all
}

// Default returns the ABI of 64-bit programs.
func Default() *ABI { return &abis[0] }

// OnEachABI runs f as a subtest for each ABI.
func OnEachABI(t *testing.T, f func(t *testing.T, a *ABI)) {
	t.Helper()
	for _, a := range ABIs() {
		t.Run(a.Name, func(t *testing.T) { f(t, a) })
	}
}

// Size returns the size of struct clone4_args.
func (a *ABI) Size() uintptr {
	if a.Word == 4 {
		return linux.SizeOfCompatClone4Args
	}
	return linux.SizeOfClone4Args
}

// FDSize returns the size of struct clone4_args with the fields of CLONE_FD.
func (a *ABI) FDSize() uintptr {
	if a.Word == 4 {
		return linux.SizeOfCompatClone4FDArgs
	}
	return linux.SizeOfClone4FDArgs
}

// Truncate returns v cut to the size of a word.
func (a *ABI) Truncate(v uint64) uint64 {
	if a.Word == 4 {
		return uint64(uint32(v))
	}
	return v
}

// Encode returns the args struct as the ABI passes it.
func (a *ABI) Encode(args linux.Clone4Args) []byte {
	return a.words(args.Ptid, args.Ctid, args.StackStart, args.StackSize, args.TLS)
}

// EncodeFD returns the args struct with the fields of CLONE_FD.
func (a *ABI) EncodeFD(args linux.Clone4FDArgs) []byte {
	return append(a.Encode(args.Clone4Args), a.words(args.Clonefd, uint64(args.ClonefdFlags))...)
}

func (a *ABI) words(values ...uint64) []byte {
	var buf []byte
	for _, v := range values {
		if a.Word == 4 {
			buf = binary.LittleEndian.AppendUint32(buf, uint32(v))
		} else {
			buf = binary.LittleEndian.AppendUint64(buf, v)
		}
	}
	return buf
}

// Decode is the inverse of Encode. Bytes that buf lacks are 0.
func (a *ABI) Decode(buf []byte) linux.Clone4Args {
	buf = append(make([]byte, 0, a.Size()), buf...)[:a.Size()]
	field := func(i int) uint64 {
		if a.Word == 4 {
			return uint64(binary.LittleEndian.Uint32(buf[4*i:]))
		}
		return binary.LittleEndian.Uint64(buf[8*i:])
	}
	return linux.Clone4Args{Ptid: field(0), Ctid: field(1), StackStart: field(2), StackSize: field(3), TLS: field(4)}
}

// Put copies an encoded struct into the shared memory of l, and returns the copy.
func Put(l *rawclone.List, encoded []byte) []byte {
	buf := l.Program().Buffer(len(encoded))
	copy(buf, encoded)
	return buf
}

// Op returns a call of clone4 with any size and pointer. The child continues in child.
func (a *ABI) Op(flags uint64, size, ptr uintptr, child *rawclone.List) rawclone.Op {
	return rawclone.Op{
		Trap: a.Number, Entry: a.Entry, Child: child.First(),
		Args: [6]uintptr{uintptr(flags >> 32), uintptr(uint32(flags)), size, ptr},
	}
}

// Clone4 appends to l a call with a whole struct. The child continues in child.
func (a *ABI) Clone4(l *rawclone.List, flags uint64, args linux.Clone4Args, child *rawclone.List) *rawclone.Op {
	return a.Clone4Raw(l, flags, a.Size(), rawclone.AddrOf(Put(l, a.Encode(args))), child)
}

// Clone4Raw appends to l a call with any size and pointer. The child continues in child.
func (a *ABI) Clone4Raw(l *rawclone.List, flags uint64, size, ptr uintptr, child *rawclone.List) *rawclone.Op {
	return l.Append(a.Op(flags, size, ptr, child))
}

// NoFD marks a word to which the kernel has not written a descriptor. A descriptor has 4
// bytes, so the kernel must not change the upper half of the word.
const NoFD uintptr = 0x5a5a5a5a00000000 | 0xdeadbeef

// Clone4FD appends to l a call with the struct of level fd. If args.Clonefd is 0, the kernel
// writes the descriptor to the low half of fd, which is NoFD before the call.
func (a *ABI) Clone4FD(l *rawclone.List, flags uint64, args linux.Clone4FDArgs, child *rawclone.List) (call *rawclone.Op, fd *uintptr) {
	fd = l.Program().Word()
	*fd = NoFD
	if args.Clonefd == 0 {
		args.Clonefd = uint64(rawclone.Addr(fd))
	}
	return a.Clone4Raw(l, flags, a.FDSize(), rawclone.AddrOf(Put(l, a.EncodeFD(args))), child), fd
}

// LoadFD appends to l an operation whose result is the descriptor in fd, which Clone4FD has
// returned. System calls use only the low half of the word.
func LoadFD(l *rawclone.List, fd *uintptr) *rawclone.Op {
	return l.Sys(rawclone.TrapLoad, fd)
}
