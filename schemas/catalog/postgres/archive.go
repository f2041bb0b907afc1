package postgres

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// CommitArchive implements catalog.Catalog. One round trip, and one more when the commit is the first to hold blocks of a day.
func (db *DB) CommitArchive(ctx context.Context, c *catalog.ArchiveCommit) error {
	if err := c.Validate(); err != nil {
		return err
	}
	db.makeDays(ctx, c.Blocks)
	var a archiving
	err := db.write(ctx, func(b *batch) {
		a = newArchiving(db, c)
		b.checkFrozen(c, db.clock.now())
		b.moveCheckpoint(catalog.ConsumerArchive, catalog.Move{Shard: c.Shard, From: c.From, To: c.To, Epoch: c.Epoch})
		a.addLayouts(b)
		a.addProcesses(b)
		a.addStreams(b)
		a.addBlocks(b)
		a.addTraces(b, db)
		a.addSkips(b)
		a.forgetChanges(b, db.keptChanges)
		a.see(b)
	})
	if err != nil {
		return fmt.Errorf("archive %s to %d: %w", c.Shard, c.To, err)
	}
	db.known.learn(a.learned, a.layouts, nil)
	return nil
}

// archiving is an archive commit in the order in which its rows are locked: each list is sorted by id, without repetitions.
type archiving struct {
	c         *catalog.ArchiveCommit
	layouts   [][sha256.Size]byte // not known yet
	bodies    map[[sha256.Size]byte][]byte
	processes []processRow
	streams   []streamRow
	blocks    []*catalog.BlockReg
	seen      []seen
	learned   []telemetry.ID // streams that are there when the commit stands
}

// processRow is a process to add: as registered, or (reg nil) a stub.
type processRow struct {
	id  telemetry.ID
	reg *catalog.ProcessReg
}

// streamRow is a stream to add: as registered, or (reg nil) a stub.
type streamRow struct {
	id, process           telemetry.ID
	reg                   *catalog.StreamReg
	dependencies, objects [sha256.Size]byte
}

func newArchiving(db *DB, c *catalog.ArchiveCommit) archiving {
	a := archiving{c: c, bodies: map[[sha256.Size]byte][]byte{}}
	a.sortBlocks()
	a.listStreams(db)
	a.listProcesses()
	return a
}

// sortBlocks brings the blocks into the order of their tree, and sums up what they say of each stream.
func (a *archiving) sortBlocks() {
	a.blocks = make([]*catalog.BlockReg, len(a.c.Blocks))
	for i := range a.c.Blocks {
		a.blocks[i] = &a.c.Blocks[i]
	}
	slices.SortFunc(a.blocks, func(x, y *catalog.BlockReg) int {
		return cmp.Or(x.StreamID.Compare(y.StreamID), cmp.Compare(x.BeginTime, y.BeginTime), x.ID.Compare(y.ID))
	})
	for _, b := range a.blocks {
		if n := len(a.seen); n > 0 && a.seen[n-1].stream == b.StreamID {
			a.seen[n-1].add(b)
		} else {
			a.seen = append(a.seen, newSeen(b))
		}
	}
}

// listStreams lists the registered streams, and a stub for each that a block names and that is not known.
func (a *archiving) listStreams(db *DB) {
	rows := map[telemetry.ID]streamRow{}
	for i := range a.c.Streams {
		s := &a.c.Streams[i]
		if _, ok := rows[s.ID]; ok {
			continue // first wins
		}
		rows[s.ID] = streamRow{s.ID, s.ProcessID, s, a.layout(db, s.DependenciesCBOR), a.layout(db, s.ObjectsCBOR)}
		a.learned = append(a.learned, s.ID)
	}
	for i := range a.c.Blocks { // in their order: the first one names a stub's process
		b := &a.c.Blocks[i]
		if _, ok := rows[b.StreamID]; ok || db.known.hasStream(b.StreamID) {
			continue
		}
		rows[b.StreamID] = streamRow{id: b.StreamID, process: b.ProcessID}
		a.learned = append(a.learned, b.StreamID)
	}
	for _, r := range rows {
		a.streams = append(a.streams, r)
	}
	slices.SortFunc(a.streams, func(x, y streamRow) int { return x.id.Compare(y.id) })
	slices.SortFunc(a.layouts, func(x, y [sha256.Size]byte) int { return slices.Compare(x[:], y[:]) })
}

