package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// A freeze commit only hides the rows that it moves: BlocksSince leaves out the span of a freeze that is not swept. To delete a
// million rows in that transaction would hold up all other commits for some 6 s; SweepFrozen does it a few thousand at a time.

const selectFrozen = `SELECT p.part_no, v.name, p.instance_no, p.level, p.bucket, p.min_time, p.max_time, p.min_insert, p.max_insert, p.rows, p.size,
  p.schema_ver, p.sort, p.procs, p.key, p.src_hash, p.added, f.max_begin, f.max_end, f.first_stream, f.last_stream, f.tail_size, f.tail_crc
FROM frozen f CROSS JOIN partitions p USING(part_no) CROSS JOIN views v USING(view_no)
WHERE p.min_time <= ? AND f.max_end >= ? ORDER BY f.part_no`

func scanFrozen(rows *sql.Rows) (f catalog.FrozenFile, err error) {
	err = rows.Scan(&f.PartNo, &f.View, &f.Instance, &f.Level, &f.Bucket, &f.MinTime, &f.MaxTime, &f.MinInsert, &f.MaxInsert, &f.Rows, &f.Size,
		&f.SchemaVer, &f.Sort, &f.Procs, &f.Key, &f.SrcHash, &f.Added, &f.MaxBegin, &f.MaxEnd, idColumn{&f.FirstStream}, idColumn{&f.LastStream}, &f.TailSize, &f.TailCRC)
	return f, err
}

const selectVersion = "SELECT frozen_no FROM clock WHERE one = 1"

// Frozen implements catalog.Catalog.
func (db *DB) Frozen(ctx context.Context, begin, end int64) (catalog.Frozen, error) {
	var f catalog.Frozen
	err := db.snapshot(ctx, func(t *sql.Tx) (err error) {
		if err := t.QueryRowContext(ctx, selectVersion).Scan(&f.Version); err != nil || f.Version == 0 {
			return err
		}
		f.Files, err = collect(ctx, t, scanFrozen, selectFrozen, end, begin)
		return err
	})
	if err != nil {
		return catalog.Frozen{}, fmt.Errorf("frozen files: %w", err)
	}
	return f, nil
}

// spanOf writes the FROM clause of the rows of a span, in the order of the streams' and the blocks' trees. Its first arguments
// are returned; what follows in the text are the greatest first_time of a stream, the least and the greatest begin time.
func spanOf(columns string, upTo map[catalog.ShardID]uint64) (query string, args []any) {
	var b strings.Builder
	b.WriteString("WITH up_to(class, gen, shard, seq) AS (VALUES ")
	for i, s := range slices.SortedFunc(maps.Keys(upTo), catalog.ShardID.Compare) {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("(?,?,?,?)")
		args = append(args, className(s.Class), s.Gen, s.Shard, signed(upTo[s]))
	}
	b.WriteString(") SELECT " + columns + ` FROM streams s CROSS JOIN blocks b ON s.first_time <= ? AND b.stream_no = s.stream_no AND b.begin_time BETWEEN ? AND ?
CROSS JOIN packs k ON k.pack_no = b.pack_no
CROSS JOIN up_to u ON u.class = k.class AND u.gen = k.gen AND u.shard = k.shard AND u.seq >= k.last_seq `)
	return b.String(), args
}

