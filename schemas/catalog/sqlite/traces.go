package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"slices"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

const traceColumns = "stream_no, begin_time, block_id, end_time, insert_time"

var (
	insertTraceBlocks = newMulti("INSERT INTO trace_blocks(block_no, "+traceColumns+", ids) VALUES ", 7, "")
	insertTraceIDs    = newMulti("INSERT INTO trace_ids(era, trace_id, block_no) VALUES ", 3, " ON CONFLICT DO NOTHING")
)

const (
	insertTraceFilter = "INSERT INTO trace_filters(filter_no, " + traceColumns + ", filter) VALUES(?, ?, ?, ?, ?, ?, ?)"
	// eraBits are those of a block's number within its era.
	eraBits = 16
)

// traces writes the trace ids of the commit's blocks, and drops old ones beyond the bounds.
func (a *archiving) traces() error {
	var ids, units int64 // of this commit
	for i := range a.c.Blocks {
		ids += int64(len(a.c.Blocks[i].TraceIDs) / catalog.TraceIDBytes)
		units += catalog.TraceFilterUnits(a.c.Blocks[i].TraceFilter)
	}
	if ids > 0 {
		if err := a.traceIDs(ids); err != nil {
			return fmt.Errorf("trace ids: %w", err)
		}
	}
	if units > 0 {
		if err := a.traceFilters(units); err != nil {
			return fmt.Errorf("filters of trace ids: %w", err)
		}
	}
	return nil
}

// traceRow are the columns of a block's row in the index.
func (a *archiving) traceRow(i int, no int64, data []byte) []driver.Value {
	b := &a.c.Blocks[i]
	begin, end := catalog.TruncateToMicroseconds(b.BeginTime), catalog.TruncateToMicroseconds(b.EndTime)
	return []driver.Value{no, a.rows[i].stream, begin, b.ID[:], max(begin, end), catalog.TruncateToMicroseconds(b.InsertTime), data}
}

// traceEntry is an id of a block.
type traceEntry struct {
	id []byte
	no int64
}

func (a *archiving) traceIDs(added int64) error {
	no, err := a.t.queryInt("SELECT coalesce(max(block_no), 0) FROM trace_blocks")
	if err != nil {
		return err
	}
	var rows []driver.Value
	entries := make([]traceEntry, 0, added)
	for i := range a.c.Blocks {
		ids := a.c.Blocks[i].TraceIDs
		if len(ids) == 0 {
			continue
		}
		no += int64(len(ids) / catalog.TraceIDBytes)
		rows = append(rows, a.traceRow(i, no, ids)...)
		for k := 0; k < len(ids); k += catalog.TraceIDBytes {
			entries = append(entries, traceEntry{ids[k : k+catalog.TraceIDBytes : k+catalog.TraceIDBytes], no})
		}
	}
	const width = 7
	err = inGroups(len(rows)/width, func(from, to int) error {
		_, err := a.t.exec(insertTraceBlocks[to-from], rows[from*width:to*width]...)
		return err
	})
	if err != nil {
		return err
	}
	slices.SortFunc(entries, func(x, y traceEntry) int { return bytes.Compare(x.id, y.id) }) // pages are visited once
	err = inGroups(len(entries), func(from, to int) error {
		a.args = a.args[:0]
		for _, e := range entries[from:to] {
			a.args = append(a.args, e.no>>eraBits, e.id, e.no)
		}
		_, err := a.t.exec(insertTraceIDs[to-from], a.args...)
		return err
	})
	if err != nil {
		return err
	}
	return a.dropTraceIDs(no-a.t.w.traceIDs, 2*added)
}

// Rows up to a number are dropped, but not many more than come: at most so many beyond the first one. It is twice as many as came, so
// that an index that is too large gets smaller.
const (
	selectOldTraces  = "SELECT block_no, ids, min(end_time, insert_time) FROM trace_blocks WHERE block_no <= min(?, (SELECT min(block_no) FROM trace_blocks) + ?) ORDER BY block_no"
	selectOldFilters = "SELECT max(filter_no), max(min(end_time, insert_time)) FROM trace_filters WHERE filter_no <= min(?, (SELECT min(filter_no) FROM trace_filters) + ?)"
	noteDropped      = `INSERT INTO trace_dropped(class, gen, shard, until) VALUES(?, ?, ?, ?)
ON CONFLICT(class, gen, shard) DO UPDATE SET until = max(until, excluded.until)`
)

