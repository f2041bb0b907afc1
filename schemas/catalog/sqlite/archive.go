package sqlite

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// CommitArchive implements catalog.Catalog.
func (db *DB) CommitArchive(ctx context.Context, c *catalog.ArchiveCommit) error {
	if err := c.Validate(); err != nil {
		return err
	}
	return db.writer.do(ctx, func(t *tx) error {
		if err := moveCheckpoint(t, catalog.ConsumerArchive, catalog.Move{Shard: c.Shard, From: c.From, To: c.To, Epoch: c.Epoch}); err != nil {
			return err
		}
		if err := checkFrozen(t, c); err != nil {
			return fmt.Errorf("archive %s to %d: %w", c.Shard, c.To, err)
		}
		a := archiving{t: t, c: c, numbers: newNumbers()}
		for _, step := range []func() error{a.processes, a.streams, a.packs, a.blocks, a.traces, a.lastSeen, a.skips, a.changes} {
			if err := step(); err != nil {
				return fmt.Errorf("archive %s to %d: %w", c.Shard, c.To, err)
			}
		}
		t.afterCommit(func() { t.w.cache.learn(a.numbers) })
		return nil
	})
}

// archiving is the state of one archive commit.
type archiving struct {
	t       *tx
	c       *catalog.ArchiveCommit
	numbers numbers // looked up or made in this transaction
	packNos []int64 // of the commit's pack, then of the adopted ones
	rows    []blockNos
	args    []driver.Value

	changedProcesses, changedStreams numberList // besides those of rows
}

// blockNos are the surrogate keys that a block's row and last-seen times go to.
type blockNos struct{ stream, process int64 }

const insertProcess = `INSERT INTO processes(process_id, registered, exe, username, realname, computer, distro, cpu_brand,
  tsc_frequency, start_time, start_ticks, parent_process_id, properties) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT(process_id) DO UPDATE SET registered = excluded.registered, exe = excluded.exe, username = excluded.username,
  realname = excluded.realname, computer = excluded.computer, distro = excluded.distro, cpu_brand = excluded.cpu_brand,
  tsc_frequency = excluded.tsc_frequency, start_time = excluded.start_time, start_ticks = excluded.start_ticks,
  parent_process_id = excluded.parent_process_id, properties = excluded.properties
WHERE processes.registered IS NULL RETURNING process_no`

func (a *archiving) processes() error {
	for i := range a.c.Processes {
		p := &a.c.Processes[i]
		var parent driver.Value
		if !p.ParentID.IsZero() {
			parent = p.ParentID[:]
		}
		properties, err := encodeProperties(p.Properties)
		if err != nil {
			return fmt.Errorf("process %s: %w", p.ID, err)
		}
		no, err := a.t.queryInt(insertProcess, p.ID[:], catalog.TruncateToMicroseconds(p.InsertTime), p.Exe, p.Username, p.Realname,
			p.Computer, p.Distro, p.CPUBrand, p.TSCFrequency, catalog.TruncateToMicroseconds(p.StartTime), p.StartTicks, parent, properties)
		switch {
		case errors.Is(err, errNoRow): // registered before
		case err != nil:
			return fmt.Errorf("process %s: %w", p.ID, err)
		default:
			a.changedProcesses.add(no)
		}
	}
	return nil
}

const insertStream = `INSERT INTO streams(stream_id, process_no, registered, tags, format, properties, dependencies, objects)
VALUES(?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT(stream_id) DO UPDATE SET process_no = excluded.process_no, registered = excluded.registered, tags = excluded.tags,
  format = excluded.format, properties = excluded.properties, dependencies = excluded.dependencies, objects = excluded.objects
WHERE streams.registered IS NULL`

func (a *archiving) streams() error {
	for i := range a.c.Streams {
		s := &a.c.Streams[i]
		if err := a.stream(s); err != nil {
			return fmt.Errorf("stream %s: %w", s.ID, err)
		}
	}
	return nil
}

