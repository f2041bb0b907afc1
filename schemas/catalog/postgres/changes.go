package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Each archive commit notes which rows of processes and streams it changed, under its position. Why that is enough: rows change in
// archive commits alone, and a commit is seen with its note or not at all, so a row that differs between two moments was changed by a
// commit that is seen at the second one only, whatever the order in which commits of several shards came to their ends.

// noteChanges is a part of the statement that updates last-seen times: it must see the same process of a stream, which another shard's
// commit may change at any time. What is registered again is noted too.
const noteChanges = `
  INSERT INTO changes(class, gen, shard, seq, from_seq, weight, processes, streams)
  SELECT $7, $8, $9, $10, $11, coalesce((SELECT k.weight FROM changes k WHERE k.class = $7 AND k.gen = $8 AND k.shard = $9 AND k.seq < $10 ORDER BY k.seq DESC LIMIT 1), 0)
    + $14 + cardinality(p.list) + cardinality(s.list), p.list, s.list
  FROM (SELECT coalesce(array_agg(no ORDER BY no), '{}') FROM (SELECT process_no FROM n
      UNION SELECT (SELECT o.process_no FROM processes o WHERE o.process_id = i.id) FROM unnest($12::uuid[]) AS i(id)) AS u(no)) AS p(list),
    (SELECT coalesce(array_agg(no ORDER BY no), '{}') FROM (SELECT stream_no FROM n
      UNION SELECT (SELECT o.stream_no FROM streams o WHERE o.stream_id = i.id) FROM unnest($13::uuid[]) AS i(id)) AS u(no)) AS s(list)`

// changeArgs are the arguments of noteChanges.
func (a *archiving) changeArgs() []any {
	processes, streams := make([][16]byte, len(a.processes)), make([][16]byte, len(a.streams))
	for i := range a.processes {
		processes[i] = a.processes[i].id
	}
	for i := range a.streams {
		streams[i] = a.streams[i].id
	}
	s := a.c.Shard
	return []any{class(s.Class), s.Gen, s.Shard, signed(a.c.To), signed(a.c.From), processes, streams, catalog.ChangeWeight}
}

// forgetEvery is how many positions lie between commits that forget old notes. There is at most one note a position.
const forgetEvery = 256

const deleteChanges = `DELETE FROM changes WHERE class = $1 AND gen = $2 AND shard = $3
AND seq IN (SELECT seq FROM changes WHERE class = $1 AND gen = $2 AND shard = $3 ORDER BY seq LIMIT $4)
AND weight <= (SELECT weight FROM changes WHERE class = $1 AND gen = $2 AND shard = $3 ORDER BY seq DESC LIMIT 1) - $5`

// forgetChanges removes notes that nobody needs, now and then.
func (a *archiving) forgetChanges(b *batch, kept int64) {
	if s := a.c.Shard; a.c.From/forgetEvery != a.c.To/forgetEvery {
		b.exec("forget old changes", deleteChanges, class(s.Class), s.Gen, s.Shard, 2*forgetEvery, kept)
	}
}

// sinceStarts lists the shards and where the reader stands in each. A shard that it does not know it reads from its start.
const sinceStarts = `SELECT c.class, c.gen, c.shard, c.seq, coalesce(a.seq, greatest(g.first_seq - 1, 0), 0) AS start
FROM checkpoints c LEFT JOIN unnest($1::text[], $2::integer[], $3::integer[], $4::bigint[]) AS a(class, gen, shard, seq) USING(class, gen, shard)
LEFT JOIN generations g USING(class, gen, shard) WHERE c.consumer = '` + catalog.ConsumerArchive + `'`

// selectWhole tells for each shard whether all notes after the reader's position are there. They do not overlap, so they are all there when
// their lengths add up.
const selectWhole = `SELECT c.class, c.gen, c.shard, c.seq, c.seq <= c.start OR coalesce(k.whole, false) FROM (` + sinceStarts + ` OFFSET 0) c
LEFT JOIN LATERAL (SELECT max(k.seq) = c.seq AND min(k.from_seq) <= c.start AND sum(k.seq - k.from_seq) = c.seq - min(k.from_seq) AS whole
  FROM changes k WHERE k.class = c.class AND k.gen = c.gen AND k.shard = c.shard AND k.seq > c.start) k ON true`

// selectChanged returns the ids of the rows that are noted. The subquery makes sure of a look-up by number.
func selectChanged(column, table, id, no string) string {
	return `SELECT (SELECT o.` + id + ` FROM ` + table + ` o WHERE o.` + no + ` = n.no) FROM (
  SELECT DISTINCT u.no FROM (` + sinceStarts + ` OFFSET 0) c
  CROSS JOIN LATERAL (SELECT k.` + column + ` AS list FROM changes k WHERE k.class = c.class AND k.gen = c.gen AND k.shard = c.shard AND k.seq > c.start OFFSET 0) k
  CROSS JOIN LATERAL unnest(k.list) AS u(no) ORDER BY u.no LIMIT $5) n ORDER BY n.no`
}

var (
	selectChangedProcesses = selectChanged("processes", "processes", "process_id", "process_no")
	selectChangedStreams   = selectChanged("streams", "streams", "stream_id", "stream_no")
)

// ChangedProcesses implements catalog.Catalog.
func (db *DB) ChangedProcesses(ctx context.Context, after map[catalog.ShardID]uint64, limit int) (catalog.Changes, error) {
	return db.changed(ctx, "changed processes", selectChangedProcesses, after, limit)
}

// ChangedStreams implements catalog.Catalog.
func (db *DB) ChangedStreams(ctx context.Context, after map[catalog.ShardID]uint64, limit int) (catalog.Changes, error) {
	return db.changed(ctx, "changed streams", selectChangedStreams, after, limit)
}

func (db *DB) changed(ctx context.Context, what, ids string, after map[catalog.ShardID]uint64, limit int) (c catalog.Changes, err error) {
	leave, err := db.many(ctx)
	if err != nil {
		return catalog.Changes{}, fmt.Errorf("read %s: %w", what, err)
	}
	defer leave()
	var most *int // one more than asked for
	if limit > 0 {
		limit++
		most = &limit
	}
	at := columnsOf(after)
	err = db.snapshot(ctx, func(b *batch) {
		c = catalog.Changes{Positions: map[catalog.ShardID]uint64{}}
		b.query("read positions of "+what, selectWhole, func(r pgx.Rows) error {
			var s catalog.ShardID
			var seq int64
			var whole bool
			err := r.Scan((*class)(&s.Class), &s.Gen, &s.Shard, &seq, &whole)
			c.Positions[s] = uint64(seq)
			c.All = c.All || !whole
			return err
		}, at.class, at.gen, at.shard, at.seq)
		b.query("read "+what, ids, func(r pgx.Rows) error {
			var id telemetry.ID
			err := r.Scan((*[16]byte)(&id))
			c.IDs = append(c.IDs, id)
			return err
		}, at.class, at.gen, at.shard, at.seq, most)
	})
	if err != nil {
		return catalog.Changes{}, err
	}
	if c.All = c.All || most != nil && len(c.IDs) >= *most; c.All {
		c.IDs = nil
	}
	return c, nil
}
