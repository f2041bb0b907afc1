package postgres

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// instanceIndex is the index by which one partition of an instance lives in each place.
const instanceIndex = "partitions_instance"

// guard refuses a commit whose lease is another's. The row is locked, so that none becomes another's before the commit's end.
func (b *batch) guard(l *catalog.Lease) {
	if l == nil {
		return
	}
	what := "lease " + l.Name
	b.exec(what, `WITH held AS (SELECT 1 FROM leases WHERE name = $1 AND owner = $2 AND epoch = $3 FOR SHARE)
SELECT catalog_refuse('`+codeLeaseLost+`', $4) FROM (SELECT count(*) AS n FROM held) h WHERE h.n = 0`, l.Name, l.Owner, l.Epoch, what)
}

// InstancePartitions implements catalog.Catalog.
func (db *DB) InstancePartitions(ctx context.Context, view string, instance int64) (all []catalog.Partition, err error) {
	query := "SELECT p.state, " + selectPartitions[len("SELECT "):] +
		"WHERE p.view_no = (SELECT view_no FROM views WHERE name = $1) AND p.instance_no = $2 AND p.instance_no <> 0 AND p.retired IS NULL ORDER BY p.bucket, p.level"
	err = db.read(ctx, func(b *batch) {
		all = nil
		b.query(fmt.Sprintf("read partitions of %s of %d", view, instance), query, func(r pgx.Rows) error {
			var p catalog.Partition
			err := r.Scan(append([]any{&p.State}, partitionColumns(&p)...)...)
			all = append(all, p)
			return err
		}, view, instance)
	})
	return all, err
}

// AllInstancePartitions implements catalog.Catalog.
func (db *DB) AllInstancePartitions(ctx context.Context, limit int) (all []catalog.Partition, err error) {
	var most *int
	if limit > 0 {
		most = &limit
	}
	err = db.read(ctx, func(b *batch) {
		all = nil
		b.query("read partitions of instances", selectPartitions+"WHERE p.instance_no <> 0 AND p.retired IS NULL ORDER BY p.part_no LIMIT $1", func(r pgx.Rows) error {
			p, err := scanPartition(r)
			all = append(all, p)
			return err
		}, most)
	})
	return all, err
}

// ProcessStreams implements catalog.Catalog.
func (db *DB) ProcessStreams(ctx context.Context, processes []telemetry.ID) (all []catalog.StreamRow, err error) {
	if len(processes) == 0 {
		return nil, nil
	}
	err = db.read(ctx, func(b *batch) {
		all = nil
		b.query("read streams of processes", selectStreams+`WHERE s.process_no = ANY(ARRAY(SELECT process_no FROM processes WHERE process_id = ANY($1)))
ORDER BY s.stream_no`, func(r pgx.Rows) error {
			s, err := scanStream(r)
			all = append(all, s)
			return err
		}, uuids(processes))
	})
	if err != nil {
		return nil, err
	}
	return all, db.joinLayouts(ctx, all)
}

// selectStreamBlocks reads a stream's rows from its tree: days whose partitions hold none of the times are not looked into.
const selectStreamBlocks = `SELECT b.block_id, s.process_id, b.begin_time, b.end_time, b.begin_ticks, b.end_ticks, b.object_offset, b.nb_objects, b.insert_time,
  b.payload_size, b.pack_off, b.pack_len, s.tags, s.stream_known, s.process_known, k.key, k.class, k.gen, k.shard, k.last_seq
FROM (SELECT s.stream_no, p.process_id, s.tags, s.registered IS NOT NULL AS stream_known, p.registered IS NOT NULL AS process_known
    FROM streams s JOIN processes p USING(process_no) WHERE s.stream_id = $1) s
CROSS JOIN LATERAL (SELECT * FROM blocks b WHERE b.stream_no = s.stream_no AND b.begin_time >= $2 AND b.begin_time < $3 AND b.begin_time <= $4
  AND greatest(b.end_time, b.begin_time) >= $5 ORDER BY b.begin_time DESC, b.block_id DESC LIMIT $6) b
JOIN packs k USING(pack_no)
ORDER BY b.begin_time DESC, b.block_id DESC`

// StreamBlocks implements catalog.Catalog.
func (db *DB) StreamBlocks(ctx context.Context, stream telemetry.ID, q catalog.BlockQuery) (all []catalog.BlockRow, err error) {
	var most *int
	if q.Newest > 0 {
		most = &q.Newest
	}
	tags := tagCache{}
	err = db.read(ctx, func(b *batch) {
		all = nil
		b.query("read blocks of stream "+stream.String(), selectStreamBlocks, func(r pgx.Rows) error {
			row := catalog.BlockRow{}
			row.StreamID = stream
			var text []byte
			var last int64
			if err := r.Scan((*[16]byte)(&row.ID), (*[16]byte)(&row.ProcessID), &row.BeginTime, &row.EndTime, &row.BeginTicks, &row.EndTicks, &row.ObjectOffset,
				&row.NbObjects, &row.InsertTime, &row.PayloadSize, &row.PackOffset, &row.PackLength, &text, &row.StreamKnown, &row.ProcessKnown,
				&row.PackKey, (*class)(&row.Shard.Class), &row.Shard.Gen, &row.Shard.Shard, &last); err != nil {
				return err
			}
			row.PackSeq = uint64(last)
			var err error
			if row.StreamKnown {
				row.Tag, err = tags.of(text)
			}
			all = append(all, row)
			return err
		}, [16]byte(stream), q.From, q.To, q.End, q.Begin, most)
	})
	slices.Reverse(all)
	return all, err
}
