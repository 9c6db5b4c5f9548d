// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"golang.org/x/sys/unix"

	"runsc-ext/abi/linux"
	"runsc-ext/test/kit"
)

// call is a call of clone4 and its caller. It has no addresses, because they differ from run to
// run.
type call struct {
	abi    *kit.ABI
	caller caller
	uid    int         // of the caller: 0 or ordinaryUID
	exits  unix.Signal // the caller's own exit signal
	number uint64      // the upper half of the register with the number
	upper  uint64      // the upper halves of the registers with the flags
	flags  uint64      // exit signal included
	size   uint64      // args_size
	args   place       // the struct
	beyond int         // atPageEnd: number of its bytes in the next page
	ptid   place       //
	ctid   place       //
	stack  string      // stack_start: a key of stacks
	length uint64      // stack_size
	tls    string      // a key of threadPointers
	end    end         // how the child exits
}

const ordinaryUID = 12345

// caller is the kind of task that makes the call. Its process is a child of a process that does
// nothing else.
type caller string

const (
	callerMain   caller = "main"   // the only thread of a process
	callerThread caller = "thread" // a process's second thread
	callerVfork  caller = "vfork"  // a child of CLONE_VM and CLONE_VFORK
	callerInit   caller = "init"   // the first process of a PID namespace
)

// end is the way in which a child exits.
type end string

const (
	endGroup end = "exit_group"
	endTask  end = "exit"
	endKill  end = "kill" // sends itself SIGKILL, and exits if that has no effect
	endExec  end = "exec" // executes a program that exits
)

// place is a place to which a pointer can point.
type place string

const (
	atPrivate    place = "private"    // memory that is copied without CLONE_VM
	atShared     place = "shared"     // memory that is always shared
	atUnaligned  place = "unaligned"  // private, at an odd address
	atPageEnd    place = "page-end"   // an unreadable page follows
	atStraddling place = "straddling" // half of it is in the unreadable page
	atReadOnly   place = "read-only"  // memory
	atUnreadable place = "unreadable" // memory
	atNull       place = "null"       //
	atLow        place = "low"        // the first page
	atUserEnd    place = "user-end"   // the first byte that is not user memory
	atKernel     place = "kernel"     //
	atNonCanon   place = "non-canon"  // neither
	atLast       place = "last"       // the last byte of all
	atGarbage    place = "upper-half" // shared, and something in the upper half
	atPtid       place = "ptid"       // ctid: where ptid points to
)

// badAddresses are the places with the same address in every process.
var badAddresses = map[place]uint64{
	atNull:     0,
	atLow:      1,
	atUserEnd:  0x7ffffffff000,
	atKernel:   0xffff800000000000,
	atNonCanon: 1 << 63,
	atLast:     1<<64 - 1,
}

var (
	argsPlaces = []place{atUnreadable, atNull, atLow, atUserEnd, atKernel, atNonCanon, atLast, atGarbage}
	tidPlaces  = []place{atUnaligned, atStraddling, atReadOnly, atUnreadable, atNull, atLow, atUserEnd, atKernel, atNonCanon, atLast}
)

// stacks are the values of stack_start; "given" is an address of private memory.
var stacks = map[string]uint64{"0": 0, "given": 0, "given+3": 3, "8": 8, "1": 1, "user-end": 0x7ffffffff000, "kernel": 0xffff800000000000, "non-canon": 1 << 63, "last": 1<<64 - 1}

// threadPointers are the values of tls; "given" is an address of private memory. Values between
// the largest user addresses of 4-level and 5-level page tables are left out, because their
// outcome depends on the machine.
var threadPointers = map[string]uint64{"0": 0, "given": 0, "12345": 12345, "4-levels": 1<<47 - 4097, "5-levels": 1<<56 - 4096, "2^56": 1 << 56, "non-canon": 1 << 63, "last": 1<<64 - 1}

// fixedTLS returns whether the outcome for tls is the same on each machine.
func fixedTLS(tls uint64) bool { return tls < 1<<47-4096 || tls >= 1<<56-4096 }

func pick[T any](rng *rand.Rand, from ...T) T { return from[rng.IntN(len(from))] }

// chance returns true in p of 100 cases.
func chance(rng *rand.Rand, p int) bool { return rng.IntN(100) < p }