// Freezable implements catalog.Catalog.
func (db *DB) Freezable(ctx context.Context, before, after int64) (catalog.Freezable, error) {
	var f catalog.Freezable
	err := db.snapshot(ctx, func(t *sql.Tx) (err error) {
		swept := false
		if err := t.QueryRowContext(ctx, "SELECT frozen_no, NOT EXISTS(SELECT 1 FROM freezes WHERE next_stream IS NOT NULL) FROM clock WHERE one = 1").Scan(&f.Version, &swept); err != nil {
			return err
		}
		if !swept {
			return fmt.Errorf("%w: rows of the last freeze are not swept", catalog.ErrStale)
		}
		if f.UpTo, err = freezeLimits(ctx, t); err != nil || len(f.UpTo) == 0 {
			return err
		}
		for _, span := range [][2]int64{{math.MinInt64, before - 1}, {after + 1, math.MaxInt64}} {
			days, err := daysOf(ctx, t, f.UpTo, span[0], span[1])
			if err != nil {
				return err
			}
			f.Days = append(f.Days, days...)
		}
		return nil
	})
	if err != nil {
		return catalog.Freezable{}, fmt.Errorf("freezable blocks: %w", err)
	}
	return f, nil
}

func daysOf(ctx context.Context, t *sql.Tx, upTo map[catalog.ShardID]uint64, from, to int64) ([]catalog.DayRows, error) {
	const day = int64(24 * time.Hour)
	query, args := spanOf(fmt.Sprintf("b.begin_time / %d - (b.begin_time %% %d < 0), count(*), min(b.insert_time)", day, day), upTo)
	return collect(ctx, t, func(rows *sql.Rows) (d catalog.DayRows, err error) {
		err = rows.Scan(&d.Day, &d.Rows, &d.FirstInsert)
		return d, err
	}, query+"GROUP BY 1 ORDER BY 1", append(args, to, from, to)...)
}

// freezeLimits returns the positions that everybody has passed who may ask for block rows.
func freezeLimits(ctx context.Context, t *sql.Tx) (map[catalog.ShardID]uint64, error) {
	limits, err := archivePositions(ctx, t)
	if err != nil {
		return nil, err
	}
	rows, err := t.QueryContext(ctx, `SELECT class, gen, shard, (SELECT seq FROM checkpoints v WHERE v.consumer = ? AND v.class = a.class AND v.gen = a.gen AND v.shard = a.shard),
  (SELECT min(first_seq) FROM backlog b WHERE b.class = a.class AND b.gen = a.gen AND b.shard = a.shard)
FROM checkpoints a WHERE consumer = ?`, catalog.ConsumerViews, catalog.ConsumerArchive)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var class string
		var s catalog.ShardID
		var viewed, open sql.NullInt64
		if err := rows.Scan(&class, &s.Gen, &s.Shard, &viewed, &open); err != nil {
			return nil, err
		}
		s.Class = classByte(class)
		if s.Class == catalog.ClassEager {
			limits[s] = min(limits[s], uint64(viewed.Int64)) // NULL: nothing is viewed
		}
		if open.Valid {
			limits[s] = min(limits[s], uint64(open.Int64-1))
		}
		if limits[s] == 0 {
			delete(limits, s)
		}
	}
	return limits, rows.Err()
}

// freezableColumns are those of a BlockRow.
const freezableColumns = `s.stream_id, b.begin_time, b.block_id, (SELECT process_id FROM processes p WHERE p.process_no = s.process_no), b.end_time, b.begin_ticks, b.end_ticks,
  b.object_offset, b.nb_objects, b.insert_time, b.payload_size, k.key, b.pack_off, b.pack_len, k.class, k.gen, k.shard, k.last_seq`

func scanFreezable(rows *sql.Rows) (b catalog.BlockRow, err error) {
	var class string
	err = rows.Scan(idColumn{&b.StreamID}, &b.BeginTime, idColumn{&b.ID}, idColumn{&b.ProcessID}, &b.EndTime, &b.BeginTicks, &b.EndTicks,
		&b.ObjectOffset, &b.NbObjects, &b.InsertTime, &b.PayloadSize, &b.PackKey, &b.PackOffset, &b.PackLength, &class, &b.Shard.Gen, &b.Shard.Shard, &b.PackSeq)
	b.Shard.Class = classByte(class)
	return b, err
}

