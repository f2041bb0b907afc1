package embedded

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats-server/v2/server"
)

// serverLog gives the server's words to slog, a level lower than it shouts them: what they mean for the service is
// said by whoever asks Healthy.
type serverLog struct {
	log   *slog.Logger
	fatal chan<- string // gets the first thing that keeps the server from starting
}

var _ server.Logger = serverLog{}

func (l serverLog) say(level slog.Level, format string, args []any) {
	l.log.Log(context.Background(), level, "nats server", "text", fmt.Sprintf(format, args...))
}

func (l serverLog) Noticef(format string, args ...any) { l.say(slog.LevelDebug, format, args) }
func (l serverLog) Warnf(format string, args ...any)   { l.say(slog.LevelInfo, format, args) }
func (l serverLog) Errorf(format string, args ...any)  { l.say(slog.LevelWarn, format, args) }
func (l serverLog) Debugf(string, ...any)              {}
func (l serverLog) Tracef(string, ...any)              {}

// Fatalf only notes what happened: the server returns from Start, and start reports it.
func (l serverLog) Fatalf(format string, args ...any) {
	l.say(slog.LevelWarn, format, args)
	select {
	case l.fatal <- fmt.Sprintf(format, args...):
	default:
	}
}
