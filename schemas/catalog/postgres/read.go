package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// many takes a place among the reads of many rows.
func (db *DB) many(ctx context.Context) (leave func(), err error) {
	select {
	case db.bulk <- struct{}{}:
		return func() { <-db.bulk }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

const selectProcesses = `SELECT p.process_no, p.process_id, coalesce(p.registered, 0), p.exe, p.username, p.realname, p.computer, p.distro, p.cpu_brand,
  p.tsc_frequency, p.start_time, p.start_ticks, coalesce(p.parent_process_id, '00000000-0000-0000-0000-000000000000'), p.properties,
  coalesce(e.first_time, 0), coalesce(e.last_time, 0), coalesce(e.last_insert, 0), coalesce(e.last_ticks, 0),
  coalesce(e.last_ticks_time, e.last_time, 0), e.process_no IS NOT NULL
FROM processes p LEFT JOIN process_seen e USING(process_no) `

// Processes implements catalog.Catalog.
func (db *DB) Processes(ctx context.Context, ids []telemetry.ID) (all []catalog.ProcessRow, err error) {
	if ids != nil && len(ids) == 0 {
		return nil, nil
	}
	leave, err := db.many(ctx)
	if err != nil {
		return nil, fmt.Errorf("read processes: %w", err)
	}
	defer leave()
	err = db.read(ctx, func(b *batch) {
		all = nil
		each := func(r pgx.Rows) error {
			p, err := scanProcess(r)
			all = append(all, p)
			return err
		}
		if ids == nil {
			b.query("read processes", selectProcesses+"ORDER BY p.process_no", each)
			return
		}
		b.query("read processes", selectProcesses+"WHERE p.process_id = ANY($1) ORDER BY p.process_no", each, uuids(ids))
	})
	return all, err
}

// ProcessesAfter implements catalog.Catalog.
func (db *DB) ProcessesAfter(ctx context.Context, no int64, limit int) (all []catalog.ProcessRow, err error) {
	leave, err := db.many(ctx)
	if err != nil {
		return nil, fmt.Errorf("read processes after %d: %w", no, err)
	}
	defer leave()
	err = db.read(ctx, func(b *batch) {
		all = nil
		b.query(fmt.Sprintf("read processes after %d", no), selectProcesses+"WHERE p.process_no > $1 ORDER BY p.process_no LIMIT $2", func(r pgx.Rows) error {
			p, err := scanProcess(r)
			all = append(all, p)
			return err
		}, no, limit)
	})
	return all, err
}

func scanProcess(r pgx.Rows) (p catalog.ProcessRow, err error) {
	var properties string
	err = r.Scan(&p.No, (*[16]byte)(&p.ID), &p.Registered, &p.Exe, &p.Username, &p.Realname, &p.Computer, &p.Distro, &p.CPUBrand,
		&p.TSCFrequency, &p.StartTime, &p.StartTicks, (*[16]byte)(&p.ParentID), &properties,
		&p.FirstTime, &p.LastTime, &p.LastInsert, &p.LastTicks, &p.LastTicksTime, &p.HasBlocks)
	if err == nil {
		p.Properties, err = decodeProperties(properties)
	}
	return p, err
}

const selectStreams = `SELECT s.stream_no, s.stream_id, s.process_no, p.process_id, coalesce(s.registered, 0), s.tags, s.format, s.properties,
  coalesce(s.dependencies, 0), coalesce(s.objects, 0), coalesce(e.first_time, 0), coalesce(e.last_time, 0), coalesce(e.last_insert, 0), e.stream_no IS NOT NULL
FROM streams s JOIN processes p USING(process_no) LEFT JOIN stream_seen e USING(stream_no) `

// Streams implements catalog.Catalog. Layouts never change, so they are read apart, each once in the life of this process.
func (db *DB) Streams(ctx context.Context, ids []telemetry.ID) (all []catalog.StreamRow, err error) {
	if ids != nil && len(ids) == 0 {
		return nil, nil
	}
	leave, err := db.many(ctx)
	if err != nil {
		return nil, fmt.Errorf("read streams: %w", err)
	}
	defer leave()
	err = db.read(ctx, func(b *batch) {
		all = nil
		each := func(r pgx.Rows) error {
			s, err := scanStream(r)
			all = append(all, s)
			return err
		}
		if ids == nil {
			b.query("read streams", selectStreams+"ORDER BY s.stream_no", each)
			return
		}
		b.query("read streams", selectStreams+"WHERE s.stream_id = ANY($1) ORDER BY s.stream_no", each, uuids(ids))
	})
	if err != nil {
		return nil, err
	}
	return all, db.joinLayouts(ctx, all)
}

// StreamsAfter implements catalog.Catalog.
func (db *DB) StreamsAfter(ctx context.Context, no int64, limit int) (all []catalog.StreamRow, err error) {
	leave, err := db.many(ctx)
	if err != nil {
		return nil, fmt.Errorf("read streams after %d: %w", no, err)
	}
	defer leave()
	err = db.read(ctx, func(b *batch) {
		all = nil
		b.query(fmt.Sprintf("read streams after %d", no), selectStreams+"WHERE s.stream_no > $1 ORDER BY s.stream_no LIMIT $2", func(r pgx.Rows) error {
			s, err := scanStream(r)
			all = append(all, s)
			return err
		}, no, limit)
	})
	if err != nil {
		return nil, err
	}
	return all, db.joinLayouts(ctx, all)
}

func scanStream(r pgx.Rows) (s catalog.StreamRow, err error) {
	var tags, properties string
	err = r.Scan(&s.No, (*[16]byte)(&s.ID), &s.ProcessNo, (*[16]byte)(&s.ProcessID), &s.Registered, &tags, &s.Format, &properties,
		&s.DependenciesNo, &s.ObjectsNo, &s.FirstTime, &s.LastTime, &s.LastInsert, &s.HasBlocks)
	if err != nil {
		return s, err
	}
	if s.Tags, err = decodeTags(tags); err != nil {
		return s, err
	}
	s.Properties, err = decodeProperties(properties)
	return s, err
}

// joinLayouts gives streams the bodies of their layouts. Those that are not kept are read, as many at once as are kept.
func (db *DB) joinLayouts(ctx context.Context, streams []catalog.StreamRow) error {
	bodies := map[int64][]byte{0: nil}
	var missing []int64
	want := func(no int64) {
		if _, ok := bodies[no]; ok {
			return
		}
		b, ok := db.known.body(no)
		if !ok {
			missing = append(missing, no)
		}
		bodies[no] = b
	}
	for i := range streams {
		want(streams[i].DependenciesNo)
		want(streams[i].ObjectsNo)
	}
	if len(missing) > 0 {
		found := 0
		err := db.read(ctx, func(b *batch) {
			found = 0
			b.query("read layouts", "SELECT layout_no, body FROM layouts WHERE layout_no = ANY($1)", func(r pgx.Rows) error {
				var no int64
				var body []byte
				if err := r.Scan(&no, &body); err != nil {
					return err
				}
				found++
				bodies[no] = body
				db.known.learnBody(no, body)
				return nil
			}, missing)
		})
		if err != nil {
			return err
		}
		if found != len(missing) {
			return fmt.Errorf("read layouts: %d of %d are missing", len(missing)-found, len(missing))
		}
	}
	for i := range streams {
		streams[i].DependenciesCBOR, streams[i].ObjectsCBOR = bodies[streams[i].DependenciesNo], bodies[streams[i].ObjectsNo]
	}
	return nil
}

// StreamTag implements catalog.Catalog.
func (db *DB) StreamTag(ctx context.Context, id telemetry.ID) (tag telemetry.Tag, found bool, err error) {
	err = db.read(ctx, func(b *batch) {
		tag, found = telemetry.TagUnknown, false
		b.query("read tags of stream "+id.String(), "SELECT tags FROM streams WHERE stream_id = $1 AND registered IS NOT NULL", func(r pgx.Rows) error {
			var text string
			if err := r.Scan(&text); err != nil {
				return err
			}
			tags, err := decodeTags(text)
			if err == nil {
				tag, found = telemetry.TagOf(tags), true
			}
			return err
		}, [16]byte(id))
	})
	return tag, found, err
}

// selectExisting looks each key up in the one partition that its time names; see insertBlocks for the subqueries.
const selectExisting = `SELECT k.i FROM unnest($1::uuid[], $2::bigint[], $3::uuid[]) WITH ORDINALITY AS k(stream_id, begin_time, block_id, i)
WHERE (SELECT true FROM blocks b WHERE b.stream_no = (SELECT s.stream_no FROM streams s WHERE s.stream_id = k.stream_id)
  AND b.begin_time = k.begin_time AND b.block_id = k.block_id LIMIT 1)`

// ExistingBlocks implements catalog.Catalog.
func (db *DB) ExistingBlocks(ctx context.Context, keys []catalog.BlockKey) ([]bool, error) {
	exist := make([]bool, len(keys))
	if len(keys) == 0 {
		return exist, nil
	}
	streams, times, blocks := make([][16]byte, len(keys)), make([]int64, len(keys)), make([][16]byte, len(keys))
	for i := range keys {
		streams[i], times[i], blocks[i] = keys[i].StreamID, micros(keys[i].BeginTime), keys[i].BlockID
	}
	err := db.read(ctx, func(b *batch) {
		clear(exist)
		b.query("look up blocks", selectExisting, func(r pgx.Rows) error {
			var i int64
			err := r.Scan(&i)
			if err == nil {
				exist[i-1] = true
			}
			return err
		}, streams, times, blocks)
	})
	return exist, err
}

// Stats implements catalog.Catalog.
func (db *DB) Stats(ctx context.Context) (s catalog.Stats, err error) {
	err = db.read(ctx, func(b *batch) {
		b.query("count", `SELECT (SELECT count(*) FROM processes), (SELECT count(*) FROM streams), k.blocks, k.packs, k.size,
  p.live, p.rows, p.size, p.retired, (SELECT count(*) FROM skips), q.parked, q.dead, l.ranges, l.frames,
  z.files, z.rows, (SELECT coalesce(sum(cardinality(ids)), 0)::bigint FROM trace_blocks), (SELECT count(*) FROM trace_filters),
  (`+selectTraceSince+`), (SELECT commit_no FROM clock WHERE one = 1)
FROM (SELECT coalesce(sum(live_blocks), 0)::bigint AS blocks, count(*) AS packs, coalesce(sum(size), 0)::bigint AS size FROM packs) k,
  (SELECT count(*) FILTER (WHERE retired IS NULL) AS live, coalesce(sum(rows) FILTER (WHERE retired IS NULL), 0)::bigint AS rows,
    coalesce(sum(size) FILTER (WHERE retired IS NULL), 0)::bigint AS size, count(*) FILTER (WHERE retired IS NOT NULL) AS retired FROM partitions) p,
  (SELECT count(*) FILTER (WHERE NOT dead) AS parked, count(*) FILTER (WHERE dead) AS dead FROM parked) q,
  (SELECT count(*) AS ranges, coalesce(sum(last_seq - first_seq + 1), 0)::bigint AS frames FROM backlog) l,
  (SELECT count(*) AS files, coalesce(sum(rows), 0)::bigint AS rows FROM frozen JOIN partitions USING(part_no)) z`, func(r pgx.Rows) error {
			return r.Scan(&s.Processes, &s.Streams, &s.Blocks, &s.Packs, &s.PackBytes, &s.Partitions, &s.PartitionRows, &s.PartitionBytes, &s.RetiredPartitions,
				&s.Skips, &s.Parked, &s.Dead, &s.Backlog, &s.BacklogFrames, &s.FrozenFiles, &s.FrozenBlocks,
				&s.TraceIDs, &s.TraceFilters, &s.TraceSince, &s.CommitNo)
		})
	})
	return s, err
}
