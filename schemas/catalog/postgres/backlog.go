package postgres

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

func (b *batch) openBacklog(consumer string, ranges []catalog.Backlog) {
	for i := range ranges {
		r := &ranges[i]
		b.exec(fmt.Sprintf("open backlog of %s from %d", r.Shard, r.FirstSeq),
			"INSERT INTO backlog(consumer, class, gen, shard, first_seq, last_seq, min_time, max_time) VALUES($1, $2, $3, $4, $5, $6, $7, $8)",
			consumer, class(r.Shard.Class), r.Shard.Gen, r.Shard.Shard, signed(r.FirstSeq), signed(r.LastSeq), r.MinTime, r.MaxTime)
	}
}

// moveChunk is the compare-and-swap of the backlog. Unlike a checkpoint's, its epoch must be equal: each claim raises it in the row.
const moveChunk = `WITH moved AS (
  UPDATE backlog SET first_seq = $4 + 1 WHERE range_no = $1 AND consumer = $2 AND first_seq = $3 AND epoch = $5 AND last_seq > $4 RETURNING 1
), done AS (
  DELETE FROM backlog WHERE range_no = $1 AND consumer = $2 AND first_seq = $3 AND epoch = $5 AND last_seq = $4 RETURNING 1)
SELECT catalog_refuse('` + codeConflict + `', $6) WHERE NOT EXISTS (SELECT FROM moved) AND NOT EXISTS (SELECT FROM done)`

func (b *batch) moveChunk(consumer string, c *catalog.Chunk) {
	if c == nil {
		return
	}
	what := fmt.Sprintf("%s of backlog range %d from %d to %d with epoch %d", consumer, c.RangeNo, c.From, c.To, c.Epoch)
	b.exec(what, moveChunk, c.RangeNo, consumer, signed(c.From), signed(c.To), c.Epoch, what)
}

const backlogColumns = "range_no, class, gen, shard, first_seq, last_seq, min_time, max_time, owner, epoch, expires"

func scanBacklog(r pgx.Rows, b *catalog.Backlog) error {
	var first, last int64
	err := r.Scan(&b.RangeNo, (*class)(&b.Shard.Class), &b.Shard.Gen, &b.Shard.Shard, &first, &last, &b.MinTime, &b.MaxTime, &b.Owner, &b.Epoch, &b.Expires)
	b.FirstSeq, b.LastSeq = uint64(first), uint64(last)
	return err
}

// Backlog implements catalog.Catalog.
func (db *DB) Backlog(ctx context.Context, consumer string) (all []catalog.Backlog, err error) {
	err = db.read(ctx, func(b *batch) {
		all = nil
		b.query("read backlog of "+consumer, "SELECT "+backlogColumns+" FROM backlog WHERE consumer = $1 ORDER BY class, shard, gen, first_seq", func(r pgx.Rows) error {
			var one catalog.Backlog
			err := scanBacklog(r, &one)
			all = append(all, one)
			return err
		}, consumer)
	})
	return all, err
}

// claimBacklog passes over a range that another transaction holds at this moment: it is being claimed or worked on.
const claimBacklog = `UPDATE backlog SET owner = $2, epoch = epoch + 1, expires = ` + storeClock + ` + $3 WHERE range_no = (
  SELECT range_no FROM backlog WHERE consumer = $1 AND (owner = '' OR owner = $2 OR expires < ` + storeClock + `)
  ORDER BY owner = '' DESC, gen DESC, last_seq DESC, class, shard LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING ` + backlogColumns

// ClaimBacklog implements catalog.Catalog.
func (db *DB) ClaimBacklog(ctx context.Context, consumer, owner string, ttl time.Duration) (c catalog.Backlog, found bool, err error) {
	err = db.write(ctx, func(b *batch) {
		found = false
		b.query("claim backlog of "+consumer, claimBacklog, func(r pgx.Rows) error {
			found = true
			return scanBacklog(r, &c)
		}, consumer, owner, int64(ttl))
	})
	if err != nil || !found {
		return catalog.Backlog{}, false, err
	}
	return c, true, nil
}

// RenewBacklog implements catalog.Catalog. Like KeepLeases it does not wait for the disk.
func (db *DB) RenewBacklog(ctx context.Context, c catalog.Backlog, ttl time.Duration) (now catalog.Backlog, err error) {
	found := false
	what := fmt.Sprintf("renew claim on backlog range %d", c.RangeNo)
	err = db.repeat(ctx, func(b *batch) {
		found = false
		b.exec(what, asyncCommit)
		b.query(what, "UPDATE backlog SET expires = "+storeClock+" + $4 WHERE range_no = $1 AND owner = $2 AND epoch = $3 AND owner <> '' RETURNING "+backlogColumns, func(r pgx.Rows) error {
			found = true
			return scanBacklog(r, &now)
		}, c.RangeNo, c.Owner, c.Epoch, int64(ttl))
	})
	if err == nil && !found {
		err = fmt.Errorf("%s: %w", what, catalog.ErrLeaseLost)
	}
	if err != nil {
		return catalog.Backlog{}, err
	}
	return now, nil
}

// ReleaseBacklog implements catalog.Catalog.
func (db *DB) ReleaseBacklog(ctx context.Context, c catalog.Backlog) error {
	found := false
	what := fmt.Sprintf("release backlog range %d", c.RangeNo)
	err := db.write(ctx, func(b *batch) {
		found = false
		b.query(what, "UPDATE backlog SET owner = '', expires = 0 WHERE range_no = $1 AND owner = $2 AND epoch = $3 RETURNING 1", func(pgx.Rows) error {
			found = true
			return nil
		}, c.RangeNo, c.Owner, c.Epoch)
	})
	if err == nil && !found {
		err = fmt.Errorf("%s: %w", what, catalog.ErrLeaseLost)
	}
	return err
}

// EventRange implements catalog.Catalog. Block times are kept in whole microseconds, so the end is given the rest of its own.
func (db *DB) EventRange(ctx context.Context, s catalog.ShardID, after, to uint64) (begin, end int64, err error) {
	err = db.read(ctx, func(b *batch) {
		begin, end = math.MaxInt64, math.MinInt64
		b.query(fmt.Sprintf("event times of %s from %d to %d", s, after, to), `SELECT min(first_begin), max(last_end) FROM packs
WHERE class = $1 AND gen = $2 AND shard = $3 AND last_seq > $4 AND first_seq <= $5`, func(r pgx.Rows) error {
			var first, last *int64
			if err := r.Scan(&first, &last); err != nil || first == nil || last == nil {
				return err
			}
			begin, end = *first, min(*last, math.MaxInt64-999)+999
			return nil
		}, class(s.Class), s.Gen, s.Shard, signed(after), signed(to))
	})
	return begin, end, err
}