// layout returns the hash of a layout, and lists its body unless it is known to be in the database.
func (a *archiving) layout(db *DB, body []byte) [sha256.Size]byte {
	sum := sha256.Sum256(body)
	if _, listed := a.bodies[sum]; !listed && !db.known.hasLayout(sum) {
		a.bodies[sum] = body
		a.layouts = append(a.layouts, sum)
	}
	return sum
}

// listProcesses lists the registered processes, and a stub for each that a listed stream names.
func (a *archiving) listProcesses() {
	rows := map[telemetry.ID]*catalog.ProcessReg{}
	for i := range a.c.Processes {
		if p := &a.c.Processes[i]; rows[p.ID] == nil {
			rows[p.ID] = p
		}
	}
	for i := range a.streams {
		if _, ok := rows[a.streams[i].process]; !ok {
			rows[a.streams[i].process] = nil
		}
	}
	for id, reg := range rows {
		a.processes = append(a.processes, processRow{id, reg})
	}
	slices.SortFunc(a.processes, func(x, y processRow) int { return x.id.Compare(y.id) })
}

const insertLayouts = `INSERT INTO layouts(sha256, body) SELECT n.* FROM unnest($1::bytea[], $2::bytea[]) AS n(sha256, body)
WHERE (SELECT true FROM layouts l WHERE l.sha256 = n.sha256) IS NULL ON CONFLICT DO NOTHING`

func (a *archiving) addLayouts(b *batch) {
	if len(a.layouts) == 0 {
		return
	}
	sums, bodies := make([][]byte, len(a.layouts)), make([][]byte, len(a.layouts))
	for i := range a.layouts {
		sums[i], bodies[i] = a.layouts[i][:], a.bodies[a.layouts[i]]
		if bodies[i] == nil {
			bodies[i] = []byte{}
		}
	}
	b.exec("add layouts", insertLayouts, sums, bodies)
}

// insertProcesses adds rows that are not there, and fills stubs. Rows that it leaves alone it does not lock.
const insertProcesses = `INSERT INTO processes AS p (process_id, registered, exe, username, realname, computer, distro, cpu_brand,
  tsc_frequency, start_time, start_ticks, parent_process_id, properties)
SELECT n.process_id, CASE WHEN n.reg THEN n.registered END, n.exe, n.username, n.realname, n.computer, n.distro, n.cpu_brand,
  n.tsc_frequency, n.start_time, n.start_ticks, nullif(n.parent, '00000000-0000-0000-0000-000000000000'), n.properties
FROM unnest($1::uuid[], $2::boolean[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
    $10::bigint[], $11::bigint[], $12::bigint[], $13::uuid[], $14::text[])
  AS n(process_id, reg, registered, exe, username, realname, computer, distro, cpu_brand, tsc_frequency, start_time, start_ticks, parent, properties)
WHERE (SELECT o.registered IS NULL AND n.reg FROM processes o WHERE o.process_id = n.process_id) IS NOT FALSE
ON CONFLICT (process_id) DO UPDATE SET registered = excluded.registered, exe = excluded.exe, username = excluded.username,
  realname = excluded.realname, computer = excluded.computer, distro = excluded.distro, cpu_brand = excluded.cpu_brand,
  tsc_frequency = excluded.tsc_frequency, start_time = excluded.start_time, start_ticks = excluded.start_ticks,
  parent_process_id = excluded.parent_process_id, properties = excluded.properties
WHERE p.registered IS NULL AND excluded.registered IS NOT NULL`

func (a *archiving) addProcesses(b *batch) {
	n := len(a.processes)
	if n == 0 {
		return
	}
	id, parent, reg := make([][16]byte, n), make([][16]byte, n), make([]bool, n)
	var texts [7][]string
	for i := range texts {
		texts[i] = make([]string, n)
	}
	var numbers [4][]int64
	for i := range numbers {
		numbers[i] = make([]int64, n)
	}
	for i := range a.processes {
		p := a.processes[i].reg
		id[i], reg[i] = a.processes[i].id, p != nil
		if p == nil {
			texts[6][i] = "{}"
			continue
		}
		parent[i] = p.ParentID
		for k, v := range [...]string{p.Exe, p.Username, p.Realname, p.Computer, p.Distro, p.CPUBrand, encodeProperties(p.Properties)} {
			texts[k][i] = clean(v)
		}
		for k, v := range [...]int64{micros(p.InsertTime), p.TSCFrequency, micros(p.StartTime), p.StartTicks} {
			numbers[k][i] = v
		}
	}
	b.exec("add processes", insertProcesses, id, reg, numbers[0], texts[0], texts[1], texts[2], texts[3], texts[4], texts[5],
		numbers[1], numbers[2], numbers[3], parent, texts[6])
}

