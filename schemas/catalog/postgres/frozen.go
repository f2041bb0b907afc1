package postgres

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

const (
	// freezeLock is the key of the lock that a freeze takes for itself, and that commits with blocks of times that may be frozen
	// share: what such a commit sees of the files is true until it is done.
	freezeLock = dayLock + 1
	// maxFreeze bounds a freeze, in which a day's rows may have to be deleted one by one: some 3 s a million.
	maxFreeze = 10 * time.Minute
	// clockSlack is how far the estimate of the server's clock may be off, which the server checks.
	clockSlack = int64(time.Hour)
	// dropLockTimeout bounds the wait for all users of blocks when an old day's empty partition is dropped, and with it the time
	// that they wait behind it.
	dropLockTimeout = 300 * time.Millisecond
)

// checkFrozen refuses blocks that may be in frozen files which the caller did not look into. Nearly always all blocks are young, and
// no file is of their times. It comes first in the batch: no other lock is held while it waits for a freeze.
func (b *batch) checkFrozen(c *catalog.ArchiveCommit, now int64) {
	// An estimate of the clock that is off, as after a sleep of this machine, is refused and corrected.
	b.exec("compare clocks", `SELECT catalog_refuse('`+codeClock+`', (`+storeClock+`)::text) WHERE abs(`+storeClock+` - $1) > $2`, now, clockSlack)
	what := fmt.Sprintf("%d blocks of %s", len(c.Blocks), c.Shard)
	far, first, last := catalog.SplitTimes(c.Blocks, now)
	const near = int64(catalog.FreezeGuard) - clockSlack
	if len(far) > 0 || first < now-near || last > now+near {
		b.exec("wait for a freeze", "SELECT pg_advisory_xact_lock_shared($1)", int64(freezeLock))
	}
	if len(far) > 0 {
		b.exec(what, refuseFrozen+`SELECT FROM unnest($3::bigint[]) AS o(begin_time), frozen f JOIN partitions p USING(part_no) WHERE p.min_time <= o.begin_time AND f.max_begin >= o.begin_time)`,
			what, c.Frozen, far)
	}
	if first <= last {
		b.exec(what, refuseFrozen+`SELECT FROM frozen f JOIN partitions p USING(part_no) WHERE f.max_begin >= $3 AND p.min_time <= $4)`, what, c.Frozen, first, last)
	}
}

const refuseFrozen = `SELECT catalog_refuse('` + codeFrozen + `', $1) FROM clock c WHERE c.frozen_no > $2 AND EXISTS(`

const selectFrozen = `SELECT p.part_no, v.name, p.instance_no, p.level, p.bucket, p.min_time, p.max_time, p.min_insert, p.max_insert, p.rows, p.size,
  p.schema_ver, p.sort, p.procs, p.key, p.src_hash, p.added, f.max_begin, f.max_end, f.first_stream, f.last_stream, f.tail_size, f.tail_crc
FROM frozen f JOIN partitions p USING(part_no) JOIN views v USING(view_no)
WHERE p.min_time <= $2 AND f.max_end >= $1 ORDER BY f.part_no`

const selectVersion = "SELECT frozen_no FROM clock WHERE one = 1"

// Frozen implements catalog.Catalog.
func (db *DB) Frozen(ctx context.Context, begin, end int64) (f catalog.Frozen, err error) {
	err = db.snapshot(ctx, func(b *batch) {
		f = catalog.Frozen{}
		b.query("read frozen version", selectVersion, func(r pgx.Rows) error { return r.Scan(&f.Version) })
		b.query("read frozen files", selectFrozen, func(r pgx.Rows) error {
			var c catalog.FrozenFile
			var crc int64
			err := r.Scan(&c.PartNo, &c.View, &c.Instance, &c.Level, &c.Bucket, &c.MinTime, &c.MaxTime, &c.MinInsert, &c.MaxInsert, &c.Rows, &c.Size,
				&c.SchemaVer, &c.Sort, &c.Procs, &c.Key, &c.SrcHash, &c.Added, &c.MaxBegin, &c.MaxEnd, (*[16]byte)(&c.FirstStream), (*[16]byte)(&c.LastStream), &c.TailSize, &crc)
			c.TailCRC = uint32(crc)
			f.Files = append(f.Files, c)
			return err
		}, begin, end)
	})
	return f, err
}