// generate returns call i of a seed, over the first n ABIs.
func generate(seed uint64, i, n int) *call {
	rng := rand.New(rand.NewPCG(seed, uint64(i)))
	c := &call{
		abi:    kit.ABIs()[rng.IntN(n)],
		caller: pick(rng, callerMain, callerMain, callerThread, callerVfork, callerInit),
		exits:  pick(rng, unix.SIGCHLD, unix.SIGCHLD, unix.SIGCHLD, 0, unix.SIGUSR1),
	}
	if chance(rng, 20) {
		c.uid = ordinaryUID
	}
	if chance(rng, 5) {
		c.number = 0xdeadbeef << 32
	}
	if chance(rng, 5) {
		c.upper = 0xdeadbeef << 32
	}
	c.flags = generateFlags(rng)

	full := uint64(c.abi.Size())
	switch r := rng.IntN(100); {
	case r < 75:
		c.size = full
	case r < 92:
		c.size = rng.Uint64N(full + 1)
	default:
		c.size = pick(rng, full+1, linux.SizeOfClone4Args, 4096, 1<<31-1, 1<<31, 1<<32, 1<<32+8, 1<<63-1, 1<<63, 1<<64-1)
	}
	switch r := rng.IntN(100); {
	case r < 65:
		c.args = atShared
	case r < 85:
		c.args = atPageEnd
		if chance(rng, 30) {
			c.beyond = int(min(1+rng.Uint64N(full), c.effectiveSize()))
		}
	default:
		c.args = pick(rng, argsPlaces...)
	}
	tid := func() place {
		switch r := rng.IntN(100); {
		case r < 55:
			return atPrivate
		case r < 75:
			return atShared
		default:
			return pick(rng, tidPlaces...)
		}
	}
	c.ptid, c.ctid = tid(), tid()
	if chance(rng, 20) {
		c.ctid = atPtid
	}
	c.stack = pick(rng, "0", "0", "given", "given", "given", "given+3", "8", "1", "user-end", "kernel", "non-canon", "last")
	c.length = pick(rng, uint64(0), 0, 1, 4096, 1<<31, 1<<64-1)
	c.tls = pick(rng, "given", "given", "given", "0", "12345", "4-levels", "5-levels", "2^56", "non-canon", "last")
	if f := c.passed(linux.Clone4Args{TLS: threadPointers[c.tls]}); !fixedTLS(f.TLS) { // args_size cuts tls off
		c.tls = "12345"
	}
	c.end = pick(rng, endGroup, endGroup, endTask, endKill, endExec)
	if c.flags&linux.CLONE_THREAD != 0 {
		c.end = endTask // other ways end the caller too
	}
	if c.has(linux.CLONE_CHILD_CLEARTID) && c.flags&(linux.CLONE_THREAD|linux.CLONE_PARENT) != 0 {
		// The caller cannot wait for the child, so it waits until *ctid is cleared.
		if c.ctidPlace() == atUnaligned {
			c.ctid = atPrivate
		}
		if c.end == endKill || c.end == endExec {
			c.end = endGroup
		}
	}
	return c
}

func generateFlags(rng *rand.Rand) uint64 {
	var flags uint64
	each := func(of uint64, p int) {
		for bit := range 32 {
			if of&(1<<bit) != 0 && chance(rng, p) {
				flags ^= 1 << bit
			}
		}
	}
	switch rng.IntN(10) {
	case 0, 1: // like fork
	case 2:
		flags = linux.CLONE_VM | linux.CLONE_VFORK
	case 3, 4:
		flags = kit.ThreadFlags
	case 5:
		each(kit.NamespaceFlags, 40)
	case 6:
		flags = uint64(rng.Uint32())
	default:
		each(0xffffff00&^kit.NamespaceFlags&^kit.RefusedFlags, 30)
		each(kit.NamespaceFlags, 5)
	}
	each(linux.CLONE_SETTLS|linux.CLONE_PARENT_SETTID|linux.CLONE_CHILD_SETTID|linux.CLONE_CHILD_CLEARTID, 40)
	each(0xffffff00, 3)
	if chance(rng, 85) { // make the combination valid
		flags &^= kit.RefusedFlags
		if flags&linux.CLONE_THREAD != 0 {
			flags |= linux.CLONE_SIGHAND
			flags &^= linux.CLONE_NEWUSER | linux.CLONE_NEWPID
		}
		if flags&linux.CLONE_SIGHAND != 0 {
			flags |= linux.CLONE_VM
		}
		if flags&(linux.CLONE_NEWNS|linux.CLONE_NEWUSER) != 0 {
			flags &^= linux.CLONE_FS
		}
		if flags&linux.CLONE_NEWIPC != 0 {
			flags &^= linux.CLONE_SYSVSEM
		}
	} else if chance(rng, 30) {
		flags |= 1 << (32 + rng.IntN(32))
	}
	flags &^= linux.CSIGNAL
	switch r := rng.IntN(100); {
	case r < 50:
		return flags | uint64(unix.SIGCHLD)
	case r < 65:
		return flags
	}
	signal := rng.Uint64N(256)
	if signal == uint64(unix.SIGSTOP) || signal == uint64(unix.SIGKILL) {
		// The exit signal could stop or kill the caller at any moment, which is a race.
		signal = uint64(unix.SIGUSR2)
	}
	return flags | signal
}

// effectiveSize returns args_size cut to a word of the ABI.
func (c *call) effectiveSize() uint64 { return c.abi.Truncate(c.size) }

// passed returns the args that reach the kernel: cut to words of the ABI, and to args_size.
func (c *call) passed(args linux.Clone4Args) linux.Clone4Args {
	buf := c.abi.Encode(args)
	return c.abi.Decode(buf[:min(c.effectiveSize(), uint64(len(buf)))])
}

// has returns whether all of flags are set.
func (c *call) has(flags uint64) bool { return c.flags&flags == flags }

// signal returns the exit signal.
func (c *call) signal() uint64 { return c.flags & linux.CSIGNAL }

// ctidPlace returns the place to which ctid points.
func (c *call) ctidPlace() place {
	if c.ctid == atPtid {
		return c.ptid
	}
	return c.ctid
}

// String describes the call completely.
func (c *call) String() string {
	var b strings.Builder
	name := c.abi.Name
	if c.abi == kit.Default() {
		name = "64bit" // on each architecture
	}
	fmt.Fprintf(&b, "%s %s uid=%d exits=%d flags=%s signal=%d size=%#x@%s", name, c.caller, c.uid, c.exits, kit.FlagNames(c.flags), c.signal(), c.size, c.args)
	if c.beyond != 0 {
		fmt.Fprintf(&b, "+%d", c.beyond)
	}
	fmt.Fprintf(&b, " ptid=%s ctid=%s stack=%s/%#x tls=%s end=%s", c.ptid, c.ctid, c.stack, c.length, c.tls, c.end)
	if c.number != 0 {
		b.WriteString(" number-garbage")
	}
	if c.upper != 0 {
		b.WriteString(" flags-garbage")
	}
	return b.String()
}
