//go:build !purego

#include "textflag.h"

// The steps of MD5 (RFC 1321) and the groups of four rounds of SHA-256 (FIPS
// 180-4, by the processor's own instructions) alternate. Either is one long chain
// of which each link waits for the one before, and the two chains use different
// parts of the processor: together they take hardly longer than MD5 alone.
//
// MD5: its state in AX to DX, the block at SI. SHA-256: its state in X1 (a b e f)
// and X2 (c d g h), the schedule in X3 to X6, the block at DI, constants at R11.

#define F(a, b, c, d, at, k, s) \
	MOVL c, R9; XORL d, R9; ADDL at(SI), a; ADDL $k, a; ANDL b, R9; XORL d, R9; ADDL R9, a; ROLL $s, a; ADDL b, a

// The two halves of G have no bit in common, so they can be added one by one, and
// the half without b before b is there.
#define G(a, b, c, d, at, k, s) \
	MOVL d, R9; NOTL R9; ADDL at(SI), a; ADDL $k, a; ANDL c, R9; ADDL R9, a; MOVL d, R10; ANDL b, R10; ADDL R10, a; ROLL $s, a; ADDL b, a

#define H(a, b, c, d, at, k, s) \
	MOVL c, R9; XORL d, R9; ADDL at(SI), a; ADDL $k, a; XORL b, R9; ADDL R9, a; ROLL $s, a; ADDL b, a

#define I(a, b, c, d, at, k, s) \
	MOVL d, R9; NOTL R9; ADDL at(SI), a; ADDL $k, a; ORL b, R9; XORL c, R9; ADDL R9, a; ROLL $s, a; ADDL b, a

DATA rounds<>+0(SB)/8, $0x71374491428a2f98
DATA rounds<>+8(SB)/8, $0xe9b5dba5b5c0fbcf
DATA rounds<>+16(SB)/8, $0x59f111f13956c25b
DATA rounds<>+24(SB)/8, $0xab1c5ed5923f82a4
DATA rounds<>+32(SB)/8, $0x12835b01d807aa98
DATA rounds<>+40(SB)/8, $0x550c7dc3243185be
DATA rounds<>+48(SB)/8, $0x80deb1fe72be5d74
DATA rounds<>+56(SB)/8, $0xc19bf1749bdc06a7
DATA rounds<>+64(SB)/8, $0xefbe4786e49b69c1
DATA rounds<>+72(SB)/8, $0x240ca1cc0fc19dc6
DATA rounds<>+80(SB)/8, $0x4a7484aa2de92c6f
DATA rounds<>+88(SB)/8, $0x76f988da5cb0a9dc
DATA rounds<>+96(SB)/8, $0xa831c66d983e5152
DATA rounds<>+104(SB)/8, $0xbf597fc7b00327c8
DATA rounds<>+112(SB)/8, $0xd5a79147c6e00bf3
DATA rounds<>+120(SB)/8, $0x1429296706ca6351
DATA rounds<>+128(SB)/8, $0x2e1b213827b70a85
DATA rounds<>+136(SB)/8, $0x53380d134d2c6dfc
DATA rounds<>+144(SB)/8, $0x766a0abb650a7354
DATA rounds<>+152(SB)/8, $0x92722c8581c2c92e
DATA rounds<>+160(SB)/8, $0xa81a664ba2bfe8a1
DATA rounds<>+168(SB)/8, $0xc76c51a3c24b8b70
DATA rounds<>+176(SB)/8, $0xd6990624d192e819
DATA rounds<>+184(SB)/8, $0x106aa070f40e3585
DATA rounds<>+192(SB)/8, $0x1e376c0819a4c116
DATA rounds<>+200(SB)/8, $0x34b0bcb52748774c
DATA rounds<>+208(SB)/8, $0x4ed8aa4a391c0cb3
DATA rounds<>+216(SB)/8, $0x682e6ff35b9cca4f
DATA rounds<>+224(SB)/8, $0x78a5636f748f82ee
DATA rounds<>+232(SB)/8, $0x8cc7020884c87814
DATA rounds<>+240(SB)/8, $0xa4506ceb90befffa
DATA rounds<>+248(SB)/8, $0xc67178f2bef9a3f7
GLOBL rounds<>(SB), RODATA|NOPTR, $256
DATA bigEndian<>+0(SB)/8, $0x0405060700010203
DATA bigEndian<>+8(SB)/8, $0x0c0d0e0f08090a0b
GLOBL bigEndian<>(SB), RODATA|NOPTR, $16

