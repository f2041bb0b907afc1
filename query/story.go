package query

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/micromegas-go/micromegas/query/dialect"
	"github.com/micromegas-go/micromegas/query/engine"
	"github.com/micromegas-go/micromegas/query/perfetto"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/tables"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// storyFunction is perfetto_trace(processes, contents, begin, end): a trace of several processes with all that they sent. Unlike the trace of
// perfetto_trace_chunks, which is upstream's to the byte, its slices nest as their times say, and asynchronous spans that overlap lie
// side by side.
const storyFunction = "perfetto_trace"

// What a story may have.
const (
	storyThreads  = "threads"
	storyAsync    = "async"
	storyLogs     = "logs"
	storyMeasures = "measures"
	storyNet      = "net"
	storyImages   = "images"
)

var storyContents = []string{storyThreads, storyAsync, storyLogs, storyMeasures, storyNet, storyImages}

// maxCurves bounds the measures of a process that a story shows, each a curve of its own.
const maxCurves = 1000

// story is a trace of processes with what they sent.
type story struct {
	within   Range
	contents []string
	chapters []chapter
}

// chapter is one process of a story. Relations are "" where they are not wanted, or there is nothing.
type chapter struct {
	spans                       trace
	logs, measures, net, images string
}

// parseContents reads the list of what a story has.
func parseContents(text string) ([]string, error) {
	var out []string
	for one := range strings.SplitSeq(text, ",") {
		one = strings.TrimSpace(one)
		if one == "all" {
			return storyContents, nil
		}
		if !slices.Contains(storyContents, one) {
			return nil, &Error{Code: codeInvalid, Phase: phasePlan, Message: fmt.Sprintf("Error during planning: %s: contents must be of %s, or all, given: '%s'",
				storyFunction, strings.Join(storyContents, ", "), one)}
		}
		out = append(out, one)
	}
	return out, nil
}

// story has everything built that a story needs.
func (r *run) story(ctx context.Context, f dialect.FunctionRef) (*story, error) {
	if len(f.Args) < 4 {
		return nil, fmt.Errorf("%s: %w", f.Name, errArguments)
	}
	s := &story{}
	s.within.Begin, _ = f.Args[2].(int64)
	s.within.End, _ = f.Args[3].(int64)
	r.noteReversed(&s.within)
	text, _ := f.Args[1].(string)
	var err error
	if s.contents, err = parseContents(text); err != nil {
		return nil, err
	}
	ids, _ := f.Args[0].(string)
	for id := range strings.SplitSeq(ids, ",") {
		c, err := r.chapter(ctx, s, id)
		if err != nil {
			return nil, r.traceFailed(ctx, err)
		}
		s.chapters = append(s.chapters, *c)
	}
	if err := r.warnOfCurves(ctx, s.chapters); err != nil {
		return nil, r.traceFailed(ctx, err)
	}
	return s, nil
}

