package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// forgottenKey is the setting that holds the highest commit number whose retirements are forgotten.
const forgottenKey = "partitions_forgotten"

// CommitView implements catalog.Catalog.
func (db *DB) CommitView(ctx context.Context, c *catalog.ViewCommit) (int64, error) {
	if err := c.Validate(); err != nil {
		return 0, err
	}
	commitNo := int64(0)
	err := db.writer.do(ctx, func(t *tx) error {
		if err := guard(t, c.Guard); err != nil {
			return err
		}
		for _, m := range c.Moves {
			if err := moveView(t, c.Consumer, m); err != nil {
				return err
			}
		}
		if err := errors.Join(openBacklog(t, c.Consumer, c.Backlog), moveChunk(t, c.Consumer, c.Chunk)); err != nil {
			return err
		}
		no, err := t.queryInt("SELECT commit_no FROM clock WHERE one = 1")
		if err != nil {
			return err
		}
		commitNo = no
		if len(c.Added)+len(c.Retired) > 0 {
			commitNo++
		}
		if err := errors.Join(retire(t, c.Retired, commitNo), add(t, c.Added, commitNo), park(t, c.Consumer, c.ParkedAdded), unpark(t, c.Consumer, c.ParkedDone)); err != nil {
			return fmt.Errorf("commit of %s: %w", c.Consumer, err)
		}
		if commitNo == no {
			return nil
		}
		_, err = t.exec("UPDATE clock SET commit_no = ? WHERE one = 1", commitNo)
		return err
	})
	if err != nil {
		return 0, err
	}
	return commitNo, nil
}

// moveView moves a view's checkpoint, which never passes archive's.
func moveView(t *tx, consumer string, m catalog.Move) error {
	if err := moveCheckpoint(t, consumer, m); err != nil {
		return err
	}
	archived, err := t.queryInt("SELECT coalesce(max(seq), 0) FROM checkpoints WHERE consumer = ? AND class = ? AND gen = ? AND shard = ?",
		catalog.ConsumerArchive, className(m.Shard.Class), int64(m.Shard.Gen), int64(m.Shard.Shard))
	if err == nil && m.To > m.From && uint64(archived) < m.To {
		err = fmt.Errorf("%s of %s to %d, archive at %d: %w", consumer, m.Shard, m.To, archived, catalog.ErrArchiveBehind)
	}
	return err
}

func retire(t *tx, partNos []int64, commitNo int64) error {
	now := clock()
	for _, no := range partNos {
		n, err := t.exec("UPDATE partitions SET retired = ?, retired_at = ? WHERE part_no = ? AND retired IS NULL", commitNo, now, no)
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("retire partition %d: %w", no, catalog.ErrStale)
		}
	}
	return nil
}