// freezeLimits are the positions that everybody has passed who may ask for block rows.
const freezeLimits = `limits AS MATERIALIZED (
  SELECT class, gen, shard, least(a.seq, CASE WHEN class = 'e' THEN coalesce(v.seq, 0) END, b.first - 1) AS seq
  FROM (SELECT * FROM checkpoints WHERE consumer = '` + catalog.ConsumerArchive + `') a
  LEFT JOIN (SELECT * FROM checkpoints WHERE consumer = '` + catalog.ConsumerViews + `') v USING(class, gen, shard)
  LEFT JOIN (SELECT class, gen, shard, min(first_seq) AS first FROM backlog GROUP BY 1, 2, 3) b USING(class, gen, shard))`

// freezableDays counts rows by day. They are counted by pack first, so that the position of each pack is looked up once.
const freezableDays = `WITH ` + freezeLimits + `, n AS MATERIALIZED (
  SELECT begin_time / 86400000000000 - (begin_time % 86400000000000 < 0)::int AS day, pack_no, count(*) AS rows, min(insert_time) AS first
  FROM blocks WHERE begin_time < $1 OR begin_time > $2 GROUP BY 1, 2)
SELECT day, sum(rows)::bigint, min(first) FROM n WHERE (
  SELECT true FROM packs k JOIN limits l USING(class, gen, shard) WHERE k.pack_no = n.pack_no AND k.last_seq <= l.seq)
GROUP BY day ORDER BY day`

// Freezable implements catalog.Catalog.
func (db *DB) Freezable(ctx context.Context, before, after int64) (f catalog.Freezable, err error) {
	leave, err := db.many(ctx)
	if err != nil {
		return f, fmt.Errorf("freezable blocks: %w", err)
	}
	defer leave()
	err = db.snapshot(ctx, func(b *batch) {
		f = catalog.Freezable{UpTo: map[catalog.ShardID]uint64{}}
		b.query("read frozen version", selectVersion, func(r pgx.Rows) error { return r.Scan(&f.Version) })
		b.query("read limits of a freeze", "WITH "+freezeLimits+" SELECT class, gen, shard, seq FROM limits WHERE seq > 0", func(r pgx.Rows) error {
			var s catalog.ShardID
			var seq int64
			err := r.Scan((*class)(&s.Class), &s.Gen, &s.Shard, &seq)
			f.UpTo[s] = uint64(seq)
			return err
		})
		b.query("count freezable blocks", freezableDays, func(r pgx.Rows) error {
			var d catalog.DayRows
			err := r.Scan(&d.Day, &d.Rows, &d.FirstInsert)
			f.Days = append(f.Days, d)
			return err
		}, before, after)
	})
	return f, err
}

// upTo are positions as columns.
type upTo struct {
	class      []string
	gen, shard []int32
	seq        []int64
}

func columnsOf(positions map[catalog.ShardID]uint64) (u upTo) {
	for _, s := range slices.SortedFunc(maps.Keys(positions), catalog.ShardID.Compare) {
		u.class, u.gen, u.shard = append(u.class, string(rune(s.Class))), append(u.gen, s.Gen), append(u.shard, s.Shard)
		u.seq = append(u.seq, signed(positions[s]))
	}
	return u
}

func (u *upTo) positions() map[catalog.ShardID]uint64 {
	m := make(map[catalog.ShardID]uint64, len(u.seq))
	for i := range u.seq {
		m[catalog.ShardID{Class: u.class[i][0], Gen: u.gen[i], Shard: u.shard[i]}] = uint64(u.seq[i])
	}
	return m
}

// spanPacks are the packs of a span's rows, in times $1 to $2 at positions up to ($3, $4, $5, $6); done tells whether they are.
const spanPacks = `n AS MATERIALIZED (
  SELECT pack_no, count(*) AS rows FROM blocks WHERE begin_time BETWEEN $1 AND $2 GROUP BY 1
), span AS MATERIALIZED (
  SELECT pack_no, rows, coalesce((
    SELECT true FROM packs k JOIN unnest($3::text[], $4::integer[], $5::integer[], $6::bigint[]) AS u(class, gen, shard, seq) USING(class, gen, shard)
    WHERE k.pack_no = n.pack_no AND k.last_seq <= u.seq), false) AS done
  FROM n)`

