package deploy

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/micromegas-go/micromegas/query/client"
	"github.com/micromegas-go/micromegas/query/client/output"
)

func runQuery(ctx context.Context, std stdio, args []string) error {
	fs := flag.NewFlagSet("query", flag.ContinueOnError)
	begin := fs.String("begin", "", "first `time` of the range: RFC 3339, or how long ago, such as 90s, 15m, 1h or 7d")
	end := fs.String("end", "now", "last `time` of the range: as --begin, or now")
	format := fs.String("format", "table", "table, csv, json (an object a line), arrow or parquet")
	url := fs.String("url", "grpc://127.0.0.1:50051", "`address` of a FlightSQL server")
	key := fs.String("key", os.Getenv("MICROMEGAS_API_KEY"), "API `key` (MICROMEGAS_API_KEY)")
	limit := fs.Int64("limit", 0, "most `rows`; 0 is all")
	strict := fs.Bool("strict", false, "fail where rows may be missing, instead of warning")
	words, err := parseMixed(fs, std, "query 'SELECT …' [flags]     (or the statement on standard input: query -)", args)
	if err != nil {
		return err
	}
	sql, err := statement(words, std.in)
	if err != nil {
		return err
	}
	form, err := output.ParseFormat(*format)
	if err != nil {
		return err
	}
	opts := client.QueryOptions{Limit: *limit, Strict: *strict}
	if opts.Begin, opts.End, err = timeRange(*begin, *end, time.Now()); err != nil {
		return err
	}
	return printQuery(ctx, std, *url, *key, sql, form, opts)
}

// parseMixed parses flags that may stand before and behind the words of a command, and returns the words.
func parseMixed(fs *flag.FlagSet, std stdio, usage string, args []string) ([]string, error) {
	var words []string
	for {
		if err := parseFlags(fs, std, usage, args); err != nil {
			return nil, err
		}
		if fs.NArg() == 0 {
			return words, nil
		}
		words = append(words, fs.Arg(0))
		args = fs.Args()[1:]
	}
}

func statement(words []string, in io.Reader) (string, error) {
	switch {
	case len(words) == 0:
		return "", errors.New("no statement: micromegas query 'SELECT count(*) FROM log_entries' --begin 1h")
	case len(words) > 1:
		return "", fmt.Errorf("%d statements: put one in quotes", len(words))
	case words[0] != "-":
		return words[0], nil
	}
	sql, err := io.ReadAll(in)
	if err != nil {
		return "", fmt.Errorf("read statement: %w", err)
	}
	return string(sql), nil
}

// timeRange reads --begin and --end. No begin is all of time.
func timeRange(begin, end string, now time.Time) (from, to time.Time, err error) {
	if begin == "" {
		if end != "now" {
			return from, to, errors.New("--end without --begin: a range has both")
		}
		return from, to, nil
	}
	if from, err = parseTime(begin, now); err != nil {
		return from, to, fmt.Errorf("--begin: %w", err)
	}
	if to, err = parseTime(end, now); err != nil {
		return from, to, fmt.Errorf("--end: %w", err)
	}
	if to.Before(from) {
		return from, to, fmt.Errorf("--end %s is before --begin %s", end, begin)
	}
	return from, to, nil
}

// parseTime reads RFC 3339, "now", or an age such as 15m or 7d.
func parseTime(text string, now time.Time) (time.Time, error) {
	if text == "now" {
		return now, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if age, err := time.ParseDuration(days + "h"); err == nil {
			return now.Add(-24 * age), nil
		}
	}
	age, err := time.ParseDuration(text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is neither RFC 3339 (2026-01-02T15:04:05Z), nor an age (15m, 1h, 7d), nor now", text)
	}
	return now.Add(-age), nil
}

// unreachable says what to do when no server answers; other errors stay as they are.
func unreachable(url string, err error) error {
	if grpcstatus.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "while dialing") {
		return err
	}
	return fmt.Errorf("no server answers at %s: start one with micromegas serve, or name another with --url (%w)", url, err)
}

func printQuery(ctx context.Context, std stdio, url, key, sql string, format output.Format, opts client.QueryOptions) error {
	c, err := client.Dial(url, client.Options{BearerToken: key})
	if err != nil {
		return err
	}
	defer c.Close()
	var progress *output.Progress
	if f, ok := std.err.(*os.File); ok && output.IsTerminal(f) {
		progress = output.NewProgress(f)
		defer progress.Stop()
		opts.Progress = progress.Building
	}
	rows, err := c.Query(ctx, sql, opts)
	if err != nil {
		return unreachable(url, err)
	}
	defer rows.Close()
	var source output.Source = rows
	if progress != nil {
		out, isFile := std.out.(*os.File)
		source = progress.Watch(rows, isFile && output.IsTerminal(out))
	}
	n, err := output.Write(std.out, format, source)
	if progress != nil {
		progress.Stop()
	}
	for _, w := range rows.Warnings() {
		fmt.Fprintf(std.err, "warning: %s\n", w)
	}
	if err != nil {
		return err
	}
	if n == 0 && opts.Begin.IsZero() {
		fmt.Fprintln(std.err, "no rows")
	} else if n == 0 {
		fmt.Fprintf(std.err, "no rows between %s and %s; an earlier --begin looks further back\n",
			opts.Begin.Format(time.RFC3339), opts.End.Format(time.RFC3339))
	}
	return nil
}