const insertPartition = `INSERT INTO partitions(view_no, instance_no, level, bucket, min_time, max_time, min_insert, max_insert, rows, size,
  schema_ver, sort, procs, key, src_hash, objects, max_sort_key, state, added) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

func add(t *tx, partitions []catalog.Partition, commitNo int64) error {
	views := map[string]int64{}
	for i := range partitions {
		p := &partitions[i]
		view, ok := views[p.View]
		if !ok {
			var err error
			if view, err = viewNo(t, p.View); err != nil {
				return err
			}
			views[p.View] = view
		}
		if err := placeIsFree(t, view, p); err != nil {
			return err
		}
		if _, err := t.exec(insertPartition, view, p.Instance, int64(p.Level), p.Bucket, p.MinTime, p.MaxTime, p.MinInsert, p.MaxInsert, p.Rows, p.Size,
			int64(p.SchemaVer), int64(p.Sort), nullIfEmpty(p.Procs), p.Key, nullIfEmpty(p.SrcHash), p.Objects, p.MaxSortKey, nullIfEmpty(p.State), commitNo); err != nil {
			return fmt.Errorf("partition %s: %w", p.Key, err)
		}
	}
	return nil
}

func viewNo(t *tx, name string) (int64, error) {
	if _, err := t.exec("INSERT INTO views(name) VALUES(?) ON CONFLICT DO NOTHING", name); err != nil {
		return 0, err
	}
	return t.queryInt("SELECT view_no FROM views WHERE name = ?", name)
}

func nullIfEmpty(b []byte) driver.Value {
	if len(b) == 0 {
		return nil
	}
	return b
}

const insertParked = `INSERT INTO parked(consumer, class, gen, shard, seq, rec, stream_id, process_id, since, dead, reason)
VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET dead = excluded.dead, reason = excluded.reason`

func park(t *tx, consumer string, parked []catalog.Parked) error {
	for i := range parked {
		p := &parked[i]
		dead := int64(0)
		if p.Dead {
			dead = 1
		}
		if _, err := t.exec(insertParked, consumer, className(p.Shard.Class), int64(p.Shard.Gen), int64(p.Shard.Shard), int64(p.Seq), int64(p.Rec),
			p.StreamID[:], p.ProcessID[:], p.Since, dead, p.Reason); err != nil {
			return err
		}
	}
	return nil
}

func unpark(t *tx, consumer string, parked []catalog.Parked) error {
	for i := range parked {
		p := &parked[i]
		n, err := t.exec("DELETE FROM parked WHERE consumer = ? AND class = ? AND gen = ? AND shard = ? AND seq = ? AND rec = ?",
			consumer, className(p.Shard.Class), int64(p.Shard.Gen), int64(p.Shard.Shard), int64(p.Seq), int64(p.Rec))
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("parked copy %s %d.%d: %w", p.Shard, p.Seq, p.Rec, catalog.ErrStale)
		}
	}
	return nil
}

// Skips implements catalog.Catalog.
func (db *DB) Skips(ctx context.Context, s catalog.ShardID, after, to uint64) ([]catalog.Skip, error) {
	return collect(ctx, db.read, func(rows *sql.Rows) (k catalog.Skip, err error) {
		err = rows.Scan(&k.Seq, &k.Rec, &k.Reason)
		return k, err
	}, "SELECT seq, rec, reason FROM skips WHERE class = ? AND gen = ? AND shard = ? AND seq > ? AND seq <= ? ORDER BY seq, rec",
		className(s.Class), s.Gen, s.Shard, signed(after), signed(to))
}

// signed keeps "no limit" positions inside SQLite's integers.
func signed(seq uint64) int64 { return int64(min(seq, 1<<63-1)) }

// Parked implements catalog.Catalog.
func (db *DB) Parked(ctx context.Context, consumer string, f catalog.ParkedFilter) ([]catalog.Parked, error) {
	query := strings.Builder{}
	query.WriteString("SELECT class, gen, shard, seq, rec, stream_id, process_id, since, dead, reason FROM parked WHERE consumer = ?")
	args := []any{consumer}
	if s := f.Shard; s != nil {
		query.WriteString(" AND class = ? AND gen = ? AND shard = ?")
		args = append(args, className(s.Class), s.Gen, s.Shard)
	}
	if len(f.StreamIDs)+len(f.ProcessIDs) > 0 {
		query.WriteString(" AND (stream_id IN (" + placeholders(len(f.StreamIDs)) + ") OR process_id IN (" + placeholders(len(f.ProcessIDs)) + "))")
		args = appendIDs(appendIDs(args, f.StreamIDs), f.ProcessIDs)
	}
	if f.Dead != nil {
		query.WriteString(" AND dead = ?")
		args = append(args, *f.Dead)
	}
	if f.SinceBefore != 0 {
		query.WriteString(" AND since < ?")
		args = append(args, f.SinceBefore)
	}
	query.WriteString(" ORDER BY class, gen, shard, seq, rec")
	if f.Limit > 0 {
		query.WriteString(" LIMIT " + strconv.Itoa(f.Limit))
	}
	return collect(ctx, db.read, scanParked, query.String(), args...)
}

func scanParked(rows *sql.Rows) (p catalog.Parked, err error) {
	var class string
	err = rows.Scan(&class, &p.Shard.Gen, &p.Shard.Shard, &p.Seq, &p.Rec, idColumn{&p.StreamID}, idColumn{&p.ProcessID}, &p.Since, &p.Dead, &p.Reason)
	p.Shard.Class = classByte(class)
	return p, err
}

func placeholders(n int) string { return strings.TrimSuffix(strings.Repeat("?,", n), ",") }

func appendIDs(args []any, ids []telemetry.ID) []any {
	for i := range ids {
		args = append(args, ids[i][:])
	}
	return args
}

const commitNoQuery = "SELECT commit_no FROM clock WHERE one = 1"

// CommitNo implements catalog.Catalog.
func (db *DB) CommitNo(ctx context.Context) (no int64, err error) {
	if err := db.read.QueryRowContext(ctx, commitNoQuery).Scan(&no); err != nil {
		return 0, fmt.Errorf("read commit number: %w", err)
	}
	return no, nil
}

const selectPartitions = `SELECT p.part_no, v.name, p.instance_no, p.level, p.bucket, p.min_time, p.max_time, p.min_insert, p.max_insert, p.rows, p.size,
  p.schema_ver, p.sort, p.procs, p.key, p.src_hash, p.objects, p.max_sort_key, p.added, coalesce(p.retired, 0), coalesce(p.retired_at, 0)