// insertStreams adds rows that are not there, and fills stubs, which may have stood under another process. A layout that is
// missing after all fails the check of the table.
const insertStreams = `INSERT INTO streams AS s (stream_id, process_no, registered, tags, format, properties, dependencies, objects)
SELECT n.stream_id, (SELECT p.process_no FROM processes p WHERE p.process_id = n.process_id), CASE WHEN n.reg THEN n.registered END, n.tags, n.format, n.properties,
  CASE WHEN n.reg THEN (SELECT l.layout_no FROM layouts l WHERE l.sha256 = n.dependencies) END,
  CASE WHEN n.reg THEN (SELECT l.layout_no FROM layouts l WHERE l.sha256 = n.objects) END
FROM unnest($1::uuid[], $2::uuid[], $3::boolean[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::bytea[], $9::bytea[])
  AS n(stream_id, process_id, reg, registered, tags, format, properties, dependencies, objects)
WHERE (SELECT o.registered IS NULL AND n.reg FROM streams o WHERE o.stream_id = n.stream_id) IS NOT FALSE
ON CONFLICT (stream_id) DO UPDATE SET process_no = excluded.process_no, registered = excluded.registered, tags = excluded.tags,
  format = excluded.format, properties = excluded.properties, dependencies = excluded.dependencies, objects = excluded.objects
WHERE s.registered IS NULL AND excluded.registered IS NOT NULL`

func (a *archiving) addStreams(b *batch) {
	n := len(a.streams)
	if n == 0 {
		return
	}
	id, process, reg, registered := make([][16]byte, n), make([][16]byte, n), make([]bool, n), make([]int64, n)
	tags, format, properties := make([]string, n), make([]string, n), make([]string, n)
	dependencies, objects := make([][]byte, n), make([][]byte, n)
	for i := range a.streams {
		s := &a.streams[i]
		id[i], process[i], reg[i] = s.id, s.process, s.reg != nil
		tags[i], properties[i] = "[]", "{}"
		if s.reg != nil {
			registered[i], format[i] = micros(s.reg.InsertTime), clean(s.reg.Format)
			tags[i], properties[i] = encodeTags(s.reg.Tags), encodeProperties(s.reg.Properties)
			dependencies[i], objects[i] = s.dependencies[:], s.objects[:]
		}
	}
	b.exec("add streams", insertStreams, id, process, reg, registered, tags, format, properties, dependencies, objects)
}

// insertBlocks adds the packs and the blocks in them. A block that is there already breaks the primary key of blocks, and a
// stream that is missing after all its NOT NULL. The subqueries make sure of a look-up by index, whatever the server knows of
// the tables when it plans.
const insertBlocks = `WITH pack AS MATERIALIZED (
  SELECT k.*, nextval('pack_numbers') AS pack_no
  FROM unnest($4::bigint[], $5::bigint[], $6::text[], $7::bigint[], $8::integer[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::boolean[])
    WITH ORDINALITY AS k(first_seq, last_seq, key, size, live, created, first_begin, last_begin, last_end, adopted, i)
), added AS (
  INSERT INTO packs(pack_no, class, gen, shard, first_seq, last_seq, key, size, live_blocks, created, adopted, first_begin, last_begin, last_end)
  SELECT pack_no, $1, $2, $3, first_seq, last_seq, key, size, live, CASE created WHEN 0 THEN ` + storeClock + ` ELSE created END, adopted,
    CASE WHEN live > 0 THEN first_begin END, CASE WHEN live > 0 THEN last_begin END, CASE WHEN live > 0 THEN last_end END
  FROM pack)
INSERT INTO blocks(stream_no, begin_time, block_id, end_time, begin_ticks, end_ticks, object_offset, insert_time, pack_no, pack_off, pack_len,
  payload_size, nb_objects)
SELECT (SELECT s.stream_no FROM streams s WHERE s.stream_id = b.stream_id), b.begin_time, b.block_id, b.end_time, b.begin_ticks, b.end_ticks,
  b.object_offset, b.insert_time, (SELECT array_agg(pack_no ORDER BY i) FROM pack)[b.pack], b.pack_off, b.pack_len, b.payload_size, b.nb_objects
FROM unnest($14::uuid[], $15::bigint[], $16::uuid[], $17::bigint[], $18::bigint[], $19::bigint[], $20::bigint[], $21::bigint[], $22::integer[],
    $23::bigint[], $24::bigint[], $25::bigint[], $26::integer[])
  AS b(stream_id, begin_time, block_id, end_time, begin_ticks, end_ticks, object_offset, insert_time, pack, pack_off, pack_len, payload_size, nb_objects)`

