package sdk

import (
	"context"
	"runtime/debug"
	"time"
)

var panicked = NewLog(Fatal, "panic: %s\n\n%s", WithVerbosity(MinVerbosity))

// recoverWithin is how long a panic waits for its entry to be sent.
const recoverWithin = 3 * time.Second

// Recover is for the first line of a goroutine, main's included:
//
//	defer sdk.Recover()
//
// When the goroutine panics it records the panic and its stack as a Fatal entry, sends everything, for at most 3 s, and panics again with the
// same value. Goroutines without it end the process unrecorded; package crash finds what the runtime said of those.
func Recover() {
	v := recover()
	if v == nil {
		return
	}
	panicked.Log(Any(v), String(string(debug.Stack())))
	ctx, cancel := context.WithTimeout(context.Background(), recoverWithin)
	defer cancel()
	_ = Flush(ctx) // the panic is what matters
	panic(v)
}