func (a *archiving) stream(s *catalog.StreamReg) error {
	process, err := a.processNo(&s.ProcessID)
	if err != nil {
		return err
	}
	dependencies, err := a.layoutNo(s.DependenciesCBOR)
	if err != nil {
		return err
	}
	objects, err := a.layoutNo(s.ObjectsCBOR)
	if err != nil {
		return err
	}
	tags, err := encodeTags(s.Tags)
	if err != nil {
		return err
	}
	properties, err := encodeProperties(s.Properties)
	if err != nil {
		return err
	}
	n, err := a.t.exec(insertStream, s.ID[:], process, catalog.TruncateToMicroseconds(s.InsertTime), tags, s.Format, properties, dependencies, objects)
	if err != nil {
		return err
	}
	// A stub may have stood under another process.
	if err := a.readStream(&s.ID); err != nil {
		return err
	}
	if n > 0 {
		a.changedStreams.add(a.numbers.streams[s.ID].stream)
	}
	return nil
}

// layoutNo returns the number of a layout, which all streams with the same types share.
func (a *archiving) layoutNo(body []byte) (int64, error) {
	sum := sha256.Sum256(body)
	if no, ok := a.t.w.cache.layouts[sum]; ok {
		return no, nil
	}
	if _, err := a.t.exec("INSERT INTO layouts(sha256, body) VALUES(?, ?) ON CONFLICT DO NOTHING", sum[:], emptyNotNull(body)); err != nil {
		return 0, err
	}
	no, err := a.t.queryInt("SELECT layout_no FROM layouts WHERE sha256 = ?", sum[:])
	if err == nil {
		a.numbers.layouts[sum] = no
	}
	return no, err
}

// processNo returns the number of a process, and makes a stub for one that is not known.
func (a *archiving) processNo(id *telemetry.ID) (int64, error) {
	if no, ok := a.numbers.processes[*id]; ok {
		return no, nil
	}
	if no, ok := a.t.w.cache.processes[*id]; ok {
		return no, nil
	}
	const read = "SELECT process_no FROM processes WHERE process_id = ?"
	no, err := a.t.queryInt(read, id[:])
	if errors.Is(err, errNoRow) {
		if _, err := a.t.exec("INSERT INTO processes(process_id) VALUES(?)", id[:]); err != nil {
			return 0, err
		}
		no, err = a.t.queryInt(read, id[:])
		a.changedProcesses.add(no)
	}
	if err == nil {
		a.numbers.processes[*id] = no
	}
	return no, err
}

// streamNos returns the numbers of a stream and of its process, and makes stubs for what is not known.
func (a *archiving) streamNos(b *catalog.BlockReg) (blockNos, error) {
	if nos, ok := a.numbers.streams[b.StreamID]; ok {
		return nos, nil
	}
	if nos, ok := a.t.w.cache.streams[b.StreamID]; ok {
		return nos, nil
	}
	err := a.readStream(&b.StreamID)
	if errors.Is(err, errNoRow) {
		process, err := a.processNo(&b.ProcessID)
		if err != nil {
			return blockNos{}, err
		}
		if _, err := a.t.exec("INSERT INTO streams(stream_id, process_no) VALUES(?, ?)", b.StreamID[:], process); err != nil {
			return blockNos{}, err
		}
		err = a.readStream(&b.StreamID)
		return a.numbers.streams[b.StreamID], err
	}
	return a.numbers.streams[b.StreamID], err
}

func (a *archiving) readStream(id *telemetry.ID) error {
	found := false
	err := a.t.query("SELECT stream_no, process_no FROM streams WHERE stream_id = ?", func(row []driver.Value) error {
		stream, _ := row[0].(int64)
		process, _ := row[1].(int64)
		a.numbers.streams[*id] = blockNos{stream, process}
		found = true
		return nil
	}, id[:])
	if err == nil && !found {
		err = errNoRow
	}
	return err
}

const insertPack = `INSERT INTO packs(class, gen, shard, first_seq, last_seq, key, size, live_blocks, created, adopted)
VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING pack_no`