const freezableBlocks = `WITH ` + spanPacks + `
SELECT s.stream_id, b.begin_time, b.block_id, p.process_id, b.end_time, b.begin_ticks, b.end_ticks, b.object_offset, b.nb_objects, b.insert_time, b.payload_size,
  b.pack_no, b.pack_off, b.pack_len
FROM blocks b JOIN span ON span.pack_no = b.pack_no AND span.done JOIN streams s USING(stream_no) JOIN processes p USING(process_no)
WHERE b.begin_time BETWEEN $1 AND $2 ORDER BY s.stream_id, b.begin_time, b.block_id`

// FreezableBlocks implements catalog.Catalog. The server sorts; nothing is sent again when it fails in the middle.
func (db *DB) FreezableBlocks(ctx context.Context, s catalog.FreezeSpan) iter.Seq2[catalog.BlockRow, error] {
	return func(yield func(catalog.BlockRow, error) bool) {
		left := false
		err := db.freezableBlocks(ctx, s, func(b catalog.BlockRow) bool {
			left = !yield(b, nil)
			return !left
		})
		if err != nil && !left {
			yield(catalog.BlockRow{}, fmt.Errorf("read blocks to freeze: %w", err))
		}
	}
}

func (db *DB) freezableBlocks(ctx context.Context, s catalog.FreezeSpan, yield func(catalog.BlockRow) bool) error {
	if err := db.enter(); err != nil {
		return err
	}
	defer db.leave()
	leave, err := db.many(ctx)
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, maxFreeze)
	defer cancel()
	packs, err := db.packsOf(ctx, s)
	if err != nil || len(packs) == 0 {
		return err
	}
	u := columnsOf(s.UpTo)
	rows, err := db.pool.Query(ctx, freezableBlocks, s.From, s.To, u.class, u.gen, u.shard, u.seq)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var b catalog.BlockRow
		var no int64
		if err := rows.Scan((*[16]byte)(&b.StreamID), &b.BeginTime, (*[16]byte)(&b.ID), (*[16]byte)(&b.ProcessID), &b.EndTime, &b.BeginTicks, &b.EndTicks,
			&b.ObjectOffset, &b.NbObjects, &b.InsertTime, &b.PayloadSize, &no, &b.PackOffset, &b.PackLength); err != nil {
			return err
		}
		pack, ok := packs[no]
		if !ok {
			return fmt.Errorf("block %s is in pack %d, which came later: %w", b.ID, no, catalog.ErrStale)
		}
		b.PackKey, b.Shard, b.PackSeq = pack.Key, pack.Shard, pack.LastSeq
		if !yield(b) {
			return nil
		}
	}
	return rows.Err()
}

// packsOf returns the packs of a span's rows by number: their keys are not sent with every row.
func (db *DB) packsOf(ctx context.Context, s catalog.FreezeSpan) (map[int64]catalog.Pack, error) {
	u := columnsOf(s.UpTo)
	rows, err := db.pool.Query(ctx, "WITH "+spanPacks+` SELECT pack_no, class, gen, shard, last_seq, key
FROM span CROSS JOIN LATERAL (SELECT k.class, k.gen, k.shard, k.last_seq, k.key FROM packs k WHERE k.pack_no = span.pack_no OFFSET 0) AS k WHERE done`,
		s.From, s.To, u.class, u.gen, u.shard, u.seq)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	packs := map[int64]catalog.Pack{}
	for rows.Next() {
		var p catalog.Pack
		var last int64
		if err := rows.Scan(&p.No, (*class)(&p.Shard.Class), &p.Shard.Gen, &p.Shard.Shard, &last, &p.Key); err != nil {
			return nil, err
		}
		p.LastSeq = uint64(last)
		packs[p.No] = p
	}
	return packs, rows.Err()
}

