package postgres

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// insertTraces adds blocks with the ids at first..last of one list of all.
const insertTraces = `WITH n AS MATERIALIZED (
  SELECT (SELECT s.stream_no FROM streams s WHERE s.stream_id = b.stream_id) AS stream_no, b.begin_time, b.block_id, b.end_time, b.insert_time,
    ($6::uuid[])[b.first:b.last] AS ids, (SELECT max(nextval('trace_numbers')) FROM generate_series(b.first, b.last)) AS block_no
  FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::bigint[], $5::bigint[], $7::integer[], $8::integer[])
    AS b(stream_id, begin_time, block_id, end_time, insert_time, first, last)
), added AS (
  INSERT INTO trace_blocks(block_no, stream_no, begin_time, block_id, end_time, insert_time, ids)
  SELECT block_no, stream_no, begin_time, block_id, end_time, insert_time, ids FROM n)
INSERT INTO trace_ids(era, trace_id, block_no) SELECT n.block_no >> 16, u.id, n.block_no FROM n CROSS JOIN LATERAL unnest(n.ids) AS u(id)
ORDER BY u.id ON CONFLICT DO NOTHING`

const insertTraceFilters = `INSERT INTO trace_filters(filter_no, stream_no, begin_time, block_id, end_time, insert_time, filter)
SELECT (SELECT max(nextval('trace_filter_numbers')) FROM generate_series(1, b.units)),
  (SELECT s.stream_no FROM streams s WHERE s.stream_id = b.stream_id), b.begin_time, b.block_id, b.end_time, b.insert_time, b.filter
FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bytea[])
  AS b(stream_id, begin_time, block_id, end_time, insert_time, units, filter)`

// Rows are dropped when as many came after them as are kept ($1), but not many more than come: at most so many ($2) beyond the first one.
// It is twice as many as came, so that an index that is too large gets smaller. Rows that another shard's commit is dropping are its.
const (
	oldTraces = `WITH old AS MATERIALIZED (DELETE FROM trace_%[1]ss WHERE %[1]s_no = ANY(ARRAY(
    SELECT o.%[1]s_no FROM trace_%[1]ss o WHERE o.%[1]s_no <= least((SELECT max(%[1]s_no) FROM trace_%[1]ss) - $1, (SELECT min(%[1]s_no) FROM trace_%[1]ss) + $2)
    ORDER BY o.%[1]s_no FOR UPDATE SKIP LOCKED)) RETURNING *)`
	noteDropped = `
INSERT INTO trace_dropped AS d (class, gen, shard, until) SELECT $3, $4, $5, max(least(end_time, insert_time)) FROM old HAVING count(*) > 0
ON CONFLICT (class, gen, shard) DO UPDATE SET until = greatest(d.until, excluded.until)`
	// The subqueries make sure of a look-up by index.
	dropIDs = `, gone AS (DELETE FROM trace_ids WHERE ctid = ANY(ARRAY(
    SELECT (SELECT t.ctid FROM trace_ids t WHERE t.era = old.block_no >> 16 AND t.trace_id = u.id AND t.block_no = old.block_no) FROM old CROSS JOIN LATERAL unnest(old.ids) AS u(id))))`
)

var (
	dropTraces  = fmt.Sprintf(oldTraces, "block") + dropIDs + noteDropped
	dropFilters = fmt.Sprintf(oldTraces, "filter") + noteDropped
)

// traceColumns are the columns of blocks in the index.
type traceColumns struct {
	streams, ids           [][16]byte
	begins, ends, inserted []int64
}

func (t *traceColumns) add(b *catalog.BlockReg) {
	t.streams, t.ids = append(t.streams, b.StreamID), append(t.ids, b.ID)
	t.begins, t.ends = append(t.begins, micros(b.BeginTime)), append(t.ends, max(micros(b.BeginTime), micros(b.EndTime)))
	t.inserted = append(t.inserted, micros(b.InsertTime))
}

func (t *traceColumns) args(more ...any) []any {
	return append([]any{t.streams, t.begins, t.ids, t.ends, t.inserted}, more...)
}

