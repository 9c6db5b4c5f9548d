// SPDX-License-Identifier: Apache-2.0

#include "go_asm.h"
#include "textflag.h"

// SYSTEM_CALL makes the call at R19. The kernel preserves all registers but R0, also
// in the child that a call creates.
#define SYSTEM_CALL \
	MOVD (call_args+0)(R19), R0 \
	MOVD (call_args+8)(R19), R1 \
	MOVD (call_args+16)(R19), R2 \
	MOVD (call_args+24)(R19), R3 \
	MOVD (call_args+32)(R19), R4 \
	MOVD (call_args+40)(R19), R5 \
	MOVD call_trap(R19), R8 \
	SVC

// func vfork(calls *call) uintptr
TEXT ·vfork(SB), NOSPLIT|NOFRAME, $0-16
	MOVD calls+0(FP), R19
	SYSTEM_CALL
	CBZ  R0, child
	MOVD R0, ret+8(FP)
	RET

child: // must not use the stack, which is the parent's
	ADD  $call__size, R19
	SYSTEM_CALL
	MOVD R0, call_result(R19)
	B    child