// packRow is a pack and what is known of its blocks.
type packRow struct {
	*catalog.Pack
	live                           int32
	firstBegin, lastBegin, lastEnd int64
}

func (p *packRow) add(b *catalog.BlockReg) {
	begin, end := micros(b.BeginTime), micros(b.EndTime)
	if p.live == 0 {
		p.firstBegin, p.lastBegin, p.lastEnd = begin, begin, end
	}
	p.firstBegin, p.lastBegin, p.lastEnd = min(p.firstBegin, begin), max(p.lastBegin, begin), max(p.lastEnd, end)
	p.live++
}

// packs lists the commit's pack and the adopted ones. The pack of block b is at index b.Adopted - skip.
func (a *archiving) packs() (rows []packRow, skip int32) {
	if a.c.Pack != nil {
		rows = append(rows, packRow{Pack: a.c.Pack})
	} else {
		skip = 1 // there are no blocks in it
	}
	for i := range a.c.Adopted {
		rows = append(rows, packRow{Pack: &a.c.Adopted[i]})
	}
	for _, b := range a.blocks {
		rows[b.Adopted-skip].add(b)
	}
	return rows, skip
}

func (a *archiving) addBlocks(b *batch) {
	packs, skip := a.packs()
	if len(packs) == 0 {
		return
	}
	args := []any{class(a.c.Shard.Class), a.c.Shard.Gen, a.c.Shard.Shard}
	args = appendPacks(args, packs, skip)
	args = a.appendBlocks(args, skip)
	b.exec("add blocks", insertBlocks, args...)
}

func appendPacks(args []any, packs []packRow, skip int32) []any {
	n := len(packs)
	keys, live, adopted := make([]string, n), make([]int32, n), make([]bool, n)
	var columns [7][]int64
	for k := range columns {
		columns[k] = make([]int64, n)
	}
	for i := range packs {
		p := &packs[i]
		keys[i], live[i], adopted[i] = p.Key, p.live, i > 0 || skip > 0
		for k, v := range [...]int64{signed(p.FirstSeq), signed(p.LastSeq), p.Size, p.Created, p.firstBegin, p.lastBegin, p.lastEnd} {
			columns[k][i] = v
		}
	}
	return append(args, columns[0], columns[1], keys, columns[2], live, columns[3], columns[4], columns[5], columns[6], adopted)
}

func (a *archiving) appendBlocks(args []any, skip int32) []any {
	n := len(a.blocks)
	streams, ids := make([][16]byte, n), make([][16]byte, n)
	pack, objects := make([]int32, n), make([]int32, n)
	var columns [9][]int64
	for k := range columns {
		columns[k] = make([]int64, n)
	}
	for i, b := range a.blocks {
		streams[i], ids[i], pack[i], objects[i] = b.StreamID, b.ID, b.Adopted-skip+1, b.NbObjects // arrays count from 1
		for k, v := range [...]int64{
			micros(b.BeginTime), micros(b.EndTime), b.BeginTicks, b.EndTicks, b.ObjectOffset, micros(b.InsertTime), b.PackOffset, b.PackLength, b.PayloadSize,
		} {
			columns[k][i] = v
		}
	}
	return append(args, streams, columns[0], ids, columns[1], columns[2], columns[3], columns[4], columns[5], pack, columns[6], columns[7], columns[8], objects)
}