// CommitFreeze implements catalog.Catalog. It is one transaction of several round trips, under a lock that no commit with young blocks
// knows of.
func (db *DB) CommitFreeze(ctx context.Context, c *catalog.FreezeCommit) (version int64, err error) {
	if err := c.Validate(); err != nil {
		return 0, err
	}
	now, err := db.Now(ctx)
	if err != nil {
		return 0, fmt.Errorf("freeze: %w", err)
	}
	if err := c.CheckGuard(now); err != nil {
		return 0, err
	}
	if err := db.enter(); err != nil {
		return 0, err
	}
	defer db.leave()
	ctx, cancel := context.WithTimeout(ctx, maxFreeze)
	defer cancel()
	err = pgx.BeginFunc(ctx, db.pool, func(tx pgx.Tx) error {
		f := freezing{tx: tx, c: c}
		for _, step := range []func(context.Context) error{f.lock, f.check, f.remove, f.replace} {
			if err := step(ctx); err != nil {
				return err
			}
		}
		version = f.version
		return nil
	})
	switch {
	case err == nil:
		return version, nil
	case errors.Is(err, catalog.ErrStale) || errors.Is(err, catalog.ErrInvalid):
		return 0, fmt.Errorf("freeze: %w", err)
	}
	v := judge(ctx, err)
	db.heal(v, err)
	return 0, fmt.Errorf("freeze: %w", v.err(err, false))
}

// freezing is a freeze under way.
type freezing struct {
	tx      pgx.Tx
	c       *catalog.FreezeCommit
	version int64
}

