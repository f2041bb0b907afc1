package peers

import (
	"context"
	"io"
	"log/slog"
	"runtime/trace"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/micromegas-go/micromegas/sdk"
)

// What is logged. Each library writes a time, a level and a message, as JSON where it has the choice.
const (
	static = "connection accepted"
	addr   = "10.1.2.3:4567"
	took   = 5 * time.Millisecond
)

func newZerolog() zerolog.Logger {
	return zerolog.New(io.Discard).Level(zerolog.InfoLevel).With().Timestamp().Logger()
}

func newZap() *zap.Logger {
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(io.Discard), zap.InfoLevel))
}

func newSlog() *slog.Logger {
	return slog.New(slog.NewJSONHandler(io.Discard, nil)) //nolint:sloglint // slog.DiscardHandler would not format
}

func BenchmarkLog(b *testing.B) {
	ours(b, same(func(n int) {
		for range n {
			ourLog.Log()
		}
	})).each(b, "micromegas")
	ze, za, sl := newZerolog(), newZap(), newSlog()
	direct(func(n int) {
		for range n {
			ze.Info().Msg(static)
		}
	}).each(b, "zerolog")
	direct(func(n int) {
		for range n {
			za.Info(static)
		}
	}).each(b, "zap")
	direct(func(n int) {
		for range n {
			sl.LogAttrs(context.Background(), slog.LevelInfo, static)
		}
	}).each(b, "slog")
	traced(b)
	direct(func(n int) {
		for range n {
			trace.Log(context.Background(), "net", static)
		}
	}).each(b, "runtime.trace")
}

func BenchmarkLogArgs(b *testing.B) {
	ours(b, same(func(n int) {
		for i := range n {
			ourArgs.Log(sdk.String(addr), sdk.Duration(took), sdk.Int(i))
		}
	})).each(b, "micromegas")
	ze, za, sl := newZerolog(), newZap(), newSlog()
	direct(func(n int) {
		for i := range n {
			ze.Info().Str("addr", addr).Dur("took", took).Int("tries", i).Msg("accepted")
		}
	}).each(b, "zerolog")
	direct(func(n int) {
		for i := range n {
			za.Info("accepted", zap.String("addr", addr), zap.Duration("took", took), zap.Int("tries", i))
		}
	}).each(b, "zap")
	direct(func(n int) {
		for i := range n {
			sl.LogAttrs(context.Background(), slog.LevelInfo, "accepted", slog.String("addr", addr), slog.Duration("took", took), slog.Int("tries", i))
		}
	}).each(b, "slog")
}

// BenchmarkDisabled is an entry of a level that is off, with an argument. Ours needs no buffers for it.
func BenchmarkDisabled(b *testing.B) {
	start(b)
	direct(func(n int) {
		for i := range n {
			ourDisabled.Log(sdk.Int(i))
		}
	}).each(b, "micromegas")
	ze, za, sl := newZerolog(), newZap(), newSlog()
	direct(func(n int) {
		for i := range n {
			ze.Debug().Int("tries", i).Msg("accepted")
		}
	}).each(b, "zerolog")
	direct(func(n int) {
		for i := range n {
			za.Debug("accepted", zap.Int("tries", i))
		}
	}).each(b, "zap")
	direct(func(n int) {
		for i := range n {
			sl.LogAttrs(context.Background(), slog.LevelDebug, "accepted", slog.Int("tries", i))
		}
	}).each(b, "slog")
}