// func digestBoth(md5 *[4]uint32, p *byte, sha *[8]uint32, q *byte, blocks int)
TEXT ·digestBoth(SB), NOSPLIT, $0-40
	MOVQ md5+0(FP), R8
	MOVL 0(R8), AX
	MOVL 4(R8), BX
	MOVL 8(R8), CX
	MOVL 12(R8), DX
	MOVQ sha+16(FP), R9
	MOVOU 0(R9), X1
	MOVOU 16(R9), X2
	PSHUFD $0xb1, X1, X1
	PSHUFD $0x1b, X2, X2
	MOVOU X1, X7
	PALIGNR $8, X2, X1
	PBLENDW $0xf0, X7, X2
	MOVQ p+8(FP), SI
	MOVQ q+24(FP), DI
	MOVQ blocks+32(FP), R13
	LEAQ rounds<>(SB), R11
	MOVOU bigEndian<>(SB), X8

both:
	MOVOU X1, X9
	MOVOU X2, X10
	F(AX, BX, CX, DX, 0, 0xd76aa478, 7)
	MOVOU 0(DI), X3; PSHUFB X8, X3; MOVOU X3, X0; PADDD 0(R11), X0
	F(DX, AX, BX, CX, 4, 0xe8c7b756, 12)
	SHA256RNDS2 X0, X1, X2
	F(CX, DX, AX, BX, 8, 0x242070db, 17)
	PSHUFD $0x0e, X0, X0
	F(BX, CX, DX, AX, 12, 0xc1bdceee, 22)
	SHA256RNDS2 X0, X2, X1
	F(AX, BX, CX, DX, 16, 0xf57c0faf, 7)
	MOVOU 16(DI), X4; PSHUFB X8, X4; MOVOU X4, X0; PADDD 16(R11), X0
	F(DX, AX, BX, CX, 20, 0x4787c62a, 12)
	SHA256RNDS2 X0, X1, X2
	F(CX, DX, AX, BX, 24, 0xa8304613, 17)
	PSHUFD $0x0e, X0, X0
	F(BX, CX, DX, AX, 28, 0xfd469501, 22)
	SHA256RNDS2 X0, X2, X1; SHA256MSG1 X4, X3
	F(AX, BX, CX, DX, 32, 0x698098d8, 7)
	MOVOU 32(DI), X5; PSHUFB X8, X5; MOVOU X5, X0; PADDD 32(R11), X0
	F(DX, AX, BX, CX, 36, 0x8b44f7af, 12)
	SHA256RNDS2 X0, X1, X2
	F(CX, DX, AX, BX, 40, 0xffff5bb1, 17)
	PSHUFD $0x0e, X0, X0
	F(BX, CX, DX, AX, 44, 0x895cd7be, 22)
	SHA256RNDS2 X0, X2, X1; SHA256MSG1 X5, X4
	F(AX, BX, CX, DX, 48, 0x6b901122, 7)
	MOVOU 48(DI), X6; PSHUFB X8, X6; MOVOU X6, X0; PADDD 48(R11), X0
	F(DX, AX, BX, CX, 52, 0xfd987193, 12)
	SHA256RNDS2 X0, X1, X2; MOVOU X6, X7; PALIGNR $4, X5, X7
	F(CX, DX, AX, BX, 56, 0xa679438e, 17)
	PADDD X7, X3; SHA256MSG2 X6, X3; PSHUFD $0x0e, X0, X0
	F(BX, CX, DX, AX, 60, 0x49b40821, 22)
	SHA256RNDS2 X0, X2, X1; SHA256MSG1 X6, X5
	G(AX, BX, CX, DX, 4, 0xf61e2562, 5)
	MOVOU X3, X0; PADDD 64(R11), X0
	G(DX, AX, BX, CX, 24, 0xc040b340, 9)
	SHA256RNDS2 X0, X1, X2; MOVOU X3, X7; PALIGNR $4, X6, X7
	G(CX, DX, AX, BX, 44, 0x265e5a51, 14)
	PADDD X7, X4; SHA256MSG2 X3, X4; PSHUFD $0x0e, X0, X0
	G(BX, CX, DX, AX, 0, 0xe9b6c7aa, 20)
	SHA256RNDS2 X0, X2, X1; SHA256MSG1 X3, X6
	G(AX, BX, CX, DX, 20, 0xd62f105d, 5)
	MOVOU X4, X0; PADDD 80(R11), X0
	G(DX, AX, BX, CX, 40, 0x02441453, 9)
	SHA256RNDS2 X0, X1, X2; MOVOU X4, X7; PALIGNR $4, X3, X7
	G(CX, DX, AX, BX, 60, 0xd8a1e681, 14)
	PADDD X7, X5; SHA256MSG2 X4, X5; PSHUFD $0x0e, X0, X0
	G(BX, CX, DX, AX, 16, 0xe7d3fbc8, 20)
	SHA256RNDS2 X0, X2, X1; SHA256MSG1 X4, X3
	G(AX, BX, CX, DX, 36, 0x21e1cde6, 5)
	MOVOU X5, X0; PADDD 96(R11), X0
	G(DX, AX, BX, CX, 56, 0xc33707d6, 9)
	SHA256RNDS2 X0, X1, X2; MOVOU X5, X7; PALIGNR $4, X4, X7
	G(CX, DX, AX, BX, 12, 0xf4d50d87, 14)
	PADDD X7, X6; SHA256MSG2 X5, X6; PSHUFD $0x0e, X0, X0
	G(BX, CX, DX, AX, 32, 0x455a14ed, 20)
	SHA256RNDS2 X0, X2, X1; SHA256MSG1 X5, X4
	G(AX, BX, CX, DX, 52, 0xa9e3e905, 5)
	MOVOU X6, X0; PADDD 112(R11), X0
	G(DX, AX, BX, CX, 8, 0xfcefa3f8, 9)
	SHA256RNDS2 X0, X1, X2; MOVOU X6, X7; PALIGNR $4, X5, X7
	G(CX, DX, AX, BX, 28, 0x676f02d9, 14)
	PADDD X7, X3; SHA256MSG2 X6, X3; PSHUFD $0x0e, X0, X0
	G(BX, CX, DX, AX, 48, 0x8d2a4c8a, 20)
	SHA256RNDS2 X0, X2, X1; SHA256MSG1 X6, X5
	H(AX, BX, CX, DX, 20, 0xfffa3942, 4)
	MOVOU X3, X0; PADDD 128(R11), X0
	H(DX, AX, BX, CX, 32, 0x8771f681, 11)
	SHA256RNDS2 X0, X1, X2; MOVOU X3, X7; PALIGNR $4, X6, X7
	H(CX, DX, AX, BX, 44, 0x6d9d6122, 16)
	PADDD X7, X4; SHA256MSG2 X3, X4; PSHUFD $0x0e, X0, X0
	H(BX, CX, DX, AX, 56, 0xfde5380c, 23)
	SHA256RNDS2 X0, X2, X1; SHA256MSG1 X3, X6
	H(AX, BX, CX, DX, 4, 0xa4beea44, 4)
	MOVOU X4, X0; PADDD 144(R11), X0
	H(DX, AX, BX, CX, 16, 0x4bdecfa9, 11)
	SHA256RNDS2 X0, X1, X2; MOVOU X4, X7; PALIGNR $4, X3, X7
	H(CX, DX, AX, BX, 28, 0xf6bb4b60, 16)
	PADDD X7, X5; SHA256MSG2 X4, X5; PSHUFD $0x0e, X0, X0
	H(BX, CX, DX, AX, 40, 0xbebfbc70, 23)
	SHA256RNDS2 X0, X2, X1; SHA256MSG1 X4, X3
	H(AX, BX, CX, DX, 52, 0x289b7ec6, 4)
	MOVOU X5, X0; PADDD 160(R11), X0
	H(DX, AX, BX, CX, 0, 0xeaa127fa, 11)
	SHA256RNDS2 X0, X1, X2; MOVOU X5, X7; PALIGNR $4, X4, X7
	H(CX, DX, AX, BX, 12, 0xd4ef3085, 16)
	PADDD X7, X6; SHA256MSG2 X5, X6; PSHUFD $0x0e, X0, X0
	H(BX, CX, DX, AX, 24, 0x04881d05, 23)
	SHA256RNDS2 X0, X2, X1; SHA256MSG1 X5, X4
	H(AX, BX, CX, DX, 36, 0xd9d4d039, 4)
	MOVOU X6, X0; PADDD 176(R11), X0
	H(DX, AX, BX, CX, 48, 0xe6db99e5, 11)
	SHA256RNDS2 X0, X1, X2; MOVOU X6, X7; PALIGNR $4, X5, X7
	H(CX, DX, AX, BX, 60, 0x1fa27cf8, 16)
	PADDD X7, X3; SHA256MSG2 X6, X3; PSHUFD $0x0e, X0, X0
	H(BX, CX, DX, AX, 8, 0xc4ac5665, 23)
	SHA256RNDS2 X0, X2, X1; SHA256MSG1 X6, X5
	I(AX, BX, CX, DX, 0, 0xf4292244, 6)
	MOVOU X3, X0; PADDD 192(R11), X0
	I(DX, AX, BX, CX, 28, 0x432aff97, 10)
	SHA256RNDS2 X0, X1, X2; MOVOU X3, X7; PALIGNR $4, X6, X7
	I(CX, DX, AX, BX, 56, 0xab9423a7, 15)
	PADDD X7, X4; SHA256MSG2 X3, X4; PSHUFD $0x0e, X0, X0
	I(BX, CX, DX, AX, 20, 0xfc93a039, 21)
	SHA256RNDS2 X0, X2, X1; SHA256MSG1 X3, X6
	I(AX, BX, CX, DX, 48, 0x655b59c3, 6)
	MOVOU X4, X0; PADDD 208(R11), X0
	I(DX, AX, BX, CX, 12, 0x8f0ccc92, 10)
	SHA256RNDS2 X0, X1, X2; MOVOU X4, X7; PALIGNR $4, X3, X7
	I(CX, DX, AX, BX, 40, 0xffeff47d, 15)
	PADDD X7, X5; SHA256MSG2 X4, X5; PSHUFD $0x0e, X0, X0
	I(BX, CX, DX, AX, 4, 0x85845dd1, 21)
	SHA256RNDS2 X0, X2, X1
	I(AX, BX, CX, DX, 32, 0x6fa87e4f, 6)
	MOVOU X5, X0; PADDD 224(R11), X0
	I(DX, AX, BX, CX, 60, 0xfe2ce6e0, 10)
	SHA256RNDS2 X0, X1, X2; MOVOU X5, X7; PALIGNR $4, X4, X7
	I(CX, DX, AX, BX, 24, 0xa3014314, 15)
	PADDD X7, X6; SHA256MSG2 X5, X6; PSHUFD $0x0e, X0, X0
	I(BX, CX, DX, AX, 52, 0x4e0811a1, 21)
	SHA256RNDS2 X0, X2, X1
	I(AX, BX, CX, DX, 16, 0xf7537e82, 6)
	MOVOU X6, X0; PADDD 240(R11), X0
	I(DX, AX, BX, CX, 44, 0xbd3af235, 10)
	SHA256RNDS2 X0, X1, X2
	I(CX, DX, AX, BX, 8, 0x2ad7d2bb, 15)
	PSHUFD $0x0e, X0, X0
	I(BX, CX, DX, AX, 36, 0xeb86d391, 21)
	SHA256RNDS2 X0, X2, X1
	ADDL 0(R8), AX
	ADDL 4(R8), BX
	ADDL 8(R8), CX
	ADDL 12(R8), DX
	MOVL AX, 0(R8)
	MOVL BX, 4(R8)
	MOVL CX, 8(R8)
	MOVL DX, 12(R8)
	PADDD X9, X1
	PADDD X10, X2
	ADDQ $64, SI
	ADDQ $64, DI
	DECQ R13
	JNE both

	MOVQ sha+16(FP), R9
	PSHUFD $0x1b, X1, X7
	PSHUFD $0xb1, X2, X2
	MOVOU X7, X1
	PBLENDW $0xf0, X2, X1
	PALIGNR $8, X7, X2
	MOVOU X1, 0(R9)
	MOVOU X2, 16(R9)
	RET

