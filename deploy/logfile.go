package deploy

import (
	"context"
	"flag"
	"fmt"
	"strings"

	"github.com/micromegas-go/micromegas/producers/logfile"
)

const logfileUsage = `logfile --path GLOB [flags]

Follows log files and sends their lines to a server, until it is interrupted. Files may be rotated, by renaming or by copying and truncation.
With a server running (micromegas serve):

  micromegas logfile --path '/var/log/app/*.log' --positions app.positions
  micromegas query "SELECT time, level, msg, properties FROM log_entries WHERE target = 'logfile' ORDER BY time DESC LIMIT 20" --begin 5m

Of a line that is a JSON object, time (time, ts, @timestamp, timestamp), level (level, severity, lvl) and message (msg, message) are taken out, and
the other keys become properties. Of text, the level is the first word such as ERROR, and lines that begin with a blank continue the line
before. The property log_file is the file; the property time is the entry's own time where it is not the time of reading. Quote patterns,
so that the shell leaves them alone: files that appear later count as well. With --positions a new start goes on where the last one ended.`

func runLogfile(ctx context.Context, std stdio, args []string) error {
	fs := flag.NewFlagSet("logfile", flag.ContinueOnError)
	p := newProducing(fs, std)
	cfg := logfile.DefaultConfig()
	fs.Func("path", "file or `pattern`; may be repeated", func(s string) error {
		cfg.Paths = append(cfg.Paths, s)
		return nil
	})
	format := fs.String("format", string(cfg.Format), "of lines: text, json, or auto (JSON where a line is an object)")
	fs.StringVar(&cfg.Target, "target", cfg.Target, "target of the entries")
	fs.StringVar(&cfg.Positions, "positions", cfg.Positions, "`file` that keeps how far files were read; empty: a new start reads all again")
	fs.BoolVar(&cfg.FromEnd, "from-end", cfg.FromEnd, "skip what is in files without a position at the start")
	fs.BoolVar(&cfg.DetectLevel, "detect-level", cfg.DetectLevel, "find the level of lines of text")
	fs.BoolVar(&cfg.Multiline, "multiline", cfg.Multiline, "join lines that begin with a blank to the line before")
	fs.DurationVar(&cfg.Poll, "poll", cfg.Poll, "between looks at the files")
	fs.IntVar(&cfg.MaxLineBytes, "max-line", cfg.MaxLineBytes, "`bytes` of a line that are kept")
	bindKeys(fs, "time-key", &cfg.TimeKeys)
	bindKeys(fs, "level-key", &cfg.LevelKeys)
	bindKeys(fs, "message-key", &cfg.MessageKeys)
	if err := parseFlags(fs, std, logfileUsage, args); err != nil {
		return err
	}
	cfg.Format = logfile.Format(*format)
	follower, err := logfile.New(cfg, p.log)
	if err != nil {
		return err
	}
	return p.run(ctx, "logfile", follower.Run, func() string {
		s := follower.Stats()
		return fmt.Sprintf("read %d lines, %d bytes of %d files as %d entries, cut %d lines", s.Lines, s.Bytes, s.Files, s.Entries, s.Cut)
	})
}

// bindKeys binds a list of keys of JSON objects.
func bindKeys(fs *flag.FlagSet, name string, keys *[]string) {
	fs.Func(name, fmt.Sprintf("`keys` of JSON objects, separated by commas (default %s)", strings.Join(*keys, ",")), func(s string) error {
		*keys = strings.Split(s, ",")
		return nil
	})
}