FROM partitions p CROSS JOIN views v USING(view_no) `

// selectAdded is selectPartitions from a commit on. The index is named because the planner, which knows nothing of how
// few rows are new, prefers an order that reads all of them.
var selectAdded = strings.Replace(selectPartitions, "partitions p", "partitions p INDEXED BY partitions_added", 1) + "WHERE p.added > ? AND p.retired IS NULL AND p.instance_no = 0 ORDER BY p.part_no"

// partitionColumns are where the columns of selectPartitions go.
func partitionColumns(p *catalog.Partition) []any {
	return []any{
		&p.PartNo, &p.View, &p.Instance, &p.Level, &p.Bucket, &p.MinTime, &p.MaxTime, &p.MinInsert, &p.MaxInsert, &p.Rows, &p.Size,
		&p.SchemaVer, &p.Sort, &p.Procs, &p.Key, &p.SrcHash, &p.Objects, &p.MaxSortKey, &p.Added, &p.Retired, &p.RetiredAt,
	}
}

func scanPartition(rows *sql.Rows) (p catalog.Partition, err error) {
	err = rows.Scan(partitionColumns(&p)...)
	return p, err
}

// Partitions implements catalog.Catalog.
func (db *DB) Partitions(ctx context.Context, sinceCommit int64) (catalog.PartitionDelta, error) {
	var d catalog.PartitionDelta
	err := db.snapshot(ctx, func(t *sql.Tx) (err error) {
		forgotten := int64(0)
		err = t.QueryRowContext(ctx, "SELECT commit_no, coalesce((SELECT CAST(v AS INTEGER) FROM lake WHERE k = ?), 0) FROM clock WHERE one = 1", forgottenKey).
			Scan(&d.CommitNo, &forgotten)
		if err != nil {
			return err
		}
		d.Full = sinceCommit <= 0 || sinceCommit < forgotten || sinceCommit > d.CommitNo
		if d.Full {
			d.Added, err = collect(ctx, t, scanPartition, selectPartitions+"WHERE p.retired IS NULL AND p.instance_no = 0 ORDER BY p.part_no")
			return err
		}
		if sinceCommit == d.CommitNo {
			return nil
		}
		if d.Added, err = collect(ctx, t, scanPartition, selectAdded, sinceCommit); err != nil {
			return err
		}
		d.Retired, err = collect(ctx, t, func(rows *sql.Rows) (no int64, err error) {
			err = rows.Scan(&no)
			return no, err
		}, "SELECT part_no FROM partitions INDEXED BY partitions_retired WHERE retired > ? ORDER BY part_no", sinceCommit)
		return err
	})
	if err != nil {
		return catalog.PartitionDelta{}, fmt.Errorf("partitions since commit %d: %w", sinceCommit, err)
	}
	return d, nil
}

// RetiredBefore implements catalog.Catalog.
func (db *DB) RetiredBefore(ctx context.Context, t int64, limit int) ([]catalog.Partition, error) {
	return collect(ctx, db.read, scanPartition, selectPartitions+"WHERE p.retired IS NOT NULL AND p.retired_at < ? ORDER BY p.retired, p.part_no LIMIT ?", t, limit)
}

// ForgetPartitions implements catalog.Catalog.
func (db *DB) ForgetPartitions(ctx context.Context, partNos []int64) error {
	return db.writer.do(ctx, func(t *tx) error {
		forgotten := int64(0)
		for _, no := range partNos {
			retired, err := t.queryInt("DELETE FROM partitions WHERE part_no = ? AND retired IS NOT NULL RETURNING retired", no)
			if errors.Is(err, errNoRow) {
				continue
			}
			if err != nil {
				return err
			}
			forgotten = max(forgotten, retired)
		}
		if forgotten == 0 {
			return nil
		}
		_, err := t.exec(`INSERT INTO lake(k, v) VALUES(?, ?)
ON CONFLICT(k) DO UPDATE SET v = excluded.v WHERE CAST(lake.v AS INTEGER) < CAST(excluded.v AS INTEGER)`, forgottenKey, strconv.FormatInt(forgotten, 10))
		return err
	})
}

// KeysReferenced implements catalog.Catalog.
func (db *DB) KeysReferenced(ctx context.Context, keys []string) ([]bool, error) {
	found := make([]bool, len(keys))
	err := db.snapshot(ctx, func(t *sql.Tx) error {
		st, err := t.PrepareContext(ctx, "SELECT EXISTS(SELECT 1 FROM packs WHERE key = ?1) OR EXISTS(SELECT 1 FROM partitions WHERE key = ?1)")
		if err != nil {
			return err
		}
		defer func() { _ = st.Close() }() // it only read
		for i, k := range keys {
			if err := st.QueryRowContext(ctx, k).Scan(&found[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look up keys: %w", err)
	}
	return found, nil
}
