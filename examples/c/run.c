// SPDX-License-Identifier: Apache-2.0

/*
 * Runs commands at the same time, and prints how each exits. It has no signal handler
 * and no wait call, so a library can do the same in any program without touching the
 * program's own children and signals.
 *
 *	cc -O2 -I include -o run examples/c/run.c
 *	./run 'exit 3' 'kill $$' true
 *
 * Needs a sandbox with clone4 at level "fd".
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* CLD_EXITED with gnu89 */
#endif
#include <linux/clone4.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef SYS_clone4
#error "this architecture has no clone4"
#endif

enum { MAX = 64 };

/* The library: run starts a command and returns a descriptor, or -1 with errno set. The
 * command sends no signal when it exits, and reaps itself. */
static int run(const char *command)
{
	struct clone4_fd_args args;
	int fd;
	pid_t pid;

	memset(&args, 0, sizeof(args));
	args.clonefd = &fd;
	args.clonefd_flags = O_CLOEXEC;
	pid = clone4(CLONE_FD | CLONE_AUTOREAP, &args.args, sizeof(args));
	if (pid == 0) {
		execl("/bin/sh", "sh", "-c", command, (char *)NULL);
		_exit(127);
	}
	return pid < 0 ? -1 : fd;
}

int main(int argc, char **argv)
{
	struct pollfd fds[MAX];
	struct clonefd_info info;
	int i, running = argc - 1;

	if (!clone4_fd_available()) {
		fprintf(stderr, "run: this kernel has no CLONE_FD\n");
		return 2;
	}
	if (running > MAX) {
		fprintf(stderr, "run: more than %d commands\n", MAX);
		return 2;
	}
	for (i = 0; i < running; i++) {
		fds[i].fd = run(argv[1 + i]);
		fds[i].events = POLLIN;
		if (fds[i].fd < 0) {
			perror("run: clone4");
			return 1;
		}
	}
	while (running) {
		if (poll(fds, (nfds_t)(argc - 1), -1) < 0 && errno != EINTR) {
			perror("run: poll");
			return 1;
		}
		for (i = 0; i < argc - 1; i++) {
			if (fds[i].fd < 0 || !(fds[i].revents & POLLIN))
				continue;
			if (clone4_fd_read(fds[i].fd, &info) != (ssize_t)sizeof(info)) {
				perror("run: clone4_fd_read");
				return 1;
			}
			printf("%s: %s %d\n", argv[1 + i], info.code == CLD_EXITED ? "exit status" : "signal", (int)info.status);
			close(fds[i].fd);
			fds[i].fd = -1; /* poll ignores it */
			running--;
		}
	}
	return 0;
}
