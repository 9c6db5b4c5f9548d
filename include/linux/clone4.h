/* SPDX-License-Identifier: Apache-2.0 */

/*
 * clone4 for C and C++: clone(2) with 64 flag bits, and with its other
 * arguments in a struct that can grow.
 *
 *	clone4_available()	does this kernel have clone4?
 *	clone4()		like fork: the child has a copy of the memory
 *	clone4_call()		the child runs a function on its own stack
 *	clone4_fd_available()	does this kernel have CLONE_FD and CLONE_AUTOREAP?
 *	clone4_fd_read()	waits for the exit of a child with CLONE_FD
 *
 * Only x86-64, x32, i386 and arm64 have the call. On other architectures this
 * header defines neither SYS_clone4 nor the functions: use #ifdef SYS_clone4.
 */
#ifndef _LINUX_CLONE4_H
#define _LINUX_CLONE4_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#ifndef __NR_clone4
# if defined(__x86_64__) && defined(__ILP32__)
#  define __NR_clone4 (0x40000000 + 546) /* __X32_SYSCALL_BIT + 546 */
# elif defined(__x86_64__)
#  define __NR_clone4 323
# elif defined(__i386__)
#  define __NR_clone4 359
# elif defined(__aarch64__) && defined(__LP64__)
#  define __NR_clone4 282
# endif
#endif

/*
 * clone4 refuses these flags with EINVAL. clone(2) ignores them, or gives their
 * bits another meaning today. All other flags are in <linux/sched.h>, and in
 * <sched.h> with _GNU_SOURCE. The lowest 8 bits of the flags are the signal
 * that the parent gets when the child exits.
 */
#ifndef CLONE_PID
#define CLONE_PID 0x00001000
#endif
#ifndef CLONE_DETACHED
#define CLONE_DETACHED 0x00400000
#endif
#ifndef CLONE_STOPPED
#define CLONE_STOPPED 0x02000000
#endif

/*
 * Set unused fields to 0. A field has the size of a word of the ABI: 4 bytes on
 * x32 and i386, 8 bytes on the others.
 */
struct clone4_args {
	pid_t *ptid;		   /* CLONE_PARENT_SETTID writes the child's ID here */
	pid_t *ctid;		   /* CLONE_CHILD_SETTID and _CLEARTID, in the child */
	unsigned long stack_start; /* the child's stack POINTER: the highest address of
				      the stack, not the lowest as for clone3.
				      0 is the parent's stack pointer */
	unsigned long stack_size;  /* accepted, not used */
	unsigned long tls;	   /* for CLONE_SETTLS */
};

/*
 * CLONE_FD gives the caller a descriptor from which the child's exit can be read.
 * CLONE_AUTOREAP makes the child reap itself. The flags have the bits of
 * CLONE_DETACHED and CLONE_PID, and are EINVAL unless clone4_fd_available().
 */
#ifndef CLONE_AUTOREAP
#define CLONE_AUTOREAP 0x00001000
#endif
#ifndef CLONE_FD
#define CLONE_FD 0x00400000
#endif

/* For clonefd_flags. O_CLOEXEC and O_NONBLOCK may replace the first two. */
#define CLONEFD_CLOEXEC 1
#define CLONEFD_NONBLOCK 2
#define CLONEFD_KILL_ON_CLOSE 4 /* closing the last reference kills the child */

/* For ioctl: the child's ID in the caller's PID namespace, or 0 once reaped. */
#define CLONEFD_IOC_GETTID 0x4301 /* _IO('C', 1) */
#define CLONEFD_IOC_GETPID 0x4302 /* _IO('C', 2) */

/* Pass &args.args and sizeof(args). */
struct clone4_fd_args {
	struct clone4_args args;
	int *clonefd; /* CLONE_FD writes the descriptor here */
	uint32_t clonefd_flags;
};

/* A read from the descriptor returns this, once, after the child has exited. */
struct clonefd_info {
	int32_t code;	/* CLD_EXITED, CLD_KILLED or CLD_DUMPED, of <signal.h> */
	int32_t status; /* exit status or signal */
	uint64_t utime; /* in microseconds */
	uint64_t stime;
};

#ifdef __NR_clone4

#ifndef SYS_clone4
#define SYS_clone4 __NR_clone4
#endif

/* Tells debuggers and exceptions that unwind the child's stack that it ends here. */
#ifdef __GCC_HAVE_DWARF2_CFI_ASM
#define __CLONE4_CHILD(pc, sp)				\
	".cfi_remember_state\n\t"			\
	".cfi_undefined " pc "\n\t"			\
	".cfi_def_cfa " sp ", 0\n\t"
#define __CLONE4_PARENT ".cfi_restore_state\n"
#else
#define __CLONE4_CHILD(pc, sp)
#define __CLONE4_PARENT
#endif

