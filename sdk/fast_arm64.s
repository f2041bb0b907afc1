//go:build !race && !micromegas_plain

#include "textflag.h"

// func cntvct() int64
TEXT ·cntvct(SB), NOSPLIT|NOFRAME, $0-8
	MRS  CNTVCT_EL0, R0
	MOVD R0, ret+0(FP)
	RET