func (a *archiving) dropTraceIDs(upTo, most int64) error {
	if upTo <= 0 {
		return nil
	}
	var all []traceEntry
	last, until := int64(0), int64(0) // numbers begin at 1
	err := a.t.query(selectOldTraces, func(row []driver.Value) error {
		no, _ := row[0].(int64)
		ids, _ := row[1].([]byte)
		at, _ := row[2].(int64)
		if last == 0 || at > until {
			until = at
		}
		last = no
		ids = slices.Clone(ids)
		for k := 0; k < len(ids); k += catalog.TraceIDBytes {
			all = append(all, traceEntry{ids[k : k+catalog.TraceIDBytes : k+catalog.TraceIDBytes], no})
		}
		return nil
	}, upTo, most)
	if err != nil || last == 0 {
		return err
	}
	slices.SortFunc(all, func(x, y traceEntry) int { return bytes.Compare(x.id, y.id) })
	for _, e := range all {
		if _, err := a.t.exec("DELETE FROM trace_ids WHERE era = ? AND trace_id = ? AND block_no = ?", e.no>>eraBits, e.id, e.no); err != nil {
			return err
		}
	}
	if _, err := a.t.exec("DELETE FROM trace_blocks WHERE block_no <= ?", last); err != nil {
		return err
	}
	return a.noteDropped(until)
}

func (a *archiving) noteDropped(until int64) error {
	s := a.c.Shard
	_, err := a.t.exec(noteDropped, className(s.Class), int64(s.Gen), int64(s.Shard), until)
	return err
}

func (a *archiving) traceFilters(added int64) error {
	no, err := a.t.queryInt("SELECT coalesce(max(filter_no), 0) FROM trace_filters")
	if err != nil {
		return err
	}
	for i := range a.c.Blocks {
		filter := a.c.Blocks[i].TraceFilter
		if len(filter) == 0 {
			continue
		}
		no += catalog.TraceFilterUnits(filter)
		if _, err := a.t.exec(insertTraceFilter, a.traceRow(i, no, filter)...); err != nil {
			return err
		}
	}
	upTo := no - a.t.w.traceFilterBytes/catalog.TraceFilterUnit
	if upTo <= 0 {
		return nil
	}
	var last, until int64
	err = a.t.query(selectOldFilters, func(row []driver.Value) error {
		last, _ = row[0].(int64) // NULL: there are none
		until, _ = row[1].(int64)
		return nil
	}, upTo, 2*added)
	if err != nil || last == 0 {
		return err
	}
	if _, err := a.t.exec("DELETE FROM trace_filters WHERE filter_no <= ?", last); err != nil {
		return err
	}
	return a.noteDropped(until)
}

const (
	selectTraceBlocks = `WITH RECURSIVE e(era) AS (SELECT min(block_no) >> 16 FROM trace_blocks
  UNION ALL SELECT era + 1 FROM e WHERE era < (SELECT max(block_no) >> 16 FROM trace_blocks))
SELECT s.stream_id, b.begin_time, b.block_id FROM e CROSS JOIN trace_ids t USING(era) CROSS JOIN trace_blocks b USING(block_no) CROSS JOIN streams s USING(stream_no)
WHERE t.trace_id = ? AND b.begin_time <= ? AND b.end_time >= ?`
	selectTraceFilters = `SELECT s.stream_id, f.begin_time, f.block_id, f.filter FROM trace_filters f CROSS JOIN streams s USING(stream_no)
WHERE f.begin_time <= ? AND f.end_time >= ?`
	selectTraceSince = "SELECT coalesce(max(until) + 1, 0) FROM trace_dropped"
)

// TraceBlocks implements catalog.Catalog.
func (db *DB) TraceBlocks(ctx context.Context, id [catalog.TraceIDBytes]byte, begin, end int64, mayHold func(filter []byte) bool) ([]catalog.BlockKey, error) {
	begin = catalog.TruncateToMicroseconds(begin) // as ends are kept
	var all []catalog.BlockKey
	err := db.snapshot(ctx, func(t *sql.Tx) (err error) {
		all, err = collect(ctx, t, func(rows *sql.Rows) (k catalog.BlockKey, err error) {
			err = rows.Scan(idColumn{&k.StreamID}, &k.BeginTime, idColumn{&k.BlockID})
			return k, err
		}, selectTraceBlocks, id[:], end, begin)
		if err != nil {
			return err
		}
		rows, err := t.QueryContext(ctx, selectTraceFilters, end, begin)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var k catalog.BlockKey
			var filter sql.RawBytes
			if err := rows.Scan(idColumn{&k.StreamID}, &k.BeginTime, idColumn{&k.BlockID}, &filter); err != nil {
				return err
			}
			if mayHold(filter) {
				all = append(all, k)
			}
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("blocks of trace %x: %w", id, err)
	}
	slices.SortFunc(all, catalog.BlockKey.Compare)
	return all, nil
}

// TraceSince implements catalog.Catalog.
func (db *DB) TraceSince(ctx context.Context) (since int64, err error) {
	if err := db.read.QueryRowContext(ctx, selectTraceSince).Scan(&since); err != nil {
		return 0, fmt.Errorf("read since when traces are indexed: %w", err)
	}
	return since, nil
}