/*
 * A system call keeps only the lower 128 bits of Z0 to Z31, and clears the
 * predicate registers: see Documentation/arch/arm64/sve.rst in the source of Linux.
 */
#ifdef __ARM_FEATURE_SVE
#define __CLONE4_SVE	\
	, "p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9",		\
	"p10", "p11", "p12", "p13", "p14", "p15", "z0", "z1", "z2",		\
	"z3", "z4", "z5", "z6", "z7", "z8", "z9", "z10", "z11", "z12",		\
	"z13", "z14", "z15", "z16", "z17", "z18", "z19", "z20", "z21",		\
	"z22", "z23", "z24", "z25", "z26", "z27", "z28", "z29", "z30", "z31"
#else
#define __CLONE4_SVE
#endif

/*
 * __clone4 - make the system call, and return its result or -errno
 *
 * If fn is not NULL, the child calls fn(arg) and exits. The child finds fn and arg
 * in registers, which the kernel preserves. It cannot find them in memory: its own
 * stack is empty, and the parent's may be gone before the child runs.
 *
 * On x86-64, nothing is between the number and the call: gVisor's systrap platform
 * replaces such a pair of instructions by a jump, which is faster than a trap.
 */
static __inline__ long __clone4(uint64_t flags, struct clone4_args *args,
				size_t args_size, int (*fn)(void *), void *arg)
{
#if defined(__x86_64__)
	/* On x32, too, the kernel takes all 64 bits of a register. */
	register uint64_t r10 __asm__("r10") = (uintptr_t)args;
	register uint64_t r8 __asm__("r8") = (uintptr_t)arg;
	register uint64_t r9 __asm__("r9") = (uintptr_t)fn;
	long ret;

	__asm__ __volatile__(
		"movl %[number], %%eax\n\t"
		"syscall\n\t"
		"testl %%eax, %%eax\n\t"
		"jnz 1f\n\t"
		"testq %%r9, %%r9\n\t"
		"jz 1f\n\t"
		__CLONE4_CHILD("rip", "rsp")
		"xorl %%ebp, %%ebp\n\t"
		"andq $-16, %%rsp\n\t"
		"movq %%r8, %%rdi\n\t"
		"callq *%%r9\n\t"
		"movl %%eax, %%edi\n\t"
		"movl %[exit], %%eax\n\t"
		"syscall\n\t"
		__CLONE4_PARENT
		"1:"
		: "=&a"(ret)
		: [number] "i"(__NR_clone4), "D"(flags >> 32),
		  "S"(flags & 0xffffffff), "d"((uint64_t)args_size), "r"(r10),
		  "r"(r8), "r"(r9), [exit] "i"(SYS_exit)
		: "rcx", "r11", "cc", "memory");
	return ret;
#elif defined(__i386__)
	/* Only ebp is left for arg, and the compiler may need ebp. */
	const void *call[2];
	const void **edi = call;
	long ret;

	call[0] = (const void *)(uintptr_t)fn;
	call[1] = arg;
	__asm__ __volatile__(
		"pushl %%ebp\n\t"
		"movl 4(%%edi), %%ebp\n\t"
		"movl (%%edi), %%edi\n\t"
		"int $0x80\n\t"
		"testl %%eax, %%eax\n\t"
		"jnz 1f\n\t"
		"testl %%edi, %%edi\n\t"
		"jz 1f\n\t"
		__CLONE4_CHILD("eip", "esp")
		"andl $-16, %%esp\n\t"
		"subl $12, %%esp\n\t"
		"pushl %%ebp\n\t"
		"xorl %%ebp, %%ebp\n\t"
		"calll *%%edi\n\t"
		"movl %%eax, %%ebx\n\t"
		"movl %[exit], %%eax\n\t"
		"int $0x80\n\t"
		__CLONE4_PARENT
		"1:\n\t"
		"popl %%ebp"
		: "=a"(ret), "+D"(edi)
		: "0"((long)__NR_clone4), "b"((unsigned)(flags >> 32)),
		  "c"((unsigned)flags), "d"(args_size), "S"(args),
		  [exit] "i"(SYS_exit)
		: "cc", "memory");
	return ret;
#elif defined(__aarch64__)
	register uint64_t x0 __asm__("x0") = flags >> 32;
	register uint64_t x1 __asm__("x1") = (unsigned)flags;
	register uint64_t x2 __asm__("x2") = args_size;
	register uint64_t x3 __asm__("x3") = (uintptr_t)args;
	register uint64_t x4 __asm__("x4") = (uintptr_t)arg;
	register uint64_t x5 __asm__("x5") = (uintptr_t)fn;
	register uint64_t x8 __asm__("x8") = __NR_clone4;

	__asm__ __volatile__(
		"svc #0\n\t"
		"cbnz x0, 1f\n\t"
		"cbz x5, 1f\n\t"
		__CLONE4_CHILD("x30", "sp")
		"mov x29, xzr\n\t"
		"mov x6, sp\n\t"
		"and sp, x6, #-16\n\t"
		"mov x0, x4\n\t"
		"blr x5\n\t"
		"mov x8, %[exit]\n\t"
		"svc #0\n\t"
		__CLONE4_PARENT
		"1:"
		: "+r"(x0)
		: "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5), "r"(x8),
		  [exit] "i"(SYS_exit)
		: "cc", "memory" __CLONE4_SVE);
	return (long)x0;
#endif
}