// warnOfCurves says whose measures a story has not all of. They are counted before it is written: then the warnings have been sent.
func (r *run) warnOfCurves(ctx context.Context, chapters []chapter) error {
	chapters = slices.DeleteFunc(slices.Clone(chapters), func(c chapter) bool { return c.measures == "" })
	if len(chapters) == 0 {
		return nil
	}
	conn, err := r.place(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // the connection is thrown away
	for i := range chapters {
		c := &chapters[i]
		err := eachRow(ctx, conn, `SELECT count(*) FROM (SELECT DISTINCT "name", "unit" FROM (`+c.measures+`))`, func(b arrow.RecordBatch, row int) error {
			if n := cellInt(b, 0, row); n > maxCurves {
				r.warn(fmt.Sprintf("process %s has %d measures in the range; those after the first %d, by name, are not in the trace", c.spans.process.ID, n, maxCurves))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *story) has(what string) bool { return slices.Contains(s.contents, what) }

// types names the kinds of spans that are wanted, "" for none.
func (s *story) types() string {
	switch threads, async := s.has(storyThreads), s.has(storyAsync); {
	case threads && async:
		return bothSpans
	case threads:
		return threadSpans
	case async:
		return asyncSpans
	}
	return ""
}

// chapter has everything built that a story needs of one process.
func (r *run) chapter(ctx context.Context, s *story, text string) (*chapter, error) {
	t, err := r.spansToTrace(ctx, text, s.types(), s.within)
	if err != nil {
		return nil, err
	}
	c := &chapter{spans: *t}
	for what, to := range map[string]*string{storyLogs: &c.logs, storyMeasures: &c.measures} {
		if !s.has(what) {
			continue
		}
		view := "log_entries"
		if what == storyMeasures {
			view = "measures"
		}
		if *to, err = r.eagerOf(ctx, view, &c.spans.process, s.within); err != nil {
			return nil, err
		}
	}
	for what, to := range map[string]*string{"net_spans": &c.net, "images": &c.images} {
		if what == "net_spans" && !s.has(storyNet) || what == "images" && !s.has(storyImages) {
			continue
		}
		w := wishFor(what, c.spans.process.ID, &s.within)
		all, err := r.materialize(ctx, []wish{w})
		if err != nil {
			return nil, err
		}
		r.warn(all[w].Warnings...)
		if len(all[w].paths) > 0 {
			*to = grantedRelation(tables.Must(what), all[w], &s.within, false)
		}
	}
	return c, nil
}

// eagerOf brings a view up to date for a process and a range, and returns the relation of its rows, "" without any.
func (r *run) eagerOf(ctx context.Context, view string, p *catalog.ProcessRow, within Range) (string, error) {
	t := tables.Must(view)
	if b := r.s.parts.Bus; b != nil {
		fresh, cancel := context.WithTimeout(ctx, r.s.cfg.FreshenTimeout)
		defer cancel()
		n := &needs{}
		n.addView(view, &p.ID)
		r.warn(freshen(fresh, b, n.asks(b, &within))...)
	}
	live, err := r.s.index.refresh(ctx)
	if err != nil {
		return "", err
	}
	r.hold(r.s.pins.hold(live.commitNo))
	parts := live.prune(view, within.Begin, within.End, processBit(p.ID))
	if len(parts) == 0 {
		return "", nil
	}
	paths, err := r.paths(ctx, parts)
	if err != nil {
		return "", err
	}
	return fileRelation(t, paths, needed(t, &within, parts), `"process_id" = `+quoteText(p.ID.String())), nil
}

func (s *story) options() perfetto.Options {
	return perfetto.Options{Nested: true, Lanes: true, PositiveIDs: true}
}

func (s *story) write(ctx context.Context, conn *engine.Conn, w *perfetto.Writer) error {
	for i := range s.chapters {
		c := &s.chapters[i]
		p := w.Process(c.spans.process.ID, c.spans.process.Exe)
		if err := c.spans.writeSpans(ctx, conn, p); err != nil {
			return err
		}
		for _, part := range []struct {
			relation string
			write    func(context.Context, *engine.Conn, string, *perfetto.Process) error
		}{{c.logs, writeLogs}, {c.measures, writeMeasures}, {c.net, writeNet}, {c.images, writeImages}} {
			if part.relation == "" {
				continue
			}
			if err := part.write(ctx, conn, part.relation, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// eachRow calls f for every row of a statement, with its batch and its number there.
func eachRow(ctx context.Context, conn *engine.Conn, sql string, f func(batch arrow.RecordBatch, row int) error) error {
	result, err := conn.Query(ctx, sql, engine.QueryOptions{})
	if err != nil {
		return fmt.Errorf("read rows of a trace: %w", err)
	}
	defer result.Close() //nolint:errcheck // never fails
	for {
		batch, err := result.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read rows of a trace: %w", err)
		}
		for row := range int(batch.NumRows()) {
			if err = f(batch, row); err != nil {
				break
			}
		}
		batch.Release()
		if err != nil {
			return err
		}
	}
}

// The statements below order rows by all that is written of them: the engine has equal ones in any order, and a trace is the same each time.

// Cells of columns whose types the statements below fix by casts.
func cellText(b arrow.RecordBatch, column, row int) string {
	return b.Column(column).(*array.String).Value(row)
}

func cellInt(b arrow.RecordBatch, column, row int) int64 {
	return b.Column(column).(*array.Int64).Value(row)
}

// writeLogs writes log entries as instants of a track of their process: an entry does not say on which thread it was written.
func writeLogs(ctx context.Context, conn *engine.Conn, relation string, p *perfetto.Process) error {
	track := p.Track("log")
	return eachRow(ctx, conn, `SELECT CAST(epoch_ns("time") AS BIGINT) AS t, CAST("level" AS BIGINT) AS l, CAST("target" AS VARCHAR) AS c, "msg" FROM (`+relation+`) ORDER BY t, l, c, "msg"`,
		func(b arrow.RecordBatch, row int) error {
			return track.Log(&perfetto.Entry{Time: cellInt(b, 0, row), Level: int32(cellInt(b, 1, row)), Target: cellText(b, 2, row), Message: cellText(b, 3, row)})
		})
}

// writeMeasures writes each measure as a curve.
func writeMeasures(ctx context.Context, conn *engine.Conn, relation string, p *perfetto.Process) error {
	name, unit, curves := "", "", 0
	var curve perfetto.Counter
	return eachRow(ctx, conn, `SELECT CAST("name" AS VARCHAR) AS n, CAST("unit" AS VARCHAR) AS u, CAST(epoch_ns("time") AS BIGINT) AS t, "value" FROM (`+relation+`) ORDER BY n, u, t, "value"`,
		func(b arrow.RecordBatch, row int) error {
			if n, u := cellText(b, 0, row), cellText(b, 1, row); curves == 0 || n != name || u != unit {
				if curves++; curves <= maxCurves {
					name, unit = strings.Clone(n), strings.Clone(u)
					curve = p.Counter(name, unit)
				}
			}
			if curves > maxCurves {
				return nil
			}
			return curve.Add(cellInt(b, 2, row), b.Column(3).(*array.Float64).Value(row))
		})
}

// writeNet writes network spans on a track for each connection and direction.
func writeNet(ctx context.Context, conn *engine.Conn, relation string, p *perfetto.Process) error {
	var track *perfetto.Track
	of := ""
	return eachRow(ctx, conn, `SELECT 'net ' || CASE WHEN "is_outgoing" THEN 'to ' ELSE 'from ' END || CAST("connection_name" AS VARCHAR) AS track,
CAST("kind" AS VARCHAR) AS k, CAST("name" AS VARCHAR) AS n, CAST("depth" AS BIGINT), CAST(epoch_ns("begin_time") AS BIGINT) AS b, CAST(epoch_ns("end_time") AS BIGINT) AS e, "bit_size", "begin_bits"
FROM (`+relation+`) ORDER BY track, b, "depth", "begin_bits", e, k, n, "bit_size"`, func(b arrow.RecordBatch, row int) error {
		if name := cellText(b, 0, row); track == nil || name != of {
			of = strings.Clone(name)
			track = p.Track(of)
		}
		span := telemetry.Span{
			Name: cellText(b, 2, row), Target: cellText(b, 1, row), Depth: uint32(min(cellInt(b, 3, row), math.MaxInt32)), Begin: cellInt(b, 4, row), End: cellInt(b, 5, row),
		}
		return track.SpanWith(&span, []perfetto.Arg{perfetto.Int("bits", cellInt(b, 6, row)), perfetto.Int("begin_bits", cellInt(b, 7, row))})
	})
}

// writeImages writes images as instants. Their sums stand for their bytes in the order: the engine would copy what it orders by.
func writeImages(ctx context.Context, conn *engine.Conn, relation string, p *perfetto.Process) error {
	track := p.Track("images")
	return eachRow(ctx, conn, `SELECT CAST(epoch_ns("time") AS BIGINT) AS t, "name", CAST("format" AS VARCHAR) AS f, "data" FROM (`+relation+`) ORDER BY t, "name", f, md5("data")`,
		func(b arrow.RecordBatch, row int) error {
			return track.Image(&perfetto.Picture{Time: cellInt(b, 0, row), Name: cellText(b, 1, row), Format: cellText(b, 2, row), Data: b.Column(3).(*array.Binary).Value(row)})
		})
}