// FreezableBlocks implements catalog.Catalog.
func (db *DB) FreezableBlocks(ctx context.Context, s catalog.FreezeSpan) iter.Seq2[catalog.BlockRow, error] {
	return func(yield func(catalog.BlockRow, error) bool) {
		if err := db.freezableBlocks(ctx, s, func(b catalog.BlockRow) bool { return yield(b, nil) }); err != nil {
			yield(catalog.BlockRow{}, fmt.Errorf("read blocks to freeze: %w", err))
		}
	}
}

func (db *DB) freezableBlocks(ctx context.Context, s catalog.FreezeSpan, yield func(catalog.BlockRow) bool) error {
	if len(s.UpTo) == 0 {
		return nil
	}
	query, args := spanOf(freezableColumns, s.UpTo)
	rows, err := db.read.QueryContext(ctx, query+"ORDER BY s.stream_id, b.begin_time, b.block_id", append(args, s.To, s.From, s.To)...)
	if err != nil {
		return err
	}
	defer rows.Close()
	keys := map[string]string{} // one pack's key stands in many rows
	for rows.Next() {
		b, err := scanFreezable(rows)
		if err != nil {
			return err
		}
		if key, ok := keys[b.PackKey]; ok {
			b.PackKey = key
		} else {
			keys[b.PackKey] = b.PackKey
		}
		if !yield(b) {
			return nil
		}
	}
	return rows.Err()
}

// CommitFreeze implements catalog.Catalog.
func (db *DB) CommitFreeze(ctx context.Context, c *catalog.FreezeCommit) (int64, error) {
	if err := errors.Join(c.Validate(), c.CheckGuard(time.Now().UnixNano())); err != nil {
		return 0, err
	}
	// What is checked here cannot change while the version does not.
	if err := db.checkFreeze(ctx, c); err != nil {
		return 0, fmt.Errorf("freeze: %w", err)
	}
	version := int64(0)
	err := db.writer.do(ctx, func(t *tx) error {
		have, err := t.queryInt(selectVersion)
		if err != nil {
			return err
		}
		if have != c.Version {
			return fmt.Errorf("version %d, not %d: %w", have, c.Version, catalog.ErrStale)
		}
		if version, err = t.queryInt(commitNoQuery); err != nil {
			return err
		}
		version++
		if err := errors.Join(replaceFrozen(t, c, version), note(t, c, version)); err != nil {
			return err
		}
		_, err = t.exec("UPDATE clock SET commit_no = ?1, frozen_no = ?1 WHERE one = 1", version)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("freeze: %w", err)
	}
	return version, nil
}

// checkFreeze compares a commit with the rows that it claims to move.
func (db *DB) checkFreeze(ctx context.Context, c *catalog.FreezeCommit) error {
	return db.snapshot(ctx, func(t *sql.Tx) error {
		version, rows := int64(0), int64(0)
		if err := t.QueryRowContext(ctx, selectVersion).Scan(&version); err != nil {
			return err
		}
		limits, err := freezeLimits(ctx, t)
		if err != nil {
			return err
		}
		for s, seq := range c.UpTo {
			if seq > limits[s] {
				return fmt.Errorf("shard %s up to %d, which only %d of are done with: %w", s, seq, limits[s], catalog.ErrStale)
			}
		}
		if version != c.Version || len(c.UpTo) == 0 {
			return fmt.Errorf("version %d, not %d: %w", version, c.Version, catalog.ErrStale)
		}
		query, args := spanOf("count(*)", c.UpTo)
		if err := t.QueryRowContext(ctx, query, append(args, c.To, c.From, c.To)...).Scan(&rows); err != nil {
			return err
		}
		if rows != c.Moved {
			return fmt.Errorf("%d rows, not %d: %w", rows, c.Moved, catalog.ErrStale)
		}
		return nil
	})
}

const insertFrozen = `INSERT INTO frozen(part_no, max_begin, max_end, first_stream, last_stream, tail_size, tail_crc)
VALUES(last_insert_rowid(), ?, ?, ?, ?, ?, ?)`

// replaceFrozen retires and adds files. All rows must come from somewhere.
func replaceFrozen(t *tx, c *catalog.FreezeCommit, version int64) error {
	rows := c.Moved
	for _, no := range c.Retired {
		n, err := t.exec("DELETE FROM frozen WHERE part_no = ?", no)
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("frozen file %d: %w", no, catalog.ErrStale)
		}
		held, err := t.queryInt("SELECT rows FROM partitions WHERE part_no = ?", no)
		if err != nil {
			return err
		}
		rows += held
	}
	if err := retire(t, c.Retired, version); err != nil {
		return err
	}
	for i := range c.Added {
		f := &c.Added[i]
		rows -= f.Rows
		if err := add(t, []catalog.Partition{f.Partition}, version); err != nil {
			return err
		}
		if _, err := t.exec(insertFrozen, f.MaxBegin, f.MaxEnd, f.FirstStream[:], f.LastStream[:], f.TailSize, int64(f.TailCRC)); err != nil {
			return fmt.Errorf("frozen file %s: %w", f.Key, err)
		}
	}
	if rows != 0 {
		return fmt.Errorf("%w: %d rows more go in than come out", catalog.ErrInvalid, rows)
	}
	return nil
}

