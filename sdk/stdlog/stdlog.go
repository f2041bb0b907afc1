// Package stdlog records what a program logs with package log as entries of package sdk:
//
//	restore := stdlog.Redirect(sdk.Info)
//	defer restore()
//
// A message is one entry, however many lines it has, of the one level that package log does not know; its call site is the place that
// called package log. A logger of another library gets an entry's way by NewLogger:
//
//	server := &http.Server{ErrorLog: stdlog.NewLogger("", sdk.Warn)}
//
// The message of log.Fatal is in memory when the process exits, see package sdk. What log/slog sends through package log by default arrives
// as text; package slogsink does better.
//
// The package logs nothing. A sink that logs through it would, of each of its failures, make one more entry to send: give sinks a logger
// that writes elsewhere.
package stdlog

import (
	"context"
	"io"
	"log"
	"runtime"
	"strings"
	"sync"

	"github.com/micromegas-go/micromegas/sdk"
)

// Redirect has the standard logger record instead of print, until restore is called. It takes off the logger's flags, which say what entries
// have anyway, and leaves the prefix. Restore puts output and flags back, unless somebody else has changed the output meanwhile; to call it
// again does nothing.
func Redirect(level sdk.Level) (restore func()) {
	flags, out := log.Flags(), log.Writer()
	w := NewWriter("", level)
	log.SetFlags(0)
	log.SetOutput(w)
	return sync.OnceFunc(func() {
		if log.Writer() == w {
			log.SetFlags(flags)
			log.SetOutput(out)
		}
	})
}

// NewLogger returns a logger that records. Target "" is the package that logs.
func NewLogger(target string, level sdk.Level) *log.Logger {
	return log.New(NewWriter(target, level), "", 0)
}

// NewWriter returns what a logger of package log may write to; the logger should have no flags. Each Write is one entry, without the line
// end behind it. Write never fails.
func NewWriter(target string, level sdk.Level) io.Writer { return &writer{target, level} }

type writer struct {
	target string
	level  sdk.Level
}

// Write records an entry.
func (w *writer) Write(p []byte) (int, error) {
	if sdk.LevelEnabled(w.level) {
		sdk.LogText(context.Background(), caller(), w.target, w.level, nil, strings.TrimRight(string(p), "\r\n"))
	}
	return len(p), nil
}

// maxFrames is how far up the stack caller looks: package log has three functions above Write, log/slog some more.
const maxFrames = 16

// caller returns the return address into the function that called package log, 0 = there is none.
func caller() uintptr {
	var pcs [maxFrames]uintptr
	n := runtime.Callers(3, pcs[:]) // without Callers, caller and Write
	for i := range n {
		f, _ := runtime.CallersFrames(pcs[i : i+1]).Next()
		if !strings.HasPrefix(f.Function, "log.") && !strings.HasPrefix(f.Function, "log/slog.") {
			return pcs[i]
		}
	}
	return 0
}
