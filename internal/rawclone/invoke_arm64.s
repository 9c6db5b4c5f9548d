// SPDX-License-Identifier: Apache-2.0

#include "textflag.h"

// Offsets in Op.
#define TRAP  0
#define ARGS  8
#define DEREF 56
#define CHILD 72
#define RES   80
#define SIZE  88

// ARG loads argument i into reg, through memory if bit i of R20 is set.
#define ARG(i, reg) \
	MOVD (ARGS+8*i)(R19), reg \
	TBZ  $i, R20, 2(PC) \
	MOVD (reg), reg

// func invoke(op *Op)
//
// The current operation is in R19. R21 is 0 in the caller and 1 in a child. The
// kernel preserves both registers in a system call. A child must not use the stack.
TEXT ·invoke(SB), NOSPLIT|NOFRAME, $0-8
	MOVD op+0(FP), R19
	MOVD ZR, R21

next:
	MOVD DEREF(R19), R20
	ARG(0, R0)
	ARG(1, R1)
	ARG(2, R2)
	ARG(3, R3)
	ARG(4, R4)
	ARG(5, R5)
	MOVD TRAP(R19), R8
	CMN  $1, R8
	BEQ  store
	CMN  $2, R8
	BEQ  load
	CMN  $3, R8
	BEQ  sp
	CMN  $4, R8
	BEQ  tls
	SVC
	CBNZ R0, result
	MOVD CHILD(R19), R20
	CBZ  R20, result
	MOVD R20, R19
	MOVD $1, R21
	B    next

result:
	MOVD R0, RES(R19)
	CBZ  R21, return
	ADD  $SIZE, R19
	B    next

return:
	RET

store:
	MOVD R1, (R0)
	B    result

load:
	MOVD (R0), R0
	B    result

sp:
	MOVD RSP, R0
	B    result

tls:
	MRS TPIDR_EL0, R0
	B   result