func (a *archiving) addSkips(b *batch) {
	n := len(a.c.Skips)
	if n == 0 {
		return
	}
	seq, rec, reason := make([]int64, n), make([]int32, n), make([]int16, n)
	for i, s := range a.c.Skips {
		seq[i], rec[i], reason[i] = signed(s.Seq), s.Rec, s.Reason
	}
	b.exec("add skips", `INSERT INTO skips(class, gen, shard, seq, rec, reason)
SELECT $1, $2, $3, n.* FROM unnest($4::bigint[], $5::integer[], $6::smallint[]) AS n`, class(a.c.Shard.Class), a.c.Shard.Gen, a.c.Shard.Shard, seq, rec, reason)
}

// seen is the last-seen times of the blocks of one stream in a commit.
type seen struct {
	stream                                                    telemetry.ID
	firstTime, lastTime, lastInsert, lastTicks, lastTicksTime int64
}

func newSeen(b *catalog.BlockReg) seen {
	return seen{b.StreamID, micros(b.BeginTime), micros(b.EndTime), micros(b.InsertTime), b.EndTicks, micros(b.EndTime)}
}

func (s *seen) add(b *catalog.BlockReg) {
	end := micros(b.EndTime)
	s.firstTime = min(s.firstTime, micros(b.BeginTime))
	s.lastTime = max(s.lastTime, end)
	s.lastInsert = max(s.lastInsert, micros(b.InsertTime))
	if cmp.Or(cmp.Compare(b.EndTicks, s.lastTicks), cmp.Compare(end, s.lastTicksTime)) > 0 {
		s.lastTicks, s.lastTicksTime = b.EndTicks, end
	}
}

// updateSeen widens the last-seen times of streams, and of the processes that they belong to, and notes what the commit changed. Rows of
// last-seen times are common to the shards of both classes, so it is the last statement: others wait for the end of the commit only.
// Of a process, last_ticks and last_ticks_time stay a pair, the greatest by ticks and then by time, whatever the order in which blocks come.
const updateSeen = `WITH n AS MATERIALIZED (
  SELECT s.stream_no, s.process_no, a.first_time, a.last_time, a.last_insert, a.last_ticks, a.last_ticks_time
  FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
    AS a(stream_id, first_time, last_time, last_insert, last_ticks, last_ticks_time)
  CROSS JOIN LATERAL (SELECT o.stream_no, o.process_no FROM streams o WHERE o.stream_id = a.stream_id OFFSET 0) AS s
), streams_too AS (
  INSERT INTO stream_seen AS t (stream_no, first_time, last_time, last_insert)
  SELECT stream_no, first_time, last_time, last_insert FROM n ORDER BY stream_no
  ON CONFLICT (stream_no) DO UPDATE SET first_time = least(t.first_time, excluded.first_time), last_time = greatest(t.last_time, excluded.last_time),
    last_insert = greatest(t.last_insert, excluded.last_insert)
), noted AS (` + noteChanges + `)
INSERT INTO process_seen AS t (process_no, first_time, last_time, last_insert, last_ticks, last_ticks_time)
SELECT process_no, min(first_time), max(last_time), max(last_insert), max(last_ticks), (max(ARRAY[last_ticks, last_ticks_time]))[2]
FROM n GROUP BY process_no ORDER BY process_no
ON CONFLICT (process_no) DO UPDATE SET first_time = least(t.first_time, excluded.first_time), last_time = greatest(t.last_time, excluded.last_time),
  last_insert = greatest(t.last_insert, excluded.last_insert), last_ticks = greatest(t.last_ticks, excluded.last_ticks),
  last_ticks_time = CASE WHEN (t.last_ticks, t.last_ticks_time) > (excluded.last_ticks, excluded.last_ticks_time) THEN t.last_ticks_time ELSE excluded.last_ticks_time END`

func (a *archiving) see(b *batch) {
	n := len(a.seen)
	streams := make([][16]byte, n)
	var columns [5][]int64
	for k := range columns {
		columns[k] = make([]int64, n)
	}
	for i := range a.seen {
		s := &a.seen[i]
		streams[i] = s.stream
		for k, v := range [...]int64{s.firstTime, s.lastTime, s.lastInsert, s.lastTicks, s.lastTicksTime} {
			columns[k][i] = v
		}
	}
	b.exec("last-seen times", updateSeen, append([]any{streams, columns[0], columns[1], columns[2], columns[3], columns[4]}, a.changeArgs()...)...)
}

// micros cuts a time to the whole microseconds that the catalog keeps.
func micros(t int64) int64 { return catalog.TruncateToMicroseconds(t) }
