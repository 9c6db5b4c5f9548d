/* SPDX-License-Identifier: Apache-2.0 */

/*
 * guest runs the measurements of test/perf, in a sandbox or without one.
 *
 * Usage: guest PROGRAM, where PROGRAM is the path of the program exit.
 *
 * A line "NAME COUNT" on standard input, such as "process/clone3 100", asks for a
 * measurement. The line of a program has a command of the shell after COUNT. A measurement
 * has one or more phases. For each phase, the guest
 *	1. prints "ready PHASE" when the phase is prepared,
 *	2. reads a line, which starts the phase,
 *	3. prints how many nanoseconds the phase took.
 * After the last phase, the guest prints "done". If the kernel lacks the system call, the
 * guest prints only "unsupported". If a step fails, the guest prints "error" with a message,
 * and exits.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/clone4.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif
#define EXIT_SIGNAL 0xff

extern char **environ;

static const char *exit_program;
static char file_path[] = "/tmp/perf-guest-XXXXXX";

static _Noreturn void fail(const char *format, ...)
{
	va_list args;

	printf("error ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf(": %s\n", strerror(errno));
	fflush(stdout);
	unlink(file_path);
	_exit(1);
}

/*
 * Raw system calls leave errno and all other memory of the C library alone. Children that
 * share the parent's memory make only raw calls.
 *
 * On amd64, every call is a "mov $number, %eax" and the instruction SYSCALL, as in a function
 * of the C library such as getpid(). The systrap platform replaces this pair by a faster jump,
 * so the compiler must not put other instructions between the two.
 */
#define inline_always inline __attribute__((always_inline))