/*
 * clone4_available - does this kernel have clone4?
 *
 * Returns 1 or 0, and does not change errno. Call it before the first clone4:
 * released kernels gave the numbers to userfaultfd(2), preadv2(2) and socket(2),
 * which may succeed with clone4's arguments.
 *
 * The arguments of this probe are invalid for all four calls. clone4 reads the
 * struct before it checks the flags, so it returns EFAULT. The other calls check
 * their first argument first, and return another error.
 */
static __inline__ int clone4_available(void)
{
	return __clone4(~(uint64_t)0, (struct clone4_args *)-1L,
			sizeof(unsigned long), NULL, NULL) == -EFAULT;
}

/*
 * clone4_fd_available - does this kernel have CLONE_FD and CLONE_AUTOREAP?
 *
 * Works as clone4_available() does: without the flags, the larger struct is EINVAL.
 */
static __inline__ int clone4_fd_available(void)
{
	return __clone4(~(uint64_t)0, (struct clone4_args *)-1L,
			sizeof(struct clone4_fd_args), NULL, NULL) == -EFAULT;
}

/*
 * clone4_fd_read - wait for the exit of a child with CLONE_FD
 *
 * Works as read(fd, info, sizeof(*info)) does. On x86-64, clone4_fd_read is not a
 * cancellation point. In gVisor's systrap platform, it is then faster than read(2) of
 * the C library, which sets the number with "xor %eax, %eax": see __clone4.
 */
static __inline__ ssize_t clone4_fd_read(int fd, struct clonefd_info *info)
{
#if defined(__x86_64__)
	long ret;

	__asm__ __volatile__(
		"movl %[number], %%eax\n\t"
		"syscall"
		: "=&a"(ret)
		: [number] "i"(SYS_read), "D"((uint64_t)fd),
		  "S"((uint64_t)(uintptr_t)info), "d"((uint64_t)sizeof(*info))
		: "rcx", "r11", "cc", "memory");
	if (ret < 0) {
		errno = (int)-ret;
		return -1;
	}
	return ret;
#else
	return read(fd, info, sizeof(*info));
#endif
}

/*
 * clone4 - create a child that continues from here, with a copy of the memory
 *
 * Returns the child's ID in the parent and 0 in the child, or -1 with errno set if
 * no child was created. args may be NULL if args_size is 0.
 *
 * Do not use it with CLONE_VM, even with CLONE_VFORK, or with a stack_start. The
 * child would return into frames that the parent still uses, or that are not on
 * the child's stack. Use clone4_call instead.
 */
static __inline__ pid_t clone4(uint64_t flags, struct clone4_args *args,
			       size_t args_size)
{
	long ret = __clone4(flags, args, args_size, NULL, NULL);

	if (ret < 0) {
		errno = (int)-ret;
		return -1;
	}
	return (pid_t)ret;
}

/*
 * clone4_call - create a child that calls fn(arg) on its own stack
 *
 * Returns the child's ID, or -1 with errno set if no child was created. The return
 * value of fn is the exit status of the child. With CLONE_THREAD, only the new
 * thread exits.
 *
 * args->stack_start is required, even for CLONE_VM|CLONE_VFORK: without it the call
 * fails with EINVAL. It is aligned down to 16 bytes. With CLONE_VM, keep the stack
 * until the child has exited.
 *
 * With CLONE_VM and without CLONE_SETTLS, the child shares errno and other
 * thread-local variables with the parent. Unless the parent waits (CLONE_VFORK),
 * fn must not call the C library.
 */
static __inline__ pid_t clone4_call(uint64_t flags, struct clone4_args *args,
				    size_t args_size, int (*fn)(void *),
				    void *arg)
{
	long ret = -EINVAL;

	if (fn && args && args_size >= offsetof(struct clone4_args, stack_size) &&
	    args->stack_start)
		ret = __clone4(flags, args, args_size, fn, arg);
	if (ret < 0) {
		errno = (int)-ret;
		return -1;
	}
	return (pid_t)ret;
}

#undef __CLONE4_CHILD
#undef __CLONE4_PARENT

#endif /* __NR_clone4 */

#endif /* _LINUX_CLONE4_H */
