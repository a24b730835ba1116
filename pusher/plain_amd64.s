//go:build !purego

#include "textflag.h"

// Sixteen bytes of X are each a quote (X1), a backslash (X2) or at most 0x1f (X3):
// in mask.
#define SPECIAL(x, mask, a) \
	MOVO x, mask; PCMPEQB X1, mask; MOVO x, a; PCMPEQB X2, a; POR a, mask; MOVO x, a; PMINUB X3, a; PCMPEQB x, a; POR a, mask

// func plainRun(b []byte) int
TEXT ·plainRun(SB), NOSPLIT, $0-32
	MOVQ b_base+0(FP), SI
	MOVQ b_len+8(FP), CX
	MOVQ $0x2222222222222222, DX
	MOVQ DX, X1
	PUNPCKLQDQ X1, X1
	MOVQ $0x5c5c5c5c5c5c5c5c, DX
	MOVQ DX, X2
	PUNPCKLQDQ X2, X2
	MOVQ $0x1f1f1f1f1f1f1f1f, DX
	MOVQ DX, X3
	PUNPCKLQDQ X3, X3
	XORQ AX, AX

next:
	LEAQ 32(AX), DX
	CMPQ DX, CX
	JGT done
	MOVOU (SI)(AX*1), X4
	MOVOU 16(SI)(AX*1), X5
	SPECIAL(X4, X6, X7)
	SPECIAL(X5, X8, X9)
	PMOVMSKB X6, R8
	PMOVMSKB X8, R9
	SHLL $16, R9
	ORL R9, R8
	JNE found
	MOVQ DX, AX
	JMP next

found:
	BSFL R8, R8
	ADDQ R8, AX

done:
	MOVQ AX, ret+24(FP)
	RET