static inline_always long raw5(const long number, long a, long b, long c, long d, long e)
{
#if defined(__x86_64__)
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	long ret;

	__asm__ __volatile__("movl %1, %%eax\n\tsyscall" : "=&a"(ret) : "i"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
	return ret;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;

	__asm__ __volatile__("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
	return x0;
#endif
}

static inline_always long raw(const long number, long a, long b, long c, long d) { return raw5(number, a, b, c, d, 0); }

/*
 * raw_clone makes a call that creates a child. A child with its own stack takes the address
 * of a function from the stack, and calls the function. Any other child has a copy of the
 * memory, and raw_clone returns 0 in it.
 */
static inline_always long raw_clone(const long number, long a, long b, long c, long d, int own_stack)
{
#if defined(__x86_64__)
	register long r10 __asm__("r10") = d;
	long ret;

	if (!own_stack)
		return raw(number, a, b, c, d);
	__asm__ __volatile__(
		"movl %1, %%eax\n\t"
		"syscall\n\t"
		"testl %%eax, %%eax\n\t"
		"jnz 1f\n\t"
		"xorl %%ebp, %%ebp\n\t"
		"popq %%rax\n\t"
		"callq *%%rax\n\t"
		"1:"
		: "=&a"(ret) : "i"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
	return ret;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;

	if (!own_stack)
		return raw(number, a, b, c, d);
	__asm__ __volatile__(
		"svc #0\n\t"
		"cbnz x0, 1f\n\t"
		"mov x29, xzr\n\t"
		"ldr x1, [sp], #16\n\t"
		"blr x1\n\t"
		"1:"
		: "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
	return x0;
#endif
}

#if defined(__x86_64__)
/* int80_clone is raw_clone through the i386 ABI. */
static inline long int80_clone(long number, long a, long b, long c, long d, int own_stack)
{
	long ret;

	if (!own_stack) {
		__asm__ __volatile__("int $0x80" : "=a"(ret) : "0"(number), "b"(a), "c"(b), "d"(c), "S"(d) : "r8", "r9", "r10", "r11", "memory");
	} else {
		__asm__ __volatile__(
			"int $0x80\n\t"
			"testl %%eax, %%eax\n\t"
			"jnz 1f\n\t"
			"xorl %%ebp, %%ebp\n\t"
			"popq %%rax\n\t"
			"callq *%%rax\n\t"
			"1:"
			: "=a"(ret) : "0"(number), "b"(a), "c"(b), "d"(c), "S"(d) : "r8", "r9", "r10", "r11", "memory");
	}
	return (int)ret;
}
#endif

enum method { FORK, CLONE3, CLONE4, CLONE4_X32, CLONE4_I386, NO_METHOD };
static const char *const methods[] = { "fork", "clone3", "clone4", "clone4-x32", "clone4-i386", "no method" };

/* child describes a child to create. The description is the same for all methods. */
struct child {
	unsigned long flags; /* with the exit signal in the low byte */
	int *ptid, *ctid;
	void *tls;
	int *fd; /* receives the descriptor of CLONE_FD or CLONE_PIDFD */
	void *stack; /* lowest address, or NULL for a child with a copy of the memory */
	size_t stack_size;
	void (*run)(void); /* what the child calls on the stack */
};

struct compat_args {
	uint32_t ptid, ctid, stack_start, stack_size, tls, clonefd, clonefd_flags;
};

/*
 * create creates a child. It returns the child's ID, or -errno. In a child without its own
 * stack, create returns 0.
 */
static inline_always long create(enum method m, const struct child *c)
{
	uintptr_t top = 0;

	if (c->stack) {
		top = ((uintptr_t)c->stack + c->stack_size) & ~(uintptr_t)15;
#if defined(__x86_64__)
		top -= sizeof(c->run); /* the child pops run, and its stack is then aligned to 16 bytes */
#else
		top -= 16;
#endif
		*(void (**)(void))top = c->run;
	}
	switch (m) {
	case FORK:
#ifdef SYS_fork
		return raw(SYS_fork, 0, 0, 0, 0);
#else
		return raw(SYS_clone, SIGCHLD, 0, 0, 0);
#endif
	case CLONE3: {
		struct clone_args args = {
			.flags = c->flags & ~(unsigned long)EXIT_SIGNAL,
			.exit_signal = c->flags & EXIT_SIGNAL,
			.pidfd = (uintptr_t)c->fd,
			.parent_tid = (uintptr_t)c->ptid,
			.child_tid = (uintptr_t)c->ctid,
			.tls = (uintptr_t)c->tls,
			.stack = (uintptr_t)c->stack,
			.stack_size = top ? top - (uintptr_t)c->stack : 0,
		};
		return raw_clone(SYS_clone3, (long)&args, sizeof(args), 0, 0, top != 0);
	}
	case CLONE4: {
		struct clone4_fd_args args = {
			.args = { .ptid = c->ptid, .ctid = c->ctid, .stack_start = top, .tls = (uintptr_t)c->tls },
			.clonefd = c->fd,
		};
		return raw_clone(SYS_clone4, 0, c->flags, c->fd ? sizeof(args) : sizeof(args.args), (long)&args, top != 0);
	}
#if defined(__x86_64__)
	case CLONE4_X32:
	case CLONE4_I386: {
		static struct compat_args args; /* static, so that the address has 32 bits */
		args = (struct compat_args){
			.ptid = (uintptr_t)c->ptid, .ctid = (uintptr_t)c->ctid, .stack_start = top, .tls = (uintptr_t)c->tls,
		};
		if (m == CLONE4_X32)
			return raw_clone(0x40000000 + 546, 0, c->flags, 20, (long)&args, top != 0);
		return int80_clone(359, 0, c->flags, 20, (long)&args, top != 0);
	}
#endif
	default:
		return -ENOSYS;
	}
}

static enum method find_method(const char *name)
{
	for (int m = FORK; m < NO_METHOD; m++)
		if (strcmp(name, methods[m]) == 0)
			return m;
	return NO_METHOD;
}

/*
 * have returns whether the kernel has a method. Released kernels have other calls at the
 * numbers of clone4, so clone4_available finds out whether the kernel's call is clone4.
 */
static int have(enum method m)
{
	return m == FORK || m == CLONE3 || (m != NO_METHOD && clone4_available());
}

static void say(const char *line)
{
	puts(line);
	fflush(stdout);
}

static struct timespec started;

/* begin reports that a phase is prepared, and waits for the line that starts the phase. */
static void begin(const char *phase)
{
	char line[64];

	printf("ready %s\n", phase);
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		fail("standard input ended before the start of phase %s", phase);
	clock_gettime(CLOCK_MONOTONIC, &started);
}

/* end prints how long the phase took. */
static void end(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	printf("%lld\n", (now.tv_sec - started.tv_sec) * 1000000000LL + now.tv_nsec - started.tv_nsec);
	fflush(stdout);
}

static long check(long ret, const char *what)
{
	if (ret < 0) {
		errno = -ret;
		fail("%s", what);
	}
	return ret;
}

static void wait_for(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, __WALL) != pid)
		fail("waitpid %d", pid);
	if (status != 0) {
		errno = 0;
		fail("a child has wait status %#x, want 0", status);
	}
}

/* Children that share the parent's memory run these functions. */

static void run_exit(void) { raw(SYS_exit, 0, 0, 0, 0); }

static void run_pause(void)
{
	for (;;)
		raw(SYS_ppoll, 0, 0, 0, 0);
}

static const char *child_argv[2];

static void run_exec(void)
{
	raw(SYS_execve, (long)exit_program, (long)child_argv, (long)environ, 0);
	raw(SYS_exit, 127, 0, 0, 0);
}

static char stack[16 << 10] __attribute__((aligned(16)));

/* life creates a process with a copy of the memory, which exits, and waits for the process. */
static void life(enum method m)
{
	const struct child c = { .flags = SIGCHLD };
	long pid = create(m, &c);

	if (pid == 0)
		_exit(0);
	wait_for(check(pid, methods[m]));
}

static void process(enum method m, int n)
{
	life(m);
	begin("");
	for (int i = 0; i < n; i++)
		life(m);
	end();
}

/*
 * spawn measures processes that execute a program. Until execve, such a process shares the
 * parent's memory, and the parent waits (CLONE_VM and CLONE_VFORK).
 */
static void spawn(enum method m, int n)
{
	const struct child c = { .flags = CLONE_VM | CLONE_VFORK | SIGCHLD, .stack = stack, .stack_size = sizeof(stack), .run = run_exec };

	wait_for(check(create(m, &c), methods[m]));
	begin("");
	for (int i = 0; i < n; i++)
		wait_for(check(create(m, &c), methods[m]));
	end();
}

/* spawn_library measures posix_spawn of the C library. */
static void spawn_library(int n)
{
	for (int i = -1; i < n; i++) {
		pid_t pid;

		if (i == 0)
			begin("");
		errno = posix_spawn(&pid, exit_program, NULL, NULL, (char **)child_argv, environ);
		if (errno != 0)
			fail("posix_spawn");
		wait_for(pid);
	}
	end();
}

/* join waits until the kernel clears tid at the exit of a thread (CLONE_CHILD_CLEARTID). */
static void join(int *tid)
{
	int value;

	while ((value = __atomic_load_n(tid, __ATOMIC_ACQUIRE)) != 0)
		raw(SYS_futex, (long)tid, FUTEX_WAIT, value, 0);
}

/* start_thread creates a thread with the flags of a C library and with its own TLS. */
static void start_thread(enum method m, void *stack, size_t size, int *tid, void (*run)(void))
{
	static char tls[64] __attribute__((aligned(16)));
	const struct child c = {
		.flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
			 CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID,
		.ptid = tid, .ctid = tid, .tls = tls, .stack = stack, .stack_size = size, .run = run,
	};

	check(create(m, &c), methods[m]);
}

static void thread(enum method m, int n)
{
	static int tid;

	for (int i = -1; i < n; i++) {
		if (i == 0)
			begin("");
		start_thread(m, stack, sizeof(stack), &tid, run_exit);
		join(&tid);
	}
	end();
}

static void *return_null(void *arg) { return arg; }

static void thread_library(int n)
{
	for (int i = -1; i < n; i++) {
		pthread_t t;

		if (i == 0)
			begin("");
		errno = pthread_create(&t, NULL, return_null, NULL);
		if (errno != 0)
			fail("pthread_create");
		pthread_join(t, NULL);
	}
	end();
}

#define MAX_THREADS 32
static struct {
	enum method method;
	unsigned long flags; /* clone flags of the children if they have descriptors, otherwise 0 */
	int each;	     /* number of children of each thread */
	int go;		     /* futex: 1 starts the threads */
	int errors;
} crowd;

/*
 * Each thread of the function threads runs run_creator, which creates children and waits for
 * them. These threads lack the TLS of the C library, so they make only raw calls.
 */
static void run_creator(void)
{
	while (!__atomic_load_n(&crowd.go, __ATOMIC_ACQUIRE))
		raw(SYS_futex, (long)&crowd.go, FUTEX_WAIT, 0, 0);
	for (int i = 0; i < crowd.each; i++) {
		int status = 0, fd = -1;
		siginfo_t info;
		struct child c = { .flags = SIGCHLD };
		long pid, ret;

		if (crowd.flags) {
			c.flags = crowd.flags;
			c.fd = &fd;
		}
		pid = create(crowd.method, &c);
		if (pid == 0)
			raw(SYS_exit_group, 0, 0, 0, 0);
		if (crowd.flags & CLONE_FD)
			ret = raw(SYS_read, fd, (long)&info, sizeof(struct clonefd_info), 0) - (long)sizeof(struct clonefd_info);
		else if (crowd.flags)
			ret = raw5(SYS_waitid, P_PIDFD, fd, (long)&info, WEXITED, 0);
		else
			ret = raw(SYS_wait4, pid, (long)&status, __WALL, 0) - pid;
		if (crowd.flags)
			raw(SYS_close, fd, 0, 0, 0);
		if (ret != 0 || status != 0)
			__atomic_fetch_add(&crowd.errors, 1, __ATOMIC_RELAXED);
	}
	raw(SYS_exit, 0, 0, 0, 0);
}

/* threads measures processes that several threads create at once. */
static void threads(int threads, enum method m, unsigned long flags, int n)
{
	static char stacks[MAX_THREADS][16 << 10] __attribute__((aligned(16)));
	static int tids[MAX_THREADS];

	crowd.method = m;
	crowd.flags = flags;
	crowd.each = n / threads;
	crowd.go = crowd.errors = 0;
	for (int i = 0; i < threads; i++)
		start_thread(CLONE3, stacks[i], sizeof(stacks[i]), &tids[i], run_creator);
	begin("");
	__atomic_store_n(&crowd.go, 1, __ATOMIC_RELEASE);
	raw(SYS_futex, (long)&crowd.go, FUTEX_WAKE, threads, 0);
	for (int i = 0; i < threads; i++)
		join(&tids[i]);
	end();
	if (crowd.errors) {
		errno = 0;
		fail("%d children could not be created or waited for", crowd.errors);
	}
}

/*
 * way is how a parent learns of a child's exit:
 *	wait	waitpid
 *	sigchld	a SIGCHLD handler, then waitpid
 *	pidfd	poll of a pidfd, then waitid
 *	waitid	waitid of a pidfd, without poll
 *	clonefd	poll of a descriptor of CLONE_FD, then clone4_fd_read
 *	read	clone4_fd_read of a descriptor of CLONE_FD, without poll
 */
enum way { WAIT, SIGCHLD_HANDLER, PIDFD, PIDFD_WAITID, CLONEFD, CLONEFD_READ, NO_WAY };
static const char *const ways[] = { "wait", "sigchld", "pidfd", "waitid", "clonefd", "read", "no way" };

static enum way find_way(const char *name)
{
	for (int w = WAIT; w < NO_WAY; w++)
		if (strcmp(name, ways[w]) == 0)
			return w;
	return NO_WAY;
}

/* create_followed creates child c, with the flags and the descriptor that way w needs. */
static inline_always long create_followed(enum way w, struct child c, int *fd)
{
	switch (w) {
	case PIDFD:
	case PIDFD_WAITID:
		c.flags |= CLONE_PIDFD;
		c.fd = fd;
		return create(CLONE3, &c);
	case CLONEFD:
	case CLONEFD_READ:
		c.flags = (c.flags & ~(unsigned long)EXIT_SIGNAL) | CLONE_FD | CLONE_AUTOREAP;
		c.fd = fd;
		return create(CLONE4, &c);
	default:
		return create(CLONE3, &c);
	}
}

/* collect reads the exit status from a descriptor, checks the status, and closes the descriptor. */
static void collect(enum way w, int fd, int code, int status)
{
	if (w == CLONEFD || w == CLONEFD_READ) {
		struct clonefd_info info;

		if (clone4_fd_read(fd, &info) != sizeof(info) || info.code != code || info.status != status)
			fail("read from a descriptor of CLONE_FD failed, or the status is wrong");
	} else {
		siginfo_t info;

		if (waitid(P_PIDFD, fd, &info, WEXITED | __WALL) != 0 || info.si_code != code || info.si_status != status)
			fail("waitid of a pidfd failed, or the status is wrong");
	}
	close(fd);
}

static volatile sig_atomic_t signalled;

static void on_sigchld(int signal) { signalled = signal; }

/* follow creates child c, and waits in way w for the exit of the child. */
static void follow(enum way w, struct child c)
{
	struct pollfd p = { .fd = -1, .events = POLLIN };
	sigset_t none;
	long pid = create_followed(w, c, &p.fd);

	if (pid == 0)
		_exit(0);
	check(pid, ways[w]);
	switch (w) {
	case SIGCHLD_HANDLER:
		sigemptyset(&none);
		while (!signalled)
			sigsuspend(&none);
		signalled = 0;
		/* fallthrough */
	case WAIT:
		wait_for(pid);
		break;
	case PIDFD:
	case CLONEFD:
		if (poll(&p, 1, -1) != 1)
			fail("poll");
		/* fallthrough */
	default:
		collect(w, p.fd, CLD_EXITED, 0);
	}
}

/*
 * ends measures way w of learning of a child's exit. The kind of child is "fork" (with a copy
 * of the memory), "spawn" (executes a program) or "vm" (shares the memory, and only exits).
 */
static void ends(const char *kind, enum way w, int n)
{
	struct child c = { .flags = SIGCHLD };
	sigset_t sigchld, before;

	if (strcmp(kind, "fork") != 0) {
		c = (struct child){ .flags = CLONE_VM | SIGCHLD, .stack = stack, .stack_size = sizeof(stack), .run = run_exit };
		if (strcmp(kind, "spawn") == 0) {
			c.flags |= CLONE_VFORK;
			c.run = run_exec;
		}
	}
	if (w == SIGCHLD_HANDLER) {
		const struct sigaction action = { .sa_handler = on_sigchld, .sa_flags = SA_RESTART };

		sigemptyset(&sigchld);
		sigaddset(&sigchld, SIGCHLD);
		sigprocmask(SIG_BLOCK, &sigchld, &before);
		sigaction(SIGCHLD, &action, NULL);
	}
	for (int i = 0; i <= n / 4; i++)
		follow(w, c);
	begin("");
	for (int i = 0; i < n; i++)
		follow(w, c);
	end();
	if (w == SIGCHLD_HANDLER) {
		signal(SIGCHLD, SIG_DFL);
		sigprocmask(SIG_SETMASK, &before, NULL);
	}
}

/*
 * Many live children need several creators. The children of one creator share an address
 * space, in which gVisor's systrap platform has room for 4,095 tasks. A creator exits once it
 * has created its children.
 *
 * All children share one table of descriptors. A copy of the table for each child would take
 * more time with every further child.
 */
#define PER_CREATOR 500
#define MAX_CHILDREN 10000

static struct {
	int n;
	pid_t pids[MAX_CHILDREN];
	int fds[MAX_CHILDREN];
	int errors;
} *many;

static char small_stacks[PER_CREATOR][256] __attribute__((aligned(16)));

/* creators creates n children, which call run. They have the descriptors that way w needs. */
static void creators(enum way w, int n, void (*run)(void))
{
	int first = 0;

	if (!many) {
		many = mmap(NULL, sizeof(*many), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (many == MAP_FAILED)
			fail("mmap");
	}
	for (many->n = n; first < n; first += PER_CREATOR) {
		/* The creator has no exit signal, so its children with CLONE_PARENT have none either. */
		const struct child creator = { .flags = CLONE_FILES };
		const int each = n - first < PER_CREATOR ? n - first : PER_CREATOR;
		long pid = create(CLONE3, &creator);

		if (pid == 0) {
			for (int i = 0; i < each; i++) {
				const struct child c = {
					.flags = CLONE_VM | CLONE_FILES | CLONE_PARENT,
					.stack = small_stacks[i], .stack_size = sizeof(small_stacks[i]), .run = run,
				};
				long ret = create_followed(w, c, &many->fds[first + i]);

				if (ret < 0)
					many->errors = -ret;
				many->pids[first + i] = ret;
			}
			_exit(0);
		}
		wait_for(check(pid, "creating a creator"));
		if (many->errors) {
			errno = many->errors;
			fail("creating %d children", n);
		}
	}
}

/* kill_all kills all children: through their descriptors, or by ID if they have none. */
static void kill_all(enum way w)
{
	for (int i = 0; i < many->n; i++) {
		long ret;

		switch (w) {
		case CLONEFD:
			ret = write(many->fds[i], &(char){ SIGKILL }, 1) == 1 ? 0 : -1;
			break;
		case PIDFD:
			ret = syscall(SYS_pidfd_send_signal, many->fds[i], SIGKILL, NULL, 0);
			break;
		default:
			ret = kill(many->pids[i], SIGKILL);
		}
		if (ret != 0)
			fail("killing a child");
	}
}

/* wait_for_all gets the exit status of all children: as epoll reports them, or in turn if epoll is -1. */
static void wait_for_all(enum way w, int epoll)
{
	struct epoll_event events[100];

	if (w == WAIT) {
		for (int i = 0; i < many->n; i++)
			if (waitpid(many->pids[i], NULL, __WALL) != many->pids[i])
				fail("waitpid");
	} else if (epoll < 0) {
		for (int i = 0; i < many->n; i++) {
			struct pollfd p = { .fd = many->fds[i], .events = POLLIN };

			if (poll(&p, 1, -1) != 1)
				fail("poll");
			collect(w, many->fds[i], CLD_KILLED, SIGKILL);
		}
	} else {
		for (int left = many->n; left > 0;) {
			int got = epoll_wait(epoll, events, 100, 20000);

			if (got <= 0)
				fail("epoll_wait, with %d children left", left);
			for (int i = 0; i < got; i++)
				collect(w, events[i].data.fd, CLD_KILLED, SIGKILL);
			left -= got;
		}
	}
}

/* crowd_of measures n children that live at once. Its phases create, kill and collect all children. */
static void crowd_of(enum way w, int in_epoll, int n)
{
	int epoll = -1;

	begin("create");
	creators(w, n, run_pause);
	end();
	if (in_epoll) {
		epoll = epoll_create1(EPOLL_CLOEXEC);
		begin("add");
		for (int i = 0; i < n; i++) {
			struct epoll_event e = { .events = EPOLLIN, .data.fd = many->fds[i] };

			if (epoll_ctl(epoll, EPOLL_CTL_ADD, many->fds[i], &e) != 0)
				fail("epoll_ctl");
		}
		end();
	}
	begin("kill");
	kill_all(w);
	end();
	begin("collect");
	wait_for_all(w, epoll);
	end();
	if (epoll >= 0)
		close(epoll);
}

/*
 * live measures one child at a time, followed by way w, while other children live. The
 * other children have the descriptors that way population needs.
 */
static void live(int others, enum way population, enum way w, int n)
{
	const struct child c = { .flags = CLONE_VM | CLONE_FILES | SIGCHLD, .stack = stack, .stack_size = sizeof(stack), .run = run_exit };

	creators(population, others, run_pause);
	for (int i = 0; i <= n / 4; i++)
		follow(w, c);
	begin("");
	for (int i = 0; i < n; i++)
		follow(w, c);
	end();
	kill_all(population);
	wait_for_all(population, -1);
}

/*
 * hold keeps n live children, or the descriptors of n exited children, while test/perf reads
 * the memory of the cgroup.
 */
static void hold(const char *what, int n)
{
	if (strcmp(what, "process") == 0) {
		const struct child c = { .flags = SIGCHLD };

		creators(WAIT, 0, run_pause); /* creates no child, but maps many */
		many->n = n;
		for (int i = 0; i < n; i++) {
			long pid = create(CLONE3, &c);

			if (pid == 0)
				run_pause();
			many->pids[i] = check(pid, "clone3");
		}
		begin("");
		end();
		kill_all(WAIT);
		wait_for_all(WAIT, -1);
		return;
	}
	if (strcmp(what, "exited-clonefd") == 0 || strcmp(what, "exited-pidfd") == 0) {
		const enum way w = find_way(what + strlen("exited-"));

		creators(w, n, run_exit);
		for (int i = 0; i < n; i++) {
			struct pollfd p = { .fd = many->fds[i], .events = POLLIN };

			if (poll(&p, 1, -1) != 1)
				fail("poll");
			if (w == PIDFD)
				waitpid(many->pids[i], NULL, __WALL);
		}
		begin("");
		end();
		for (int i = 0; i < n; i++)
			close(many->fds[i]);
		return;
	}
	creators(find_way(what), n, run_pause);
	begin("");
	end();
	kill_all(find_way(what));
	wait_for_all(find_way(what), -1);
}

/*
 * call measures calls that create no child: getpid, and calls that fail at their first check.
 *
 * On released kernels, the numbers of clone4 belong to other calls, which refuse the arguments
 * too. The lower flags of clone4 are 0, because the sentry handles CLONE_VFORK through x32 and
 * i386 in a slower way.
 */
static void call(const char *what, int n)
{
	const long bad = -1, large = 1L << 62, compat_large = 1L << 31;

#define MEASURE(name, call) \
	if (strcmp(what, name) == 0) { \
		/* systrap finds out whether to spin during the first calls. */ \
		for (int i = 0; i < n; i++) \
			call; \
		begin(""); \
		for (int i = 0; i < n; i++) \
			call; \
		end(); \
		return; \
	}
	MEASURE("getpid", raw(SYS_getpid, 0, 0, 0, 0))
	MEASURE("unknown", raw(1500, 0, 0, 0, 0))
	MEASURE("clone3", raw(SYS_clone3, 0, 1 /* a size that is too small */, 0, 0))
	MEASURE("clone4", raw(SYS_clone4, bad, 0, large, 0))
#if defined(__x86_64__)
	MEASURE("clone4-x32", raw(0x40000000 + 546, bad, 0, compat_large, 0))
	MEASURE("clone4-i386", int80_clone(359, bad, 0, compat_large, 0, 0))
#endif
#undef MEASURE
	errno = EINVAL;
	fail("%s", what);
}

/* pipes measures one byte through a pipe: to another process and back, or to itself. */
static void pipes(const char *what, int n)
{
	int there[2], back[2];
	char byte = 0;
	pid_t pid = 0;

	if (pipe(there) != 0 || pipe(back) != 0)
		fail("pipe");
	if (strcmp(what, "round-trip") == 0) {
		pid = fork();
		if (pid == 0) {
			close(there[1]);
			while (read(there[0], &byte, 1) == 1)
				if (write(back[1], &byte, 1) != 1)
					_exit(1);
			_exit(0);
		}
	} else {
		back[0] = dup(there[0]);
	}
	for (int i = -1; i < n; i++) {
		if (i == 0)
			begin("");
		if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
			fail("write to or read from a pipe");
	}
	end();
	close(there[1]);
	close(there[0]);
	close(back[0]);
	close(back[1]);
	if (pid)
		wait_for(pid);
}

/* files measures file operations: stat, open and close, read, write, or mmap of a page. */
static void files(const char *what, int n)
{
	static char page[4096];
	struct stat st;
	int fd = open(file_path, O_RDWR);

	if (fd < 0 || pwrite(fd, page, sizeof(page), 0) != sizeof(page))
		fail("cannot open or write %s", file_path);
	begin("");
	for (int i = 0; i < n; i++) {
		long ret = 0;

		if (strcmp(what, "open-close") == 0) {
			int other = open(file_path, O_RDONLY);

			ret = other < 0 ? -1 : close(other);
		} else if (strcmp(what, "stat") == 0) {
			ret = stat(file_path, &st);
		} else if (strcmp(what, "read") == 0) {
			ret = pread(fd, page, sizeof(page), 0);
		} else if (strcmp(what, "write") == 0) {
			ret = pwrite(fd, page, sizeof(page), 0);
		} else {
			char *p = mmap(NULL, sizeof(page), PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);

			if (p == MAP_FAILED)
				fail("mmap");
			*p = 1;
			ret = munmap(p, sizeof(page));
		}
		if (ret < 0)
			fail("file/%s", what);
	}
	end();
	close(fd);
}

/* program measures a command line of the shell. */
static void program(char *command)
{
	char *argv[] = { "sh", "-c", command, NULL };
	int status;
	pid_t pid;

	begin("");
	errno = posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ);
	if (errno != 0 || waitpid(pid, &status, 0) != pid)
		fail("cannot run /bin/sh");
	end();
	if (status != 0) {
		errno = 0;
		fail("%s: wait status %#x", command, status);
	}
}

/* measure answers one line of standard input. */
static void measure(char *line)
{
	char group[16], what[32], command[1024] = "";
	int number = 0, n;
	enum method m;

	errno = EINVAL;
	if (sscanf(line, "%15[a-z]-%d/%31[a-z0-9_-] %d", group, &number, what, &n) != 4 &&
	    sscanf(line, "%15[a-z]/%31[a-z0-9_-] %d %1023[^\n]", group, what, &n, command) < 3)
		fail("unknown measurement %s", line);
	m = find_method(what);
#define IS(name) (strcmp(group, name) == 0)
	if ((strstr(what, "clonefd") || (IS("end") && strstr(what, "-read"))) && !clone4_fd_available()) {
		say("unsupported");
		return;
	}
	if (IS("process") && have(m)) {
		process(m, n);
	} else if (IS("spawn") && strcmp(what, "posix_spawn") == 0) {
		spawn_library(n);
	} else if (IS("spawn") && m != FORK && have(m)) {
		spawn(m, n);
	} else if (IS("thread") && strcmp(what, "pthread") == 0) {
		thread_library(n);
	} else if (IS("thread") && m != FORK && have(m)) {
		thread(m, n);
	} else if (IS("threads") && number <= MAX_THREADS && have(m)) {
		threads(number, m, 0, n);
	} else if (IS("threads") && number <= MAX_THREADS && find_way(what) == PIDFD) {
		threads(number, CLONE3, CLONE_PIDFD | SIGCHLD, n);
	} else if (IS("threads") && number <= MAX_THREADS && find_way(what) == CLONEFD) {
		threads(number, CLONE4, CLONE_FD | CLONE_AUTOREAP, n);
	} else if (IS("end") || IS("many") || IS("live") || IS("hold")) {
		char *dash = strchr(what, '-');
		enum way w = NO_WAY;

		if (IS("hold")) {
			hold(what, n);
		} else if (IS("many")) {
			if (dash)
				*dash = 0;
			w = find_way(what);
			if (w != NO_WAY && number <= MAX_CHILDREN)
				crowd_of(w, dash != NULL, number);
		} else if (dash) {
			*dash = 0;
			w = find_way(dash + 1);
			if (w != NO_WAY && IS("end"))
				ends(what, w, n);
			else if (w != NO_WAY && number <= MAX_CHILDREN)
				live(number, find_way(what), w, n);
		}
		if (w == NO_WAY && !IS("hold"))
			fail("unknown measurement %s", line);
	} else if (IS("call") || IS("refused")) {
		call(what, n);
	} else if (IS("pipe")) {
		pipes(what, n);
	} else if (IS("file")) {
		files(what, n);
	} else if (IS("program")) {
		program(command);
	} else if (m != NO_METHOD) {
		say("unsupported");
		return;
	} else {
		fail("unknown measurement %s", line);
	}
	say("done");
}

int main(int argc, char **argv)
{
	char line[2048];
	int fd;

	if (argc != 2) {
		fprintf(stderr, "usage: guest PROGRAM\n");
		return 2;
	}
	exit_program = child_argv[0] = argv[1];
	fd = mkstemp(file_path);
	if (fd < 0)
		fail("mkstemp %s", file_path);
	close(fd);
	while (fgets(line, sizeof(line), stdin))
		measure(line);
	unlink(file_path);
	return 0;
}