// func digestMD5(md5 *[4]uint32, p *byte, blocks int)
TEXT ·digestMD5(SB), NOSPLIT, $0-24
	MOVQ md5+0(FP), R8
	MOVL 0(R8), AX
	MOVL 4(R8), BX
	MOVL 8(R8), CX
	MOVL 12(R8), DX
	MOVQ p+8(FP), SI
	MOVQ blocks+16(FP), R13

one:
	F(AX, BX, CX, DX, 0, 0xd76aa478, 7)
	F(DX, AX, BX, CX, 4, 0xe8c7b756, 12)
	F(CX, DX, AX, BX, 8, 0x242070db, 17)
	F(BX, CX, DX, AX, 12, 0xc1bdceee, 22)
	F(AX, BX, CX, DX, 16, 0xf57c0faf, 7)
	F(DX, AX, BX, CX, 20, 0x4787c62a, 12)
	F(CX, DX, AX, BX, 24, 0xa8304613, 17)
	F(BX, CX, DX, AX, 28, 0xfd469501, 22)
	F(AX, BX, CX, DX, 32, 0x698098d8, 7)
	F(DX, AX, BX, CX, 36, 0x8b44f7af, 12)
	F(CX, DX, AX, BX, 40, 0xffff5bb1, 17)
	F(BX, CX, DX, AX, 44, 0x895cd7be, 22)
	F(AX, BX, CX, DX, 48, 0x6b901122, 7)
	F(DX, AX, BX, CX, 52, 0xfd987193, 12)
	F(CX, DX, AX, BX, 56, 0xa679438e, 17)
	F(BX, CX, DX, AX, 60, 0x49b40821, 22)
	G(AX, BX, CX, DX, 4, 0xf61e2562, 5)
	G(DX, AX, BX, CX, 24, 0xc040b340, 9)
	G(CX, DX, AX, BX, 44, 0x265e5a51, 14)
	G(BX, CX, DX, AX, 0, 0xe9b6c7aa, 20)
	G(AX, BX, CX, DX, 20, 0xd62f105d, 5)
	G(DX, AX, BX, CX, 40, 0x02441453, 9)
	G(CX, DX, AX, BX, 60, 0xd8a1e681, 14)
	G(BX, CX, DX, AX, 16, 0xe7d3fbc8, 20)
	G(AX, BX, CX, DX, 36, 0x21e1cde6, 5)
	G(DX, AX, BX, CX, 56, 0xc33707d6, 9)
	G(CX, DX, AX, BX, 12, 0xf4d50d87, 14)
	G(BX, CX, DX, AX, 32, 0x455a14ed, 20)
	G(AX, BX, CX, DX, 52, 0xa9e3e905, 5)
	G(DX, AX, BX, CX, 8, 0xfcefa3f8, 9)
	G(CX, DX, AX, BX, 28, 0x676f02d9, 14)
	G(BX, CX, DX, AX, 48, 0x8d2a4c8a, 20)
	H(AX, BX, CX, DX, 20, 0xfffa3942, 4)
	H(DX, AX, BX, CX, 32, 0x8771f681, 11)
	H(CX, DX, AX, BX, 44, 0x6d9d6122, 16)
	H(BX, CX, DX, AX, 56, 0xfde5380c, 23)
	H(AX, BX, CX, DX, 4, 0xa4beea44, 4)
	H(DX, AX, BX, CX, 16, 0x4bdecfa9, 11)
	H(CX, DX, AX, BX, 28, 0xf6bb4b60, 16)
	H(BX, CX, DX, AX, 40, 0xbebfbc70, 23)
	H(AX, BX, CX, DX, 52, 0x289b7ec6, 4)
	H(DX, AX, BX, CX, 0, 0xeaa127fa, 11)
	H(CX, DX, AX, BX, 12, 0xd4ef3085, 16)
	H(BX, CX, DX, AX, 24, 0x04881d05, 23)
	H(AX, BX, CX, DX, 36, 0xd9d4d039, 4)
	H(DX, AX, BX, CX, 48, 0xe6db99e5, 11)
	H(CX, DX, AX, BX, 60, 0x1fa27cf8, 16)
	H(BX, CX, DX, AX, 8, 0xc4ac5665, 23)
	I(AX, BX, CX, DX, 0, 0xf4292244, 6)
	I(DX, AX, BX, CX, 28, 0x432aff97, 10)
	I(CX, DX, AX, BX, 56, 0xab9423a7, 15)
	I(BX, CX, DX, AX, 20, 0xfc93a039, 21)
	I(AX, BX, CX, DX, 48, 0x655b59c3, 6)
	I(DX, AX, BX, CX, 12, 0x8f0ccc92, 10)
	I(CX, DX, AX, BX, 40, 0xffeff47d, 15)
	I(BX, CX, DX, AX, 4, 0x85845dd1, 21)
	I(AX, BX, CX, DX, 32, 0x6fa87e4f, 6)
	I(DX, AX, BX, CX, 60, 0xfe2ce6e0, 10)
	I(CX, DX, AX, BX, 24, 0xa3014314, 15)
	I(BX, CX, DX, AX, 52, 0x4e0811a1, 21)
	I(AX, BX, CX, DX, 16, 0xf7537e82, 6)
	I(DX, AX, BX, CX, 44, 0xbd3af235, 10)
	I(CX, DX, AX, BX, 8, 0x2ad7d2bb, 15)
	I(BX, CX, DX, AX, 36, 0xeb86d391, 21)
	ADDL 0(R8), AX
	ADDL 4(R8), BX
	ADDL 8(R8), CX
	ADDL 12(R8), DX
	MOVL AX, 0(R8)
	MOVL BX, 4(R8)
	MOVL CX, 8(R8)
	MOVL DX, 12(R8)
	ADDQ $64, SI
	DECQ R13
	JNE one
	RET

// func shaExtensions() bool
TEXT ·shaExtensions(SB), NOSPLIT, $0-1
	MOVB $0, ret+0(FP)
	XORL AX, AX
	CPUID
	CMPL AX, $7
	JLT none
	MOVL $1, AX
	XORL CX, CX
	CPUID
	ANDL $0x80200, CX // SSSE3, SSE4.1
	CMPL CX, $0x80200
	JNE none
	MOVL $7, AX
	XORL CX, CX
	CPUID
	BTL $29, BX // SHA
	JCC none
	MOVB $1, ret+0(FP)
none:
	RET
