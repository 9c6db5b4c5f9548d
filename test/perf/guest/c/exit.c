/* SPDX-License-Identifier: Apache-2.0 */

/*
 * exit is the program that the guest of test/perf spawns. It exits at once.
 * It has no C library, because the start of a C library would add to the time of a spawn.
 */

__attribute__((noreturn)) void _start(void)
{
#if defined(__x86_64__)
	__asm__ __volatile__("syscall" : : "a"(60L), "D"(0L));
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = 93;
	register long x0 __asm__("x0") = 0;
	__asm__ __volatile__("svc #0" : : "r"(x8), "r"(x0));
#endif
	__builtin_unreachable();
}
