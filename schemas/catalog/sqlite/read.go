package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// maxIDsInQuery bounds the placeholders of one statement; longer lists are read in several.
const maxIDsInQuery = 500

// idColumn scans a BLOB of 16 bytes; NULL is the zero id.
type idColumn struct{ id *telemetry.ID }

// Scan implements sql.Scanner.
func (c idColumn) Scan(v any) error {
	switch b := v.(type) {
	case nil:
		*c.id = telemetry.ID{}
		return nil
	case []byte:
		if len(b) == len(c.id) {
			copy(c.id[:], b)
			return nil
		}
	}
	return fmt.Errorf("%T is no id", v)
}

// forIDs runs a query that ends in WHERE column IN (…) for all ids, or the query without a condition for nil.
func forIDs[T any](ctx context.Context, q querier, scan func(*sql.Rows) (T, error), query, column, order string, ids []telemetry.ID) ([]T, error) {
	if ids == nil {
		return collect(ctx, q, scan, query+order)
	}
	var all []T
	for part := range slices.Chunk(ids, maxIDsInQuery) {
		found, err := collect(ctx, q, scan, query+" WHERE "+column+" IN ("+placeholders(len(part))+")"+order, appendIDs(nil, part)...)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

const selectProcesses = `SELECT process_no, process_id, coalesce(registered, 0), coalesce(exe, ''), coalesce(username, ''), coalesce(realname, ''),
  coalesce(computer, ''), coalesce(distro, ''), coalesce(cpu_brand, ''), coalesce(tsc_frequency, 0), coalesce(start_time, 0), coalesce(start_ticks, 0),
  parent_process_id, coalesce(properties, '{}'), coalesce(first_time, 0), coalesce(last_time, 0), coalesce(last_insert, 0), coalesce(last_ticks, 0),
  coalesce(last_ticks_time, last_time, 0), first_time IS NOT NULL FROM processes`

// Processes implements catalog.Catalog.
func (db *DB) Processes(ctx context.Context, ids []telemetry.ID) ([]catalog.ProcessRow, error) {
	var all []catalog.ProcessRow
	err := db.snapshot(ctx, func(t *sql.Tx) (err error) {
		all, err = forIDs(ctx, t, scanProcess, selectProcesses, "process_id", " ORDER BY process_no", ids)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read processes: %w", err)
	}
	return sortedOnce(all, len(ids) > maxIDsInQuery, func(p catalog.ProcessRow) int64 { return p.No }), nil
}

func scanProcess(rows *sql.Rows) (p catalog.ProcessRow, err error) {
	var properties string
	err = rows.Scan(&p.No, idColumn{&p.ID}, &p.Registered, &p.Exe, &p.Username, &p.Realname, &p.Computer, &p.Distro, &p.CPUBrand,
		&p.TSCFrequency, &p.StartTime, &p.StartTicks, idColumn{&p.ParentID}, &properties,
		&p.FirstTime, &p.LastTime, &p.LastInsert, &p.LastTicks, &p.LastTicksTime, &p.HasBlocks)
	if err == nil {
		p.Properties, err = decodeProperties(properties)
	}
	return p, err
}

const selectStreams = `SELECT s.stream_no, s.stream_id, s.process_no, p.process_id, coalesce(s.registered, 0), coalesce(s.tags, '[]'), coalesce(s.format, ''),
  coalesce(s.properties, '{}'), coalesce(s.dependencies, 0), coalesce(s.objects, 0), coalesce(s.first_time, 0), coalesce(s.last_time, 0),
  coalesce(s.last_insert, 0), s.first_time IS NOT NULL
FROM streams s CROSS JOIN processes p USING(process_no)`

// selectStreamsOf is selectStreams with the processes outermost.
var selectStreamsOf = strings.Replace(selectStreams, "FROM streams s CROSS JOIN processes p", "FROM processes p CROSS JOIN streams s", 1)

// Streams implements catalog.Catalog.
func (db *DB) Streams(ctx context.Context, ids []telemetry.ID) ([]catalog.StreamRow, error) {
	var all []catalog.StreamRow
	err := db.snapshot(ctx, func(t *sql.Tx) (err error) {
		if all, err = forIDs(ctx, t, scanStream, selectStreams, "s.stream_id", " ORDER BY s.stream_no", ids); err != nil {
			return err
		}
		return joinLayouts(ctx, t, all)
	})
	if err != nil {
		return nil, fmt.Errorf("read streams: %w", err)
	}
	return sortedOnce(all, len(ids) > maxIDsInQuery, func(s catalog.StreamRow) int64 { return s.No }), nil
}

func scanStream(rows *sql.Rows) (s catalog.StreamRow, err error) {
	var tags, properties string
	err = rows.Scan(&s.No, idColumn{&s.ID}, &s.ProcessNo, idColumn{&s.ProcessID}, &s.Registered, &tags, &s.Format, &properties,
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

// joinLayouts reads each layout once, however many streams share it.
func joinLayouts(ctx context.Context, t *sql.Tx, streams []catalog.StreamRow) error {
	bodies := map[int64][]byte{0: nil}
	body := func(no int64) ([]byte, error) {
		if b, ok := bodies[no]; ok {
			return b, nil
		}
		var b []byte
		if err := t.QueryRowContext(ctx, "SELECT body FROM layouts WHERE layout_no = ?", no).Scan(&b); err != nil {
			return nil, fmt.Errorf("layout %d: %w", no, err)
		}
		bodies[no] = b
		return b, nil
	}
	for i := range streams {
		var err error
		if streams[i].DependenciesCBOR, err = body(streams[i].DependenciesNo); err != nil {
			return err
		}
		if streams[i].ObjectsCBOR, err = body(streams[i].ObjectsNo); err != nil {
			return err
		}
	}
	return nil
}

// ProcessesAfter implements catalog.Catalog.
func (db *DB) ProcessesAfter(ctx context.Context, no int64, limit int) ([]catalog.ProcessRow, error) {
	all, err := collect(ctx, db.read, scanProcess, selectProcesses+" WHERE process_no > ? ORDER BY process_no LIMIT ?", no, limit)
	if err != nil {
		return nil, fmt.Errorf("read processes after %d: %w", no, err)
	}
	return all, nil
}

// StreamsAfter implements catalog.Catalog.
func (db *DB) StreamsAfter(ctx context.Context, no int64, limit int) ([]catalog.StreamRow, error) {
	var all []catalog.StreamRow
	err := db.snapshot(ctx, func(t *sql.Tx) (err error) {
		if all, err = collect(ctx, t, scanStream, selectStreams+" WHERE s.stream_no > ? ORDER BY s.stream_no LIMIT ?", no, limit); err != nil {
			return err
		}
		return joinLayouts(ctx, t, all)
	})
	if err != nil {
		return nil, fmt.Errorf("read streams after %d: %w", no, err)
	}
	return all, nil
}

// sortedOnce restores order and uniqueness of rows that were read in several parts.
func sortedOnce[T any](rows []T, parts bool, no func(T) int64) []T {
	if !parts {
		return rows
	}
	slices.SortFunc(rows, func(a, b T) int { return int(no(a) - no(b)) })
	return slices.CompactFunc(rows, func(a, b T) bool { return no(a) == no(b) })
}

// StreamTag implements catalog.Catalog.
func (db *DB) StreamTag(ctx context.Context, id telemetry.ID) (telemetry.Tag, bool, error) {
	var tags string
	err := db.read.QueryRowContext(ctx, "SELECT tags FROM streams WHERE stream_id = ? AND registered IS NOT NULL", id[:]).Scan(&tags)
	if errors.Is(err, sql.ErrNoRows) {
		return telemetry.TagUnknown, false, nil
	}
	if err != nil {
		return telemetry.TagUnknown, false, fmt.Errorf("tag of stream %s: %w", id, err)
	}
	list, err := decodeTags(tags)
	if err != nil {
		return telemetry.TagUnknown, false, fmt.Errorf("tag of stream %s: %w", id, err)
	}
	return telemetry.TagOf(list), true, nil
}

// ExistingBlocks implements catalog.Catalog.
func (db *DB) ExistingBlocks(ctx context.Context, keys []catalog.BlockKey) ([]bool, error) {
	exist := make([]bool, len(keys))
	if len(keys) == 0 {
		return exist, nil
	}
	var args []any
	err := db.snapshot(ctx, func(t *sql.Tx) error {
		return inGroups(len(keys), func(from, to int) error {
			args = args[:0]
			for i := from; i < to; i++ {
				args = append(args, i, keys[i].StreamID[:], catalog.TruncateToMicroseconds(keys[i].BeginTime), keys[i].BlockID[:])
			}
			found, err := collect(ctx, t, func(rows *sql.Rows) (i int, err error) {
				err = rows.Scan(&i)
				return i, err
			}, selectExisting[to-from], args...)
			for _, i := range found {
				exist[i] = true
			}
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("look up blocks: %w", err)
	}
	return exist, nil
}

// selectExisting finds keys among the blocks; the cross joins keep the keys outermost.
var selectExisting = newMulti("WITH k(i, stream_id, begin_time, block_id) AS (VALUES ", 4,
	") SELECT i FROM k CROSS JOIN streams USING(stream_id) CROSS JOIN blocks USING(stream_no, begin_time, block_id)")

const selectPacks = "SELECT pack_no, class, gen, shard, first_seq, last_seq, key, size, created, adopted FROM packs "

func scanPack(rows *sql.Rows) (p catalog.Pack, err error) {
	var class string
	err = rows.Scan(&p.No, &class, &p.Shard.Gen, &p.Shard.Shard, &p.FirstSeq, &p.LastSeq, &p.Key, &p.Size, &p.Created, &p.Adopted)
	p.Shard.Class = classByte(class)
	return p, err
}

// PacksAfter implements catalog.Catalog.
func (db *DB) PacksAfter(ctx context.Context, s catalog.ShardID, seq uint64, limit int) ([]catalog.Pack, error) {
	return collect(ctx, db.read, scanPack, selectPacks+`WHERE class = ? AND gen = ? AND shard = ? AND last_seq > ? AND adopted = 0
ORDER BY last_seq LIMIT ?`, className(s.Class), s.Gen, s.Shard, signed(seq), noLimit(limit)) // packs do not overlap: the order of first_seq
}

func noLimit(limit int) int {
	if limit <= 0 {
		return -1
	}
	return limit
}

const selectBlocks = `SELECT b.block_id, s.stream_id, p.process_id, b.begin_time, b.end_time, b.begin_ticks, b.end_ticks, b.object_offset, b.nb_objects,
  b.insert_time, b.payload_size, coalesce(s.tags, '[]'), b.pack_off, b.pack_len, s.registered IS NOT NULL, p.registered IS NOT NULL
FROM blocks b JOIN streams s USING(stream_no) JOIN processes p USING(process_no)
WHERE b.pack_no = ? ORDER BY b.pack_off`

// packsInStep is how many packs are listed at a time.
const packsInStep = 256

// BlocksSince implements catalog.Catalog.
func (db *DB) BlocksSince(ctx context.Context, after map[catalog.ShardID]uint64, limit int) ([]catalog.BlockRow, map[catalog.ShardID]uint64, error) {
	if limit <= 0 {
		limit = 1<<63 - 1
	}
	var all []catalog.BlockRow
	positions := maps.Clone(after)
	if positions == nil {
		positions = map[catalog.ShardID]uint64{}
	}
	err := db.snapshot(ctx, func(t *sql.Tx) error {
		archived, err := archivePositions(ctx, t)
		if err != nil {
			return err
		}
		r := blockReader{t: t, tags: tagCache{}, limit: limit}
		if err := r.open(ctx); err != nil {
			return err
		}
		defer r.close()
		for _, s := range slices.SortedFunc(maps.Keys(archived), catalog.ShardID.Compare) {
			if len(r.all) >= limit {
				break
			}
			if positions[s], err = r.shard(ctx, s, after[s], archived[s]); err != nil {
				return fmt.Errorf("shard %s: %w", s, err)
			}
		}
		all = r.all
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read blocks: %w", err)
	}
	return all, positions, nil
}

// blockReader reads block rows in order of position.
type blockReader struct {
	t         *sql.Tx
	st        *sql.Stmt // selectBlocks
	tags      tagCache
	hidden    hidden
	firstPack int64 // the least number of a pack that has rows; the frozen ones before are very many in the end
	limit     int
	all       []catalog.BlockRow
}

func (r *blockReader) open(ctx context.Context) (err error) {
	if r.hidden, err = readFreezes(ctx, r.t, "WHERE next_stream IS NOT NULL"); err != nil {
		return err
	}
	if err := r.t.QueryRowContext(ctx, "SELECT coalesce(min(pack_no), 0) FROM blocks").Scan(&r.firstPack); err != nil {
		return err
	}
	r.st, err = r.t.PrepareContext(ctx, selectBlocks)
	return err
}

func (r *blockReader) close() { _ = r.st.Close() } // it only read

// shard appends the blocks of a shard after a position, up to the end of the commit that reaches the limit, and returns the
// position reached.
func (r *blockReader) shard(ctx context.Context, s catalog.ShardID, after, archived uint64) (uint64, error) {
	if after >= archived {
		return after, nil
	}
	first, err := r.first(ctx, s)
	if err != nil || first == 0 {
		return archived, err
	}
	after = max(after, first-1)
	for {
		// An adopted body comes with the pack whose frames point to it, so all of a commit is read before the position moves.
		packs, err := collect(ctx, r.t, scanPack, selectPacks+`WHERE class = ?1 AND gen = ?2 AND shard = ?3 AND last_seq > ?4 AND last_seq <=
  coalesce((SELECT max(last_seq) FROM (SELECT last_seq FROM packs WHERE class = ?1 AND gen = ?2 AND shard = ?3 AND last_seq > ?4 AND adopted = 0
    ORDER BY last_seq LIMIT ?5)), 0)
ORDER BY last_seq, adopted DESC`, className(s.Class), s.Gen, s.Shard, signed(after), packsInStep)
		if err != nil {
			return 0, err
		}
		for i := range packs {
			if err = r.pack(ctx, &packs[i]); err != nil {
				return 0, fmt.Errorf("pack %s: %w", packs[i].Key, err)
			}
			if !packs[i].Adopted {
				after = packs[i].LastSeq
				if len(r.all) >= r.limit {
					return after, nil
				}
			}
		}
		if len(packs) == 0 {
			return archived, nil // what is left moved the checkpoint only
		}
	}
}

// first returns the first sequence number of a shard's first pack of those that may have rows; 0 = there is none. Pack numbers and
// sequence numbers of a shard rise together.
func (r *blockReader) first(ctx context.Context, s catalog.ShardID) (seq uint64, err error) {
	err = r.t.QueryRowContext(ctx, "SELECT first_seq FROM packs NOT INDEXED WHERE pack_no >= ? AND class = ? AND gen = ? AND shard = ? ORDER BY pack_no LIMIT 1",
		r.firstPack, className(s.Class), s.Gen, s.Shard).Scan(&seq)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return seq, err
}

func (r *blockReader) pack(ctx context.Context, pack *catalog.Pack) error {
	rows, err := r.st.QueryContext(ctx, pack.No)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		b := catalog.BlockRow{PackKey: pack.Key, Shard: pack.Shard, PackSeq: pack.LastSeq}
		var list sql.RawBytes
		if err := rows.Scan(idColumn{&b.ID}, idColumn{&b.StreamID}, idColumn{&b.ProcessID}, &b.BeginTime, &b.EndTime, &b.BeginTicks, &b.EndTicks,
			&b.ObjectOffset, &b.NbObjects, &b.InsertTime, &b.PayloadSize, &list, &b.PackOffset, &b.PackLength, &b.StreamKnown, &b.ProcessKnown); err != nil {
			return err
		}
		if r.hidden.hold(&b) {
			continue
		}
		if b.StreamKnown {
			if b.Tag, err = r.tags.of(list); err != nil {
				return err
			}
		}
		r.all = append(r.all, b)
	}
	return rows.Err()
}

// tagCache maps the text of tags to their tag: a few texts stand in millions of rows. It lives for one read.
type tagCache map[string]telemetry.Tag

func (c tagCache) of(text []byte) (telemetry.Tag, error) {
	if tag, ok := c[string(text)]; ok {
		return tag, nil
	}
	list, err := decodeTags(string(text))
	if err != nil {
		return telemetry.TagUnknown, err
	}
	tag := telemetry.TagOf(list)
	c[string(text)] = tag
	return tag, nil
}

// Stats implements catalog.Catalog.
func (db *DB) Stats(ctx context.Context) (catalog.Stats, error) {
	var s catalog.Stats
	err := db.read.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM processes), (SELECT count(*) FROM streams),
  (SELECT coalesce(sum(live_blocks), 0) FROM packs), (SELECT count(*) FROM packs), (SELECT coalesce(sum(size), 0) FROM packs),
  (SELECT count(*) FROM partitions WHERE retired IS NULL), (SELECT coalesce(sum(rows), 0) FROM partitions WHERE retired IS NULL),
  (SELECT coalesce(sum(size), 0) FROM partitions WHERE retired IS NULL), (SELECT count(*) FROM partitions WHERE retired IS NOT NULL),
  (SELECT count(*) FROM skips), (SELECT count(*) FROM parked WHERE dead = 0), (SELECT count(*) FROM parked WHERE dead = 1),
  (SELECT count(*) FROM backlog), (SELECT coalesce(sum(last_seq - first_seq + 1), 0) FROM backlog),
  (SELECT count(*) FROM frozen), (SELECT coalesce(sum(rows), 0) FROM frozen JOIN partitions USING(part_no)),
  (SELECT coalesce(sum(length(ids) / 16), 0) FROM trace_blocks), (SELECT count(*) FROM trace_filters), (`+selectTraceSince+`), (SELECT commit_no FROM clock WHERE one = 1)`).
		Scan(&s.Processes, &s.Streams, &s.Blocks, &s.Packs, &s.PackBytes, &s.Partitions, &s.PartitionRows, &s.PartitionBytes, &s.RetiredPartitions,
			&s.Skips, &s.Parked, &s.Dead, &s.Backlog, &s.BacklogFrames, &s.FrozenFiles, &s.FrozenBlocks,
			&s.TraceIDs, &s.TraceFilters, &s.TraceSince, &s.CommitNo)
	if err != nil {
		return catalog.Stats{}, fmt.Errorf("count: %w", err)
	}
	return s, nil
}

// decodeProperties reads a JSON object of strings; the result is sorted by key.
func decodeProperties(text string) ([]telemetry.Property, error) {
	if text == "{}" {
		return nil, nil
	}
	var m map[string]string
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return nil, fmt.Errorf("properties: %w", err)
	}
	properties := make([]telemetry.Property, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		properties = append(properties, telemetry.Property{Key: k, Value: m[k]})
	}
	return properties, nil
}

func decodeTags(text string) ([]string, error) {
	var tags []string
	if err := json.Unmarshal([]byte(text), &tags); err != nil {
		return nil, fmt.Errorf("tags: %w", err)
	}
	return tags, nil
}
