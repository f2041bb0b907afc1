//go:build !race && !micromegas_plain

#include "textflag.h"

// func ticks() int64
TEXT ·ticks(SB), NOSPLIT|NOFRAME, $0-8
	CMPB ·hasTSC(SB), $0
	JEQ  slow
	RDTSC
	SHLQ $32, DX
	ORQ  DX, AX
	MOVQ AX, ret+0(FP)
	RET
slow:
	JMP ·slowTicks(SB)

// func cpuid(leaf uint32) (eax, ebx, ecx, edx uint32)
TEXT ·cpuid(SB), NOSPLIT|NOFRAME, $0-24
	MOVL leaf+0(FP), AX
	XORL CX, CX
	CPUID
	MOVL AX, eax+8(FP)
	MOVL BX, ebx+12(FP)
	MOVL CX, ecx+16(FP)
	MOVL DX, edx+20(FP)
	RET