// lock keeps other freezes, commits with old blocks and new partitions away.
func (f *freezing) lock(ctx context.Context) error {
	for _, sql := range []string{
		fmt.Sprintf("SET LOCAL statement_timeout = %d", maxFreeze.Milliseconds()),
		fmt.Sprintf("SET LOCAL lock_timeout = %d", maxCommit.Milliseconds()),
		fmt.Sprintf("SET LOCAL idle_in_transaction_session_timeout = %d", maxCommit.Milliseconds()),
		fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", int64(freezeLock)),
		fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", int64(dayLock)),
	} {
		if _, err := f.tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

func (f *freezing) check(ctx context.Context) error {
	var version int64
	if err := f.tx.QueryRow(ctx, selectVersion).Scan(&version); err != nil {
		return err
	}
	if version != f.c.Version {
		return fmt.Errorf("version %d, not %d: %w", version, f.c.Version, catalog.ErrStale)
	}
	u := columnsOf(f.c.UpTo)
	var beyond int
	err := f.tx.QueryRow(ctx, "WITH "+freezeLimits+` SELECT count(*) FROM unnest($1::text[], $2::integer[], $3::integer[], $4::bigint[]) AS u(class, gen, shard, seq)
LEFT JOIN limits l USING(class, gen, shard) WHERE u.seq > coalesce(l.seq, 0)`, u.class, u.gen, u.shard, u.seq).Scan(&beyond)
	if err == nil && beyond > 0 {
		err = fmt.Errorf("%d shards are not done with their positions: %w", beyond, catalog.ErrStale)
	}
	return err
}

// remove takes the rows of the span out.
func (f *freezing) remove(ctx context.Context) error {
	u := columnsOf(f.c.UpTo)
	args := []any{f.c.From, f.c.To, u.class, u.gen, u.shard, u.seq}
	var all, done int64
	if err := f.tx.QueryRow(ctx, "WITH "+spanPacks+" SELECT coalesce(sum(rows), 0)::bigint, coalesce(sum(rows) FILTER (WHERE done), 0)::bigint FROM span", args...).Scan(&all, &done); err != nil {
		return err
	}
	if done != f.c.Moved {
		return fmt.Errorf("%d rows, not %d: %w", done, f.c.Moved, catalog.ErrStale)
	}
	if all == done {
		if emptied, err := f.truncate(ctx); err != nil || emptied {
			return err
		}
	}
	tag, err := f.tx.Exec(ctx, "WITH "+spanPacks+` DELETE FROM blocks b WHERE b.begin_time BETWEEN $1 AND $2 AND b.pack_no IN (SELECT pack_no FROM span WHERE done)`, args...)
	if err == nil && tag.RowsAffected() != f.c.Moved {
		err = fmt.Errorf("%d rows deleted, not %d: %w", tag.RowsAffected(), f.c.Moved, catalog.ErrStale)
	}
	return err
}

// truncate empties the partition of a whole day, and removes what lies of the day in blocks_default, where that is all there is to
// do and nobody holds the partition for long.
func (f *freezing) truncate(ctx context.Context) (emptied bool, err error) {
	day := catalog.DayOf(f.c.From)
	if f.c.From != day.Begin() || f.c.To != day.End() || f.c.From == math.MinInt64 || f.c.To == math.MaxInt64 {
		return false, nil
	}
	name := partitionOf(int64(day))
	var there bool
	if err := f.tx.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", name).Scan(&there); err != nil || !there {
		return false, err
	}
	err = pgx.BeginFunc(ctx, f.tx, func(tx pgx.Tx) error { // a savepoint
		for _, sql := range []string{
			fmt.Sprintf("SET LOCAL lock_timeout = %d", dayLockTimeout.Milliseconds()),
			fmt.Sprintf("DELETE FROM blocks_default WHERE begin_time BETWEEN %d AND %d", f.c.From, f.c.To),
			"TRUNCATE " + name,
		} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	})
	var pg *pgconn.PgError
	if errors.As(err, &pg) && (pg.Code == codeLockTimeout || pg.Code == codeDeadlock) {
		return false, nil
	}
	return err == nil, err
}

// replace puts the files in place, under the commit number.
func (f *freezing) replace(ctx context.Context) error {
	b := &batch{}
	b.addViews(viewsOf([]catalog.Partition{f.c.Added[0].Partition}))
	b.query("take a commit number", "UPDATE clock SET commit_no = commit_no + 1, frozen_no = commit_no + 1 WHERE one = 1 RETURNING commit_no",
		func(r pgx.Rows) error { return r.Scan(&f.version) })
	rows := f.c.Moved
	b.takeFrozen(f.c.Retired, &rows)
	b.retire(f.c.Retired)
	partitions := make([]catalog.Partition, len(f.c.Added))
	for i := range f.c.Added {
		partitions[i] = f.c.Added[i].Partition
		rows -= f.c.Added[i].Rows
	}
	b.add(partitions)
	b.addFrozen(f.c.Added)
	u := columnsOf(f.c.UpTo)
	b.exec("note the freeze", `INSERT INTO freezes(version, previous, from_time, to_time, class, gen, shard, seq)
SELECT frozen_no, $1, $2, $3, $4, $5, $6, $7 FROM clock`, f.c.Version, f.c.From, f.c.To, u.class, u.gen, u.shard, u.seq)
	b.exec("forget old freezes", "DELETE FROM freezes WHERE version <= (SELECT version FROM freezes ORDER BY version DESC LIMIT 1 OFFSET $1)", catalog.KeptFreezes)
	results := f.tx.SendBatch(ctx, &b.Batch)
	for i := range b.steps {
		if err := b.steps[i].take(results); err != nil {
			return errors.Join(err, results.Close())
		}
	}
	if err := results.Close(); err != nil {
		return err
	}
	if rows != 0 {
		return fmt.Errorf("%w: %d rows more come out than go in", catalog.ErrInvalid, rows)
	}
	return nil
}

// takeFrozen removes files from the frozen ones and adds up their rows.
func (b *batch) takeFrozen(partNos []int64, rows *int64) {
	if len(partNos) == 0 {
		return
	}
	what := fmt.Sprintf("take %d frozen files", len(partNos))
	b.exec(what, `WITH gone AS (DELETE FROM frozen WHERE part_no = ANY($1) RETURNING 1) SELECT catalog_refuse('`+codeStale+`', $3) FROM gone HAVING count(*) <> $2`,
		partNos, len(partNos), what)
	b.query(what, "SELECT sum(rows)::bigint FROM partitions WHERE part_no = ANY($1)", func(r pgx.Rows) error {
		var n int64
		err := r.Scan(&n)
		*rows += n
		return err
	}, partNos)
}

func (b *batch) addFrozen(files []catalog.FrozenFile) {
	n := len(files)
	keys, first, last := make([]string, n), make([][16]byte, n), make([][16]byte, n)
	var columns [4][]int64
	for c := range columns {
		columns[c] = make([]int64, n)
	}
	for i := range files {
		f := &files[i]
		keys[i], first[i], last[i] = f.Key, f.FirstStream, f.LastStream
		for c, v := range [...]int64{f.MaxBegin, f.MaxEnd, f.TailSize, int64(f.TailCRC)} {
			columns[c][i] = v
		}
	}
	b.exec(fmt.Sprintf("add %d frozen files", n), `INSERT INTO frozen(part_no, max_begin, max_end, first_stream, last_stream, tail_size, tail_crc)
SELECT (SELECT p.part_no FROM partitions p WHERE p.key = n.key), n.max_begin, n.max_end, n.first_stream, n.last_stream, n.tail_size, n.tail_crc
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::uuid[], $5::uuid[], $6::bigint[], $7::bigint[]) AS n(key, max_begin, max_end, first_stream, last_stream, tail_size, tail_crc)`,
		keys, columns[0], columns[1], first, last, columns[2], columns[3])
}

// Freezes implements catalog.Catalog.
func (db *DB) Freezes(ctx context.Context, after int64) (all []catalog.Freeze, err error) {
	var version, previous int64
	err = db.snapshot(ctx, func(b *batch) {
		all = nil
		b.query("read frozen version", selectVersion, func(r pgx.Rows) error { return r.Scan(&version) })
		b.query("read freezes", "SELECT version, previous, from_time, to_time, class, gen, shard, seq FROM freezes WHERE version > $1 ORDER BY version", func(r pgx.Rows) error {
			var f catalog.Freeze
			var u upTo
			var before int64
			err := r.Scan(&f.Version, &before, &f.From, &f.To, &u.class, &u.gen, &u.shard, &u.seq)
			if len(all) == 0 {
				previous = before
			}
			f.UpTo = u.positions()
			all = append(all, f)
			return err
		}, after)
	})
	if err == nil && version > after && (len(all) == 0 || previous > after) {
		err = fmt.Errorf("freezes after %d: %w: the next one is forgotten", after, catalog.ErrStale)
	}
	if err != nil {
		return nil, err
	}
	return all, nil
}

// SweepFrozen implements catalog.Catalog. Rows are gone with the freeze; what is left is the empty partition of a day so old that
// no block makes it anew, one at a time.
func (db *DB) SweepFrozen(ctx context.Context, limit int) (more bool, err error) {
	if limit < 1 {
		return false, fmt.Errorf("%w: sweep of %d rows", catalog.ErrInvalid, limit)
	}
	now, err := db.Now(ctx)
	if err != nil {
		return false, fmt.Errorf("sweep frozen days: %w", err)
	}
	if err := db.enter(); err != nil {
		return false, err
	}
	defer db.leave()
	ctx, cancel := context.WithTimeout(ctx, maxCommit)
	defer cancel()
	names, err := db.oldPartitions(ctx, floorDay(now)-daysBefore-1)
	if err != nil {
		return false, fmt.Errorf("sweep frozen days: %w", err)
	}
	for _, name := range names {
		switch dropped, err := db.dropEmpty(ctx, name); {
		case err != nil:
			return false, fmt.Errorf("sweep frozen days: %s: %w", name, err)
		case dropped:
			return true, nil
		}
	}
	return false, nil
}

// oldPartitions returns the partitions of days before one, oldest first.
func (db *DB) oldPartitions(ctx context.Context, before int64) ([]string, error) {
	rows, err := db.pool.Query(ctx, `SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'blocks'::regclass AND c.relname ~ '^blocks_[0-9]{8}$' AND c.relname < $1 ORDER BY c.relname COLLATE "C"`, partitionOf(before))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// dropEmpty drops a partition without rows. Whoever uses blocks at this moment is waited for a moment; the next sweep tries again.
func (db *DB) dropEmpty(ctx context.Context, name string) (dropped bool, err error) {
	table := pgx.Identifier{name}.Sanitize()
	err = pgx.BeginFunc(ctx, db.pool, func(tx pgx.Tx) error {
		empty := func() (is bool, err error) {
			err = tx.QueryRow(ctx, "SELECT NOT EXISTS(SELECT FROM "+table+")").Scan(&is)
			return is, err
		}
		if is, err := empty(); err != nil || !is {
			return err
		}
		for _, sql := range []string{
			fmt.Sprintf("SET LOCAL lock_timeout = %d", dropLockTimeout.Milliseconds()),
			fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", int64(dayLock)),
			"LOCK TABLE ONLY blocks IN ACCESS EXCLUSIVE MODE",
			"LOCK TABLE " + table + " IN ACCESS EXCLUSIVE MODE",
		} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		is, err := empty()
		if err != nil || !is {
			return err
		}
		_, err = tx.Exec(ctx, "DROP TABLE "+table)
		dropped = err == nil
		return err
	})
	var pg *pgconn.PgError
	if errors.As(err, &pg) && (pg.Code == codeLockTimeout || pg.Code == codeDeadlock || pg.Code == codeNoPartition) {
		return false, nil
	}
	return dropped && err == nil, err
}