// note remembers a freeze, and forgets one that is long past.
func note(t *tx, c *catalog.FreezeCommit, version int64) error {
	if _, err := t.exec("INSERT INTO freezes(version, previous, from_time, to_time, next_stream) VALUES(?, ?, ?, ?, 0)", version, c.Version, c.From, c.To); err != nil {
		return err
	}
	for s, seq := range c.UpTo {
		if _, err := t.exec("INSERT INTO freeze_positions(version, class, gen, shard, seq) VALUES(?, ?, ?, ?, ?)",
			version, className(s.Class), int64(s.Gen), int64(s.Shard), signed(seq)); err != nil {
			return err
		}
	}
	const old = "version <= (SELECT version FROM freezes ORDER BY version DESC LIMIT 1 OFFSET ?)"
	for _, from := range []string{"freeze_positions", "freezes"} { // all of them are swept
		if _, err := t.exec("DELETE FROM "+from+" WHERE "+old, int64(catalog.KeptFreezes)); err != nil {
			return err
		}
	}
	return nil
}

// sweepStreams is how many stream numbers one step of a sweep looks at: an index probe for each.
const sweepStreams = 4 << 10

const sweepRows = `DELETE FROM blocks WHERE (stream_no, begin_time, block_id) IN (
  SELECT b.stream_no, b.begin_time, b.block_id FROM freezes w CROSS JOIN streams s ON s.stream_no >= w.next_stream AND s.stream_no < w.next_stream + ?2 AND s.first_time <= w.to_time
  CROSS JOIN blocks b ON b.stream_no = s.stream_no AND b.begin_time BETWEEN w.from_time AND w.to_time
  CROSS JOIN packs k ON k.pack_no = b.pack_no
  CROSS JOIN freeze_positions u ON u.version = w.version AND u.class = k.class AND u.gen = k.gen AND u.shard = k.shard AND u.seq >= k.last_seq
  WHERE w.version = ?1 LIMIT ?3)`

// SweepFrozen implements catalog.Catalog.
func (db *DB) SweepFrozen(ctx context.Context, limit int) (more bool, err error) {
	if limit < 1 {
		return false, fmt.Errorf("%w: sweep of %d rows", catalog.ErrInvalid, limit)
	}
	err = db.writer.do(ctx, func(t *tx) error {
		more = true
		no, err := t.queryInt("SELECT min(version) FROM freezes WHERE next_stream IS NOT NULL")
		if errors.Is(err, errNoRow) { // NULL is no number
			more = false
			return nil
		}
		if err != nil {
			return err
		}
		n, err := t.exec(sweepRows, no, int64(sweepStreams), int64(limit))
		if err != nil || n == int64(limit) {
			return err
		}
		_, err = t.exec(`UPDATE freezes SET next_stream = CASE WHEN next_stream + ?2 <= (SELECT max(stream_no) FROM streams) THEN next_stream + ?2 END
WHERE version = ?1`, no, int64(sweepStreams))
		return err
	})
	if err != nil {
		return false, fmt.Errorf("sweep frozen blocks: %w", err)
	}
	return more, nil
}

