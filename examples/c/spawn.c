// SPDX-License-Identifier: Apache-2.0

/*
 * Starts a worker with clone4. The worker is a process that shares this process's
 * memory, as a thread does, and has its own stack.
 *
 *	cc -O2 -I include -o spawn examples/c/spawn.c
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* clone, syscall */
#endif
#include <linux/clone4.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_clone4
#error "this architecture has no clone4"
#endif

struct job {
	int first, last;
	long sum;
};

/* The worker. It shares our thread-local variables, so it must not call the C library. */
static int work(void *arg)
{
	struct job *job = (struct job *)arg;
	int i;

	for (i = job->first; i <= job->last; i++)
		job->sum += i;
	return 0;
}

/* The kernel writes the worker's ID here. It clears the ID and wakes the waiter when
 * the worker no longer uses our memory, which includes the worker's stack. */
static pid_t running;

static void wait_until_done(void)
{
	pid_t tid;

	while ((tid = __atomic_load_n(&running, __ATOMIC_ACQUIRE)))
		syscall(SYS_futex, &running, FUTEX_WAIT, tid, NULL, NULL, 0);
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

int main(void)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE), size = 64 * 1024;
	const unsigned flags = CLONE_VM | CLONE_FS | CLONE_FILES |
			       CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD;
	struct job job = {1, 1000, 0};
	struct clone4_args args = {&running, &running, 0, 0, 0};
	const char *call;
	char *stack;
	pid_t pid;
	int status;

	/* The lowest page is inaccessible, so a stack overflow is SIGSEGV. */
	stack = (char *)mmap(NULL, page + size, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (stack == MAP_FAILED || mprotect(stack + page, size, PROT_READ | PROT_WRITE))
		fail("no memory for the worker's stack");
	args.stack_start = (unsigned long)(stack + page + size);
	args.stack_size = size;

	if (clone4_available()) {
		call = "clone4";
		pid = clone4_call(flags, &args, sizeof(args), work, &job);
	} else {
		call = "clone, as this kernel has no clone4";
		pid = clone(work, stack + page + size, flags, &job, &running, NULL, &running);
	}
	if (pid < 0)
		fail(call);

	wait_until_done();
	munmap(stack, page + size);
	if (waitpid(pid, &status, 0) != pid)
		fail("waitpid");
	if (!WIFEXITED(status) || WEXITSTATUS(status)) {
		fprintf(stderr, "the worker failed, wait status %#x\n", (unsigned)status);
		return 1;
	}
	printf("created by %s: the worker's sum of %d to %d is %ld\n", call, job.first,
	       job.last, job.sum);
	return 0;
}