func (a *archiving) packs() error {
	live := make([]int64, 1+len(a.c.Adopted))
	for i := range a.c.Blocks {
		live[a.c.Blocks[i].Adopted]++
	}
	a.packNos = make([]int64, len(live))
	for i := range live {
		pack := a.c.Pack
		if i > 0 {
			pack = &a.c.Adopted[i-1]
		}
		if pack == nil {
			continue
		}
		created := pack.Created
		if created == 0 {
			created = clock()
		}
		adopted := int64(min(i, 1))
		no, err := a.t.queryInt(insertPack, className(a.c.Shard.Class), int64(a.c.Shard.Gen), int64(a.c.Shard.Shard),
			int64(pack.FirstSeq), int64(pack.LastSeq), pack.Key, pack.Size, live[i], created, adopted)
		if err != nil {
			return fmt.Errorf("pack %s: %w", pack.Key, err)
		}
		a.packNos[i] = no
	}
	return nil
}

var insertBlocks = newMulti(`INSERT INTO blocks(stream_no, begin_time, block_id, end_time, begin_ticks, end_ticks, object_offset, insert_time,
  pack_no, pack_off, pack_len, payload_size, nb_objects) VALUES `, 13, " ON CONFLICT DO NOTHING")

func (a *archiving) blocks() error {
	a.rows = make([]blockNos, len(a.c.Blocks))
	for i := range a.c.Blocks {
		nos, err := a.streamNos(&a.c.Blocks[i])
		if err != nil {
			return fmt.Errorf("stream %s: %w", a.c.Blocks[i].StreamID, err)
		}
		a.rows[i] = nos
	}
	return inGroups(len(a.c.Blocks), func(from, to int) error {
		a.args = a.args[:0]
		for i := from; i < to; i++ {
			b := &a.c.Blocks[i]
			a.args = append(a.args, a.rows[i].stream, catalog.TruncateToMicroseconds(b.BeginTime), b.ID[:], catalog.TruncateToMicroseconds(b.EndTime),
				b.BeginTicks, b.EndTicks, b.ObjectOffset, catalog.TruncateToMicroseconds(b.InsertTime),
				a.packNos[b.Adopted], b.PackOffset, b.PackLength, b.PayloadSize, int64(b.NbObjects))
		}
		n, err := a.t.exec(insertBlocks[to-from], a.args...)
		if err == nil && n != int64(to-from) {
			err = catalog.ErrDuplicateBlocks
		}
		return err
	})
}

// seen is the last-seen times of the blocks of one stream or process in a commit.
type seen struct{ no, firstTime, lastTime, lastInsert, lastTicks, lastTicksTime int64 }

func (s *seen) add(b *catalog.BlockReg) {
	end := catalog.TruncateToMicroseconds(b.EndTime)
	s.firstTime = min(s.firstTime, catalog.TruncateToMicroseconds(b.BeginTime))
	s.lastTime = max(s.lastTime, end)
	s.lastInsert = max(s.lastInsert, catalog.TruncateToMicroseconds(b.InsertTime))
	if cmp.Or(cmp.Compare(b.EndTicks, s.lastTicks), cmp.Compare(end, s.lastTicksTime)) > 0 {
		s.lastTicks, s.lastTicksTime = b.EndTicks, end
	}
}

func newSeen(no int64, b *catalog.BlockReg) seen {
	end := catalog.TruncateToMicroseconds(b.EndTime)
	return seen{no, catalog.TruncateToMicroseconds(b.BeginTime), end, catalog.TruncateToMicroseconds(b.InsertTime), b.EndTicks, end}
}

const updateStreamSeen = `UPDATE streams SET first_time = min(coalesce(first_time, ?1), ?1), last_time = max(coalesce(last_time, ?2), ?2),
  last_insert = max(coalesce(last_insert, ?3), ?3) WHERE stream_no = ?4`

