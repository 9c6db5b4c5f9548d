// SPDX-License-Identifier: Apache-2.0

#include "go_asm.h"
#include "textflag.h"

// SYSTEM_CALL makes the call at R12. The kernel preserves all registers but RAX, RCX
// and R11, also in the child that a call creates.
#define SYSTEM_CALL \
	MOVQ (call_args+0)(R12), DI \
	MOVQ (call_args+8)(R12), SI \
	MOVQ (call_args+16)(R12), DX \
	MOVQ (call_args+24)(R12), R10 \
	MOVQ (call_args+32)(R12), R8 \
	MOVQ (call_args+40)(R12), R9 \
	MOVQ call_trap(R12), AX \
	SYSCALL

// func vfork(calls *call) uintptr
TEXT ·vfork(SB), NOSPLIT, $0-16
	MOVQ  calls+0(FP), R12
	SYSTEM_CALL
	TESTQ AX, AX
	JEQ   child
	MOVQ  AX, ret+8(FP)
	RET

child: // must not use the stack, which is the parent's
	ADDQ $call__size, R12
	SYSTEM_CALL
	MOVQ AX, call_result(R12)
	JMP  child