// addTraces adds the trace ids of the commit's blocks, and drops old ones beyond the bounds.
func (a *archiving) addTraces(b *batch, db *DB) {
	var named, filtered traceColumns
	var ids [][16]byte
	var first, last []int32
	var units []int64
	var filters [][]byte
	total := int64(0) // of units
	for _, r := range a.blocks {
		if len(r.TraceIDs) > 0 {
			named.add(r)
			first = append(first, int32(len(ids)+1)) // arrays count from 1
			for k := 0; k < len(r.TraceIDs); k += catalog.TraceIDBytes {
				ids = append(ids, [16]byte(r.TraceIDs[k:]))
			}
			last = append(last, int32(len(ids)))
		}
		if len(r.TraceFilter) > 0 {
			filtered.add(r)
			units, filters = append(units, catalog.TraceFilterUnits(r.TraceFilter)), append(filters, r.TraceFilter)
			total += units[len(units)-1]
		}
	}
	shard := func(kept, most int64) []any {
		return []any{kept, most, class(a.c.Shard.Class), a.c.Shard.Gen, a.c.Shard.Shard}
	}
	if len(ids) > 0 {
		b.exec("add trace ids", insertTraces, named.args(ids, first, last)...)
		b.exec("drop trace ids", dropTraces, shard(db.traceIDs, 2*int64(len(ids)))...)
	}
	if len(filters) > 0 {
		b.exec("add filters of trace ids", insertTraceFilters, filtered.args(units, filters)...)
		b.exec("drop filters of trace ids", dropFilters, shard(db.traceFilterBytes/catalog.TraceFilterUnit, 2*total)...)
	}
}

const (
	selectTraceBlocks = `SELECT (SELECT s.stream_id FROM streams s WHERE s.stream_no = b.stream_no), b.begin_time, b.block_id
FROM (SELECT min(block_no) >> 16 AS first, max(block_no) >> 16 AS last FROM trace_blocks) n
CROSS JOIN LATERAL generate_series(n.first, n.last) AS e(era)
CROSS JOIN LATERAL (SELECT t.block_no FROM trace_ids t WHERE t.era = e.era AND t.trace_id = $1 OFFSET 0) t
CROSS JOIN LATERAL (SELECT * FROM trace_blocks b WHERE b.block_no = t.block_no OFFSET 0) b
WHERE b.begin_time <= $2 AND b.end_time >= $3`
	selectTraceFilters = `SELECT (SELECT s.stream_id FROM streams s WHERE s.stream_no = f.stream_no), f.begin_time, f.block_id, f.filter
FROM trace_filters f WHERE f.begin_time <= $1 AND f.end_time >= $2`
	selectTraceSince = "SELECT coalesce(max(until) + 1, 0) FROM trace_dropped"
)

// TraceBlocks implements catalog.Catalog.
func (db *DB) TraceBlocks(ctx context.Context, id [catalog.TraceIDBytes]byte, begin, end int64, mayHold func(filter []byte) bool) (all []catalog.BlockKey, err error) {
	leave, err := db.many(ctx)
	if err != nil {
		return nil, fmt.Errorf("blocks of trace %x: %w", id, err)
	}
	defer leave()
	begin = micros(begin) // as ends are kept
	err = db.snapshot(ctx, func(b *batch) {
		all = nil
		b.query("read blocks of a trace", selectTraceBlocks, func(r pgx.Rows) error {
			var k catalog.BlockKey
			err := r.Scan((*[16]byte)(&k.StreamID), &k.BeginTime, (*[16]byte)(&k.BlockID))
			all = append(all, k)
			return err
		}, id, end, begin)
		b.query("read filters of trace ids", selectTraceFilters, func(r pgx.Rows) error {
			var k catalog.BlockKey
			var filter pgtype.DriverBytes
			if err := r.Scan((*[16]byte)(&k.StreamID), &k.BeginTime, (*[16]byte)(&k.BlockID), &filter); err != nil {
				return err
			}
			if mayHold(filter) {
				all = append(all, k)
			}
			return nil
		}, end, begin)
	})
	if err != nil {
		return nil, fmt.Errorf("blocks of trace %x: %w", id, err)
	}
	slices.SortFunc(all, catalog.BlockKey.Compare)
	return all, nil
}

// TraceSince implements catalog.Catalog.
func (db *DB) TraceSince(ctx context.Context) (since int64, err error) {
	err = db.read(ctx, func(b *batch) {
		b.query("read since when traces are indexed", selectTraceSince, func(r pgx.Rows) error { return r.Scan(&since) })
	})
	return since, err
}