const selectFreezes = `SELECT version, previous, from_time, to_time, class, gen, shard, seq FROM freezes JOIN freeze_positions USING(version) `

// freeze is one that was done, and the version before.
type freeze struct {
	catalog.Freeze
	previous int64
}

// readFreezes reads rows of selectFreezes, which come in order of version.
func readFreezes(ctx context.Context, t *sql.Tx, where string, args ...any) (all []freeze, err error) {
	rows, err := t.QueryContext(ctx, selectFreezes+where+" ORDER BY version", args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		f := freeze{Freeze: catalog.Freeze{FreezeSpan: catalog.FreezeSpan{UpTo: map[catalog.ShardID]uint64{}}}}
		var class string
		var s catalog.ShardID
		var seq uint64
		if err := rows.Scan(&f.Version, &f.previous, &f.From, &f.To, &class, &s.Gen, &s.Shard, &seq); err != nil {
			return nil, err
		}
		s.Class = classByte(class)
		if n := len(all); n == 0 || all[n-1].Version != f.Version {
			all = append(all, f)
		}
		all[len(all)-1].UpTo[s] = seq
	}
	return all, rows.Err()
}

// Freezes implements catalog.Catalog.
func (db *DB) Freezes(ctx context.Context, after int64) (all []catalog.Freeze, err error) {
	err = db.snapshot(ctx, func(t *sql.Tx) error {
		version := int64(0)
		if err := t.QueryRowContext(ctx, selectVersion).Scan(&version); err != nil || version <= after {
			return err
		}
		found, err := readFreezes(ctx, t, "WHERE version > ?", after)
		if err != nil {
			return err
		}
		if len(found) == 0 || found[0].previous > after {
			return fmt.Errorf("%w: the next one is forgotten", catalog.ErrStale)
		}
		for i := range found {
			all = append(all, found[i].Freeze)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("freezes after %d: %w", after, err)
	}
	return all, nil
}

// hidden are the freezes whose rows are not all removed.
type hidden []freeze

// hold reports whether a row is not to be seen.
func (h hidden) hold(b *catalog.BlockRow) bool {
	return slices.ContainsFunc(h, func(f freeze) bool { return f.Holds(b) })
}

const fileOf = "SELECT EXISTS(SELECT 1 FROM frozen f CROSS JOIN partitions p USING(part_no) WHERE f.max_begin >= ? AND p.min_time <= ?)"

// checkFrozen refuses blocks that may be in frozen files which the caller did not look into. Nearly always all blocks are young and
// no file is of their times, which costs two look-ups.
func checkFrozen(t *tx, c *catalog.ArchiveCommit) error {
	if len(c.Blocks) == 0 {
		return nil
	}
	version, err := t.queryInt(selectVersion)
	if err != nil || c.Frozen >= version {
		return err
	}
	far, first, last := catalog.SplitTimes(c.Blocks, time.Now().UnixNano())
	ranges := make([][2]int64, 0, 1)
	if first <= last {
		ranges = append(ranges, [2]int64{first, last})
	}
	for _, begin := range far {
		ranges = append(ranges, [2]int64{begin, begin})
	}
	for _, r := range ranges {
		held, err := t.queryInt(fileOf, r[0], r[1])
		if err != nil {
			return err
		}
		if held != 0 {
			return fmt.Errorf("blocks begun from %d to %d: %w", r[0], r[1], catalog.ErrFrozen)
		}
	}
	return nil
}
