package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// guard refuses a commit whose lease is another's.
func guard(t *tx, l *catalog.Lease) error {
	if l == nil {
		return nil
	}
	n, err := t.queryInt("SELECT count(*) FROM leases WHERE name = ? AND owner = ? AND epoch = ?", l.Name, l.Owner, l.Epoch)
	if err = lost(n, err); err != nil {
		return fmt.Errorf("lease %s: %w", l.Name, err)
	}
	return nil
}

// countInPlace names the index's condition once more: without, the index cannot serve.
const countInPlace = `SELECT count(*) FROM partitions WHERE view_no = ? AND instance_no = ? AND bucket = ? AND level = ?
AND retired IS NULL AND instance_no <> 0`

// placeIsFree refuses a partition of an instance in whose place another one lives.
func placeIsFree(t *tx, view int64, p *catalog.Partition) error {
	if p.Instance == 0 {
		return nil
	}
	n, err := t.queryInt(countInPlace, view, p.Instance, p.Bucket, int64(p.Level))
	if err == nil && n > 0 {
		err = fmt.Errorf("another partition is in the place of %s: %w", p.Key, catalog.ErrStale)
	}
	return err
}

// selectInstance is selectPartitions of an instance of a view, with their states. The view comes outermost: it is one row.
var selectInstance = "SELECT p.state, " + strings.Replace(selectPartitions[len("SELECT "):], "partitions p CROSS JOIN views v", "views v CROSS JOIN partitions p", 1) +
	"WHERE v.name = ? AND p.instance_no = ? AND p.instance_no <> 0 AND p.retired IS NULL ORDER BY p.bucket, p.level"

// InstancePartitions implements catalog.Catalog.
func (db *DB) InstancePartitions(ctx context.Context, view string, instance int64) (all []catalog.Partition, err error) {
	all, err = collect(ctx, db.read, func(rows *sql.Rows) (p catalog.Partition, err error) {
		err = rows.Scan(append([]any{&p.State}, partitionColumns(&p)...)...)
		return p, err
	}, selectInstance, view, instance)
	if err != nil {
		return nil, fmt.Errorf("partitions of %s of %d: %w", view, instance, err)
	}
	return all, nil
}

// AllInstancePartitions implements catalog.Catalog.
func (db *DB) AllInstancePartitions(ctx context.Context, limit int) ([]catalog.Partition, error) {
	return collect(ctx, db.read, scanPartition, selectPartitions+"WHERE p.instance_no <> 0 AND p.retired IS NULL ORDER BY p.part_no LIMIT ?", noLimit(limit))
}

// ProcessStreams implements catalog.Catalog.
func (db *DB) ProcessStreams(ctx context.Context, processes []telemetry.ID) ([]catalog.StreamRow, error) {
	if len(processes) == 0 {
		return nil, nil
	}
	var all []catalog.StreamRow
	err := db.snapshot(ctx, func(t *sql.Tx) (err error) {
		if all, err = forIDs(ctx, t, scanStream, selectStreamsOf, "p.process_id", " ORDER BY s.stream_no", processes); err != nil {
			return err
		}
		return joinLayouts(ctx, t, all)
	})
	if err != nil {
		return nil, fmt.Errorf("read streams of processes: %w", err)
	}
	return sortedOnce(all, len(processes) > maxIDsInQuery, func(s catalog.StreamRow) int64 { return s.No }), nil
}

const selectStreamBlocks = `SELECT b.block_id, b.begin_time, b.end_time, b.begin_ticks, b.end_ticks, b.object_offset, b.nb_objects, b.insert_time,
  b.payload_size, b.pack_off, b.pack_len, k.key, k.class, k.gen, k.shard, k.last_seq
FROM blocks b CROSS JOIN packs k USING(pack_no)
WHERE b.stream_no = ? AND b.begin_time >= ? AND b.begin_time < ? AND b.begin_time <= ? AND max(b.end_time, b.begin_time) >= ? `

// StreamBlocks implements catalog.Catalog.
func (db *DB) StreamBlocks(ctx context.Context, stream telemetry.ID, q catalog.BlockQuery) ([]catalog.BlockRow, error) {
	var all []catalog.BlockRow
	err := db.snapshot(ctx, func(t *sql.Tx) error {
		var s catalog.BlockRow // what all rows have in common
		var no int64
		var tags string
		err := t.QueryRowContext(ctx, `SELECT s.stream_no, p.process_id, coalesce(s.tags, '[]'), s.registered IS NOT NULL, p.registered IS NOT NULL
FROM streams s JOIN processes p USING(process_no) WHERE s.stream_id = ?`, stream[:]).Scan(&no, idColumn{&s.ProcessID}, &tags, &s.StreamKnown, &s.ProcessKnown)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		s.StreamID = stream
		if s.StreamKnown {
			if s.Tag, err = (tagCache{}).of([]byte(tags)); err != nil {
				return err
			}
		}
		hidden, err := readFreezes(ctx, t, "WHERE next_stream IS NOT NULL")
		if err != nil {
			return err
		}
		all, err = streamBlocks(ctx, t, s, no, hidden, q)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("blocks of stream %s: %w", stream, err)
	}
	return all, nil
}

// streamBlocks reads the rows of a stream that are not hidden.
func streamBlocks(ctx context.Context, t *sql.Tx, like catalog.BlockRow, no int64, h hidden, q catalog.BlockQuery) ([]catalog.BlockRow, error) {
	order := "ORDER BY b.begin_time, b.block_id"
	if q.Newest > 0 {
		order = "ORDER BY b.begin_time DESC, b.block_id DESC"
	}
	rows, err := t.QueryContext(ctx, selectStreamBlocks+order, no, q.From, q.To, q.End, q.Begin)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []catalog.BlockRow
	for rows.Next() && (q.Newest <= 0 || len(all) < q.Newest) {
		b := like
		var class string
		if err := rows.Scan(idColumn{&b.ID}, &b.BeginTime, &b.EndTime, &b.BeginTicks, &b.EndTicks, &b.ObjectOffset, &b.NbObjects, &b.InsertTime,
			&b.PayloadSize, &b.PackOffset, &b.PackLength, &b.PackKey, &class, &b.Shard.Gen, &b.Shard.Shard, &b.PackSeq); err != nil {
			return nil, err
		}
		b.Shard.Class = classByte(class)
		if !h.hold(&b) {
			all = append(all, b)
		}
	}
	if q.Newest > 0 {
		slices.Reverse(all)
	}
	return all, rows.Err()
}
