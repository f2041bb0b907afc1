package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/micromegas-go/micromegas/producers/loadgen"
	"github.com/micromegas-go/micromegas/query/client"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// How a run is verified.
const (
	verifySlack = time.Hour   // around the run, for clocks that differ and events that are ahead of them
	verifyPause = time.Second // before a server is asked again that could not answer in full
)

// loadViews are the views that have a row for each event of a family as soon as it is acked. Rows of spans are made when they are
// asked for: of their blocks only view blocks is asked.
var loadViews = map[telemetry.Tag]string{telemetry.TagLog: "log_entries", telemetry.TagMetrics: "measures"}

// verification asks a FlightSQL server whether all that was acked in a run is there, once.
type verification struct {
	url, key string
	run      string // the value of loadgen.RunProperty of its processes
	began    time.Time
	wait     time.Duration // how long a server may be unable to answer
}

// of compares a ledger with the server's views. An answer counts only if the server vouches for it: until it does it is asked again.
// A block that a full answer lacks is missing, for what is acked is in every later answer.
func (f *verification) of(ctx context.Context, ledger *loadgen.Ledger) (loadgen.Verdict, error) {
	c, err := client.Dial(f.url, client.Options{BearerToken: f.key})
	if err != nil {
		return loadgen.Verdict{}, fmt.Errorf("verify: %w", err)
	}
	defer c.Close()
	opts := client.QueryOptions{Strict: true}
	opts.Begin, opts.End = f.span(ledger)
	check := ledger.Check()
	if err := f.each(ctx, c, "SELECT block_id, nb_objects AS n FROM blocks WHERE "+f.mine(), opts, check.Block); err != nil {
		return loadgen.Verdict{}, fmt.Errorf("verify blocks: %w", err)
	}
	for tag, view := range loadViews {
		check.View(tag, view)
		sql := "SELECT block_id, count(*) AS n FROM " + view + " WHERE " + f.mine() + " GROUP BY block_id"
		err := f.each(ctx, c, sql, opts, func(id telemetry.ID, n int64) { check.Rows(tag, id, n) })
		if err != nil {
			return loadgen.Verdict{}, fmt.Errorf("verify %s: %w", view, err)
		}
	}
	return check.Verdict(), nil
}

// span returns the range of time to ask for: that of the run and that of its events, which may be elsewhere.
func (f *verification) span(ledger *loadgen.Ledger) (from, to time.Time) {
	from, to = f.began, time.Now()
	if begin, end := ledger.Span(); end != 0 {
		if t := time.Unix(0, begin); t.Before(from) {
			from = t
		}
		if t := time.Unix(0, end); t.After(to) {
			to = t
		}
	}
	return from.Add(-verifySlack), to.Add(verifySlack)
}

// mine is the condition on rows of the run's processes. The run is an id of ours: it needs no quoting.
func (f *verification) mine() string {
	return "process_id IN (SELECT process_id FROM processes WHERE property_get(properties, '" + loadgen.RunProperty + "') = '" + f.run + "')"
}

// each runs a statement of a block's id and a number, and calls do for each row of its first full answer.
func (f *verification) each(ctx context.Context, c *client.Client, sql string, opts client.QueryOptions, do func(id telemetry.ID, n int64)) error {
	ctx, cancel := context.WithTimeout(ctx, f.wait)
	defer cancel()
	for {
		rows, err := c.Query(ctx, sql, opts)
		if err == nil {
			return eachRow(rows, do)
		}
		if grpcstatus.Code(err) != codes.Unavailable {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no full answer in %v: %w", f.wait, err)
		case <-time.After(verifyPause):
		}
	}
}

func eachRow(rows *client.Rows, do func(id telemetry.ID, n int64)) error {
	defer rows.Close()
	for {
		b, err := rows.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for i := range int(b.NumRows()) {
			id, err := telemetry.ParseID(b.Column(0).ValueStr(i))
			if err != nil {
				return fmt.Errorf("block id: %w", err)
			}
			n, err := numberAt(b.Column(1), i)
			if err != nil {
				return err
			}
			do(id, n)
		}
	}
}

func numberAt(a arrow.Array, i int) (int64, error) {
	switch a := a.(type) {
	case *array.Int32:
		return int64(a.Value(i)), nil
	case *array.Int64:
		return a.Value(i), nil
	}
	return 0, fmt.Errorf("a number of type %s", a.DataType())
}
