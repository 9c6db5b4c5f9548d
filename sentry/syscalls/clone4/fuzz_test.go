// SPDX-License-Identifier: Apache-2.0

package clone4

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"

	extlinux "runsc-ext/abi/linux"
)

// FuzzArgs compares the arguments that the handler decodes from registers and memory with those
// of a model, a second implementation of the patch.
func FuzzArgs(f *testing.F) { fuzzArgs(f, 8, modelArgs) }

// FuzzCompatArgs is FuzzArgs for x32 and i386.
func FuzzCompatArgs(f *testing.F) { fuzzArgs(f, 4, modelCompatArgs) }

// fuzzArgs fuzzes a caller's registers, and the memory mapped at memoryStart.
func fuzzArgs(f *testing.F, word int, model func(size, ptr uint64, mem *memory) (extlinux.Clone4Args, error)) {
	whole := make([]byte, 48)
	for i := range whole {
		whole[i] = byte(0xf1 + i)
	}
	for _, size := range []uint64{0, 1, 3, 4, 5, 8, 17, 19, 20, 21, 32, 39, 40, 41, 48, 1 << 31, 1 << 32, 1<<32 + 4, 1<<32 + 20, math.MaxInt64, 1 << 63, math.MaxUint64} {
		f.Add(uint64(0), uint64(17), size, uint64(memoryStart), whole)
		f.Add(uint64(1)<<32|1, uint64(17), size, uint64(memoryStart+8), whole)
	}
	for _, ptr := range []uint64{0, 1, memoryStart - 1, memoryStart + 47, memoryStart + 48, 1 << 32, 1 << 47, 1 << 63, math.MaxUint64} {
		f.Add(uint64(math.MaxUint64), uint64(math.MaxUint64), uint64(0), ptr, whole)
		f.Add(uint64(0), uint64(1)<<63, uint64(1), ptr, whole)
	}
	f.Add(uint64(0), uint64(17), uint64(20), uint64(memoryStart), bytes.Repeat([]byte{0xff}, 20)) // must not be sign-extended
	f.Add(uint64(0), uint64(17), uint64(40), uint64(memoryStart), whole[:39])
	f.Add(uint64(0), uint64(17), uint64(20), uint64(memoryStart), whole[:19])

	f.Fuzz(func(t *testing.T, flagsHigh, flagsLow, size, ptr uint64, mapped []byte) {
		args := arch.SyscallArguments{
			{Value: uintptr(flagsHigh)}, {Value: uintptr(flagsLow)}, {Value: uintptr(size)}, {Value: uintptr(ptr)},
			{Value: math.MaxUint64}, {Value: math.MaxUint64},
		}
		if got, want := cloneFlags(args), flagsHigh%(1<<32)*(1<<32)+flagsLow%(1<<32); got != want {
			t.Errorf("flags %#x, want %#x", got, want)
		}
		mem := &memory{mapped: mapped}
		var got extlinux.Clone4Args
		h := newHandler(LevelOn, word)
		buf, err := h.copyIn(mem, args)
		if err == nil {
			got = h.decode(buf).Clone4Args
		}
		want, wantErr := model(size, ptr, mem)
		if got != want || err != wantErr {
			t.Errorf("got %+v, %v, want %+v, %v", got, err, want, wantErr)
		}
		wantCopies := 1
		if size == 0 || word == 4 && uint32(size) == 0 || wantErr == linuxerr.EINVAL {
			wantCopies = 0
		}
		if mem.copies != wantCopies {
			t.Errorf("the struct was read %d times, want %d", mem.copies, wantCopies)
		}
	})
}

// modelArgs follows sys_clone4() in the patch up to do_fork().
func modelArgs(size, ptr uint64, mem *memory) (extlinux.Clone4Args, error) {
	var kargs extlinux.Clone4Args
	err := modelCopy(&kargs, size, ptr, mem)
	return kargs, err
}

// modelCompatArgs follows compat_sys_clone4(), where compat_ulong_t is a u32.
func modelCompatArgs(size, ptr uint64, mem *memory) (extlinux.Clone4Args, error) {
	var compat extlinux.CompatClone4Args
	err := modelCopy(&compat, size&math.MaxUint32, ptr, mem)
	return extlinux.Clone4Args{
		Ptid:       uint64(compat.Ptid),
		Ctid:       uint64(compat.Ctid),
		StackStart: uint64(compat.StackStart),
		StackSize:  uint64(compat.StackSize),
		TLS:        uint64(compat.TLS),
	}, err
}

// modelCopy fills the struct at v with the bytes that are passed, and zeros behind them.
func modelCopy(v any, size, ptr uint64, mem *memory) error {
	if size > uint64(binary.Size(v)) {
		return linuxerr.EINVAL
	}
	whole := make([]byte, binary.Size(v))
	for i := range whole[:size] {
		at := ptr + uint64(i)
		if at < memoryStart || at >= memoryStart+uint64(len(mem.mapped)) {
			return linuxerr.EFAULT
		}
		whole[i] = mem.mapped[at-memoryStart]
	}
	return binary.Read(bytes.NewReader(whole), binary.LittleEndian, v)
}

// memoryStart is where the memory of a caller starts.
const memoryStart = 0x10000

// memory is the memory of a caller, as a marshal.CopyContext. It counts the reads.
type memory struct {
	mapped []byte
	copies int
}

// CopyScratchBuffer implements marshal.CopyContext.CopyScratchBuffer. The buffer is not 0 at
// first, as a task's buffer has bytes from earlier calls.
func (m *memory) CopyScratchBuffer(size int) []byte {
	return bytes.Repeat([]byte{0xa5}, size)
}

// CopyOutBytes implements marshal.CopyContext.CopyOutBytes.
func (m *memory) CopyOutBytes(addr hostarch.Addr, b []byte) (int, error) {
	panic(fmt.Sprintf("%d bytes are written to the caller's memory", len(b)))
}

// CopyInBytes implements marshal.CopyContext.CopyInBytes. It copies the bytes before a fault.
func (m *memory) CopyInBytes(addr hostarch.Addr, b []byte) (int, error) {
	m.copies++
	n := 0
	if off := uint64(addr) - memoryStart; uint64(addr) >= memoryStart && off < uint64(len(m.mapped)) {
		n = copy(b, m.mapped[off:])
	}
	if n < len(b) {
		return n, linuxerr.EFAULT
	}
	return n, nil
}
