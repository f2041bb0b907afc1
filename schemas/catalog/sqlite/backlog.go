package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"math"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

func openBacklog(t *tx, consumer string, ranges []catalog.Backlog) error {
	for i := range ranges {
		b := &ranges[i]
		if _, err := t.exec("INSERT INTO backlog(consumer, class, gen, shard, first_seq, last_seq, min_time, max_time) VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
			consumer, className(b.Shard.Class), int64(b.Shard.Gen), int64(b.Shard.Shard), int64(b.FirstSeq), int64(b.LastSeq), b.MinTime, b.MaxTime); err != nil {
			return fmt.Errorf("open backlog of %s from %d: %w", b.Shard, b.FirstSeq, err)
		}
	}
	return nil
}

// moveChunk is the compare-and-swap of the backlog. Unlike a checkpoint's, its epoch must be equal: each claim raises it in the row.
func moveChunk(t *tx, consumer string, c *catalog.Chunk) error {
	if c == nil {
		return nil
	}
	n, err := t.exec("UPDATE backlog SET first_seq = ? WHERE range_no = ? AND consumer = ? AND first_seq = ? AND epoch = ? AND last_seq > ?",
		int64(c.To)+1, c.RangeNo, consumer, int64(c.From), c.Epoch, int64(c.To))
	if err != nil || n == 1 {
		return err
	}
	n, err = t.exec("DELETE FROM backlog WHERE range_no = ? AND consumer = ? AND first_seq = ? AND epoch = ? AND last_seq = ?",
		c.RangeNo, consumer, int64(c.From), c.Epoch, int64(c.To))
	if err != nil || n == 1 {
		return err
	}
	return fmt.Errorf("%s of backlog range %d from %d to %d with epoch %d: %w", consumer, c.RangeNo, c.From, c.To, c.Epoch, catalog.ErrConflict)
}

const backlogColumns = "range_no, class, gen, shard, first_seq, last_seq, min_time, max_time, owner, epoch, expires"

// Backlog implements catalog.Catalog.
func (db *DB) Backlog(ctx context.Context, consumer string) ([]catalog.Backlog, error) {
	return collect(ctx, db.read, func(rows *sql.Rows) (b catalog.Backlog, err error) {
		var class string
		err = rows.Scan(&b.RangeNo, &class, &b.Shard.Gen, &b.Shard.Shard, &b.FirstSeq, &b.LastSeq, &b.MinTime, &b.MaxTime, &b.Owner, &b.Epoch, &b.Expires)
		b.Shard.Class = classByte(class)
		return b, err
	}, "SELECT "+backlogColumns+" FROM backlog WHERE consumer = ? ORDER BY class, shard, gen, first_seq", consumer)
}

// claimed runs a statement that returns a backlog row, and reports whether it did.
func claimed(t *tx, b *catalog.Backlog, query string, args ...driver.Value) (found bool, err error) {
	err = t.query(query, func(row []driver.Value) error {
		var n [11]int64
		for i := range row {
			n[i], _ = row[i].(int64)
		}
		class, _ := row[1].(string)
		owner, _ := row[8].(string)
		*b = catalog.Backlog{
			RangeNo: n[0], Shard: catalog.ShardID{Class: classByte(class), Gen: int32(n[2]), Shard: int32(n[3])},
			FirstSeq: uint64(n[4]), LastSeq: uint64(n[5]), MinTime: n[6], MaxTime: n[7], Owner: owner, Epoch: n[9], Expires: n[10],
		}
		found = true
		return nil
	}, args...)
	return found, err
}

// ClaimBacklog implements catalog.Catalog.
func (db *DB) ClaimBacklog(ctx context.Context, consumer, owner string, ttl time.Duration) (b catalog.Backlog, found bool, err error) {
	err = db.writer.do(ctx, func(t *tx) (err error) {
		now := clock()
		found, err = claimed(t, &b, `UPDATE backlog SET owner = ?1, epoch = epoch + 1, expires = ?2 WHERE range_no = (
  SELECT range_no FROM backlog WHERE consumer = ?3 AND (owner = '' OR owner = ?1 OR expires < ?4)
  ORDER BY owner = '' DESC, gen DESC, last_seq DESC, class, shard LIMIT 1)
RETURNING `+backlogColumns, owner, now+int64(ttl), consumer, now)
		return err
	})
	if err != nil {
		return catalog.Backlog{}, false, fmt.Errorf("claim backlog of %s: %w", consumer, err)
	}
	return b, found, nil
}

// RenewBacklog implements catalog.Catalog.
func (db *DB) RenewBacklog(ctx context.Context, b catalog.Backlog, ttl time.Duration) (catalog.Backlog, error) {
	now := b
	err := db.writer.do(ctx, func(t *tx) error {
		found, err := claimed(t, &now, "UPDATE backlog SET expires = ? WHERE range_no = ? AND owner = ? AND epoch = ? RETURNING "+backlogColumns,
			clock()+int64(ttl), b.RangeNo, b.Owner, b.Epoch)
		if err == nil && !found {
			err = catalog.ErrLeaseLost
		}
		return err
	})
	if err != nil {
		return catalog.Backlog{}, fmt.Errorf("renew claim on backlog range %d: %w", b.RangeNo, err)
	}
	return now, nil
}

// ReleaseBacklog implements catalog.Catalog.
func (db *DB) ReleaseBacklog(ctx context.Context, b catalog.Backlog) error {
	err := db.writer.do(ctx, func(t *tx) error {
		return lost(t.exec("UPDATE backlog SET owner = '', expires = 0 WHERE range_no = ? AND owner = ? AND epoch = ?", b.RangeNo, b.Owner, b.Epoch))
	})
	if err != nil {
		return fmt.Errorf("release backlog range %d: %w", b.RangeNo, err)
	}
	return nil
}

// EventRange implements catalog.Catalog. Block times are kept in whole microseconds, so the end is given the rest of its own.
func (db *DB) EventRange(ctx context.Context, s catalog.ShardID, after, to uint64) (begin, end int64, err error) {
	var minTime, maxTime sql.NullInt64
	err = db.read.QueryRowContext(ctx, `SELECT min(b.begin_time), max(b.end_time) FROM packs p CROSS JOIN blocks b ON b.pack_no = p.pack_no
WHERE p.class = ? AND p.gen = ? AND p.shard = ? AND p.last_seq > ? AND p.first_seq <= ?`,
		className(s.Class), s.Gen, s.Shard, signed(after), signed(to)).Scan(&minTime, &maxTime)
	if err != nil {
		return 0, 0, fmt.Errorf("event times of %s from %d to %d: %w", s, after, to, err)
	}
	if !minTime.Valid {
		return math.MaxInt64, math.MinInt64, nil
	}
	return minTime.Int64, min(maxTime.Int64, math.MaxInt64-999) + 999, nil
}