// updateProcessSeen keeps last_ticks and last_ticks_time a pair, the greatest by ticks and then by time, whatever the order in which blocks come.
const updateProcessSeen = `UPDATE processes SET first_time = min(coalesce(first_time, ?1), ?1), last_time = max(coalesce(last_time, ?2), ?2),
  last_insert = max(coalesce(last_insert, ?3), ?3), last_ticks = max(coalesce(last_ticks, ?5), ?5),
  last_ticks_time = iif((last_ticks, last_ticks_time) > (?5, ?6), last_ticks_time, ?6) WHERE process_no = ?4`

// lastSeen updates the aggregates of the streams and processes that the blocks belong to, one update for each.
func (a *archiving) lastSeen() error {
	streams, processes := seenBy{}, seenBy{}
	for i := range a.c.Blocks {
		streams.add(a.rows[i].stream, &a.c.Blocks[i])
		processes.add(a.rows[i].process, &a.c.Blocks[i])
	}
	for _, s := range streams.list {
		if _, err := a.t.exec(updateStreamSeen, s.firstTime, s.lastTime, s.lastInsert, s.no); err != nil {
			return err
		}
	}
	for _, s := range processes.list {
		if _, err := a.t.exec(updateProcessSeen, s.firstTime, s.lastTime, s.lastInsert, s.no, s.lastTicks, s.lastTicksTime); err != nil {
			return err
		}
	}
	return nil
}

// seenBy groups blocks by number, in order of appearance.
type seenBy struct {
	index map[int64]int
	list  []seen
}

func (g *seenBy) add(no int64, b *catalog.BlockReg) {
	if i, ok := g.index[no]; ok {
		g.list[i].add(b)
		return
	}
	if g.index == nil {
		g.index = map[int64]int{}
	}
	g.index[no] = len(g.list)
	g.list = append(g.list, newSeen(no, b))
}

var insertSkips = newMulti("INSERT INTO skips(class, gen, shard, seq, rec, reason) VALUES ", 6, "")

func (a *archiving) skips() error {
	return inGroups(len(a.c.Skips), func(from, to int) error {
		a.args = a.args[:0]
		for _, s := range a.c.Skips[from:to] {
			a.args = append(a.args, className(a.c.Shard.Class), int64(a.c.Shard.Gen), int64(a.c.Shard.Shard), int64(s.Seq), int64(s.Rec), int64(s.Reason))
		}
		_, err := a.t.exec(insertSkips[to-from], a.args...)
		return err
	})
}

// maxCachedNumbers bounds each map of numbers; a full one starts over. 64 k streams are 3 MiB.
const maxCachedNumbers = 64 << 10

// numbers maps ids to surrogate keys, which never change, except a stub stream's process.
type numbers struct {
	processes map[telemetry.ID]int64
	streams   map[telemetry.ID]blockNos
	layouts   map[[sha256.Size]byte]int64
}

func newNumbers() numbers {
	return numbers{map[telemetry.ID]int64{}, map[telemetry.ID]blockNos{}, map[[sha256.Size]byte]int64{}}
}

// learn takes over what a commit looked up.
func (n numbers) learn(from numbers) {
	copyBounded(n.processes, from.processes)
	copyBounded(n.streams, from.streams)
	copyBounded(n.layouts, from.layouts)
}

func copyBounded[K comparable, V any](to, from map[K]V) {
	if len(to)+len(from) > maxCachedNumbers {
		clear(to)
	}
	maps.Copy(to, from)
}

// encodeProperties writes a JSON object with sorted keys; of a key that comes twice the last value stays.
func encodeProperties(properties []telemetry.Property) (string, error) {
	m := make(map[string]string, len(properties))
	for _, p := range properties {
		m[p.Key] = p.Value
	}
	return encodeJSON(m)
}

func encodeTags(tags []string) (string, error) {
	if tags == nil {
		tags = []string{}
	}
	return encodeJSON(tags)
}

func encodeJSON(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "", err
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), nil
}

// emptyNotNull keeps the driver from binding NULL for a nil slice.
func emptyNotNull(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
