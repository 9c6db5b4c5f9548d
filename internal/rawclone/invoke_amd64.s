// SPDX-License-Identifier: Apache-2.0

#include "textflag.h"

// Offsets in Op.
#define TRAP  0
#define ARGS  8
#define DEREF 56
#define ENTRY 64
#define CHILD 72
#define RES   80
#define SIZE  88

// ARG loads argument i into reg, through memory if bit i of R13 is set.
#define ARG(i, reg) \
	MOVQ (ARGS+8*i)(R12), reg \
	BTQ  $i, R13 \
	JCC  2(PC) \
	MOVQ (reg), reg

// func invoke(op *Op)
//
// The current operation is in R12. R15 is 0 in the caller and 1 in a child. The
// kernel preserves both registers in a system call. A child must not use the stack.
TEXT ·invoke(SB), NOSPLIT, $0-8
	MOVQ op+0(FP), R12
	XORQ R15, R15

next:
	MOVQ DEREF(R12), R13
	ARG(0, DI)
	ARG(1, SI)
	ARG(2, DX)
	ARG(3, R10)
	ARG(4, R8)
	ARG(5, R9)
	MOVQ TRAP(R12), AX
	CMPQ AX, $-1
	JEQ  store
	CMPQ AX, $-2
	JEQ  load
	CMPQ AX, $-3
	JEQ  sp
	CMPQ AX, $-5
	JEQ  jump
	CMPQ ENTRY(R12), $0
	JNE  int80
	SYSCALL

done:
	TESTQ AX, AX
	JNE   result
	MOVQ  CHILD(R12), R13
	TESTQ R13, R13
	JEQ   result
	MOVQ  R13, R12
	MOVQ  $1, R15
	JMP   next

result:
	MOVQ  AX, RES(R12)
	TESTQ R15, R15
	JEQ   return
	ADDQ  $SIZE, R12
	JMP   next

return:
	RET

int80:
	MOVQ DI, BX
	MOVQ SI, CX
	MOVQ R10, SI
	INT  $0x80
	JMP  done

store:
	MOVQ SI, (DI)
	JMP  result

load:
	MOVQ (DI), AX
	JMP  result

sp:
	MOVQ SP, AX
	JMP  result

jump:
	JMP DI
