package etcd

import (
	"context"
	"log/slog"
	"sync/atomic"

	"go.uber.org/zap/zapcore"
)

// core is a zapcore.Core that writes warnings and worse to a slog.Logger.
type core struct {
	log     *slog.Logger
	closing *atomic.Bool // while it is true only fatal lines are written: etcd reports its own closing as errors
}

func newCore(log *slog.Logger) *core { return &core{log: log, closing: new(atomic.Bool)} }

func (c *core) Enabled(l zapcore.Level) bool {
	least := zapcore.WarnLevel
	if c.closing.Load() {
		least = zapcore.DPanicLevel
	}
	return l >= least && c.log.Enabled(context.Background(), level(l))
}

func (c *core) With(fields []zapcore.Field) zapcore.Core {
	return &core{log: slog.New(c.log.Handler().WithAttrs(attrs(fields))), closing: c.closing}
}

func (c *core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) && !expected[e.Message] {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	c.log.LogAttrs(context.Background(), level(e.Level), e.Message, attrs(fields)...)
	return nil
}

func (c *core) Sync() error { return nil }

// expected are warnings about choices of this package (it serves no HTTP and no etcd users), and about errors that it
// also gets as answers.
var expected = map[string]bool{
	"Running http and grpc server on single port. This is not recommended for production.": true,
	"simple token is not cryptographically signed":                                         true,
	"failed to apply request":          true,
	"retrying of unary invoker failed": true,
}

func level(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.ErrorLevel:
		return slog.LevelError
	case l >= zapcore.WarnLevel:
		return slog.LevelWarn
	case l >= zapcore.InfoLevel:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

// maxText limits a value of a log line, in bytes: etcd prints whole requests.
const maxText = 256

func attrs(fields []zapcore.Field) []slog.Attr {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	as := make([]slog.Attr, 0, len(enc.Fields))
	for k, v := range enc.Fields {
		if k == "error" {
			k = "err"
		}
		if text, ok := v.(string); ok && len(text) > maxText {
			v = text[:maxText] + "..."
		}
		as = append(as, slog.Any(k, v))
	}
	return as
}
