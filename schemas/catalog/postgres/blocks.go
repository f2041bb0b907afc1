package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

const (
	// packsInStep is how many packs of frames of each shard are listed at a time.
	packsInStep = 256
	// rowsInStep is about how many block rows are read by one statement, so that the server sorts them in its memory.
	rowsInStep = 16 << 10
)

// PacksAfter implements catalog.Catalog. Packs do not overlap, so the order of last_seq is that of first_seq.
func (db *DB) PacksAfter(ctx context.Context, s catalog.ShardID, seq uint64, limit int) (all []catalog.Pack, err error) {
	var most *int
	if limit > 0 {
		most = &limit
	}
	err = db.read(ctx, func(b *batch) {
		all = nil
		b.query(fmt.Sprintf("read packs of %s", s), `SELECT pack_no, first_seq, last_seq, key, size, created FROM packs
WHERE class = $1 AND gen = $2 AND shard = $3 AND last_seq > $4 AND NOT adopted ORDER BY last_seq LIMIT $5`, func(r pgx.Rows) error {
			p := catalog.Pack{Shard: s}
			var first, last int64
			err := r.Scan(&p.No, &first, &last, &p.Key, &p.Size, &p.Created)
			p.FirstSeq, p.LastSeq = uint64(first), uint64(last)
			all = append(all, p)
			return err
		}, class(s.Class), s.Gen, s.Shard, signed(seq), most)
	})
	return all, err
}

// BlocksSince implements catalog.Catalog. Packs and the positions up to which they are complete are of one moment, and the
// blocks of a committed pack never change until they are frozen, so that they may be read later.
func (db *DB) BlocksSince(ctx context.Context, after map[catalog.ShardID]uint64, limit int) ([]catalog.BlockRow, map[catalog.ShardID]uint64, error) {
	leave, err := db.many(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("read blocks: %w", err)
	}
	defer leave()
	r := blockReader{db: db, limit: limit, positions: maps.Clone(after), tags: tagCache{}}
	if r.positions == nil {
		r.positions = map[catalog.ShardID]uint64{}
	}
	if len(after) == 0 {
		if err := r.begin(ctx); err != nil {
			return nil, nil, fmt.Errorf("read blocks: %w", err)
		}
	}
	for more := true; more; {
		if more, err = r.step(ctx); err != nil {
			return nil, nil, fmt.Errorf("read blocks: %w", err)
		}
	}
	return r.rows, r.positions, nil
}

// blockReader reads blocks in steps.
type blockReader struct {
	db        *DB
	limit     int // <= 0: none
	positions map[catalog.ShardID]uint64
	rows      []catalog.BlockRow
	tags      tagCache
}

// firstPositions are where the rows of each shard begin. All packs before are frozen, and there are very many in the end. Pack numbers and
// sequence numbers of a shard rise together.
const firstPositions = `SELECT class, gen, shard, coalesce(k.first - 1, c.seq) FROM checkpoints c LEFT JOIN (
  SELECT class, gen, shard, min(first_seq) AS first FROM packs WHERE pack_no >= (SELECT min(pack_no) FROM blocks) GROUP BY 1, 2, 3) k USING(class, gen, shard)
WHERE c.consumer = $1`

// begin sets the positions of a reader that wants all rows.
func (r *blockReader) begin(ctx context.Context) error {
	return r.db.read(ctx, func(b *batch) {
		b.query("find the first blocks", firstPositions, func(rows pgx.Rows) error {
			var s catalog.ShardID
			var seq int64
			err := rows.Scan((*class)(&s.Class), &s.Gen, &s.Shard, &seq)
			r.positions[s] = uint64(seq)
			return err
		}, catalog.ConsumerArchive)
	})
}

func (r *blockReader) full() bool { return r.limit > 0 && len(r.rows) >= r.limit }

// shardPacks is what archive added to a shard.
type shardPacks struct {
	shard    catalog.ShardID
	archived uint64
	packs    []listedPack
}

// listedPack is a pack and where its blocks are.
type listedPack struct {
	shard                 catalog.ShardID
	no                    int64
	last                  uint64
	key                   string
	adopted               bool
	live                  int32
	firstBegin, lastBegin int64
}

// listPacks lists up to $5 packs of frames of each shard, with the adopted bodies that they point to. An adopted body comes
// before the pack whose frames point to it, so all of a commit is read before the position moves.
const listPacks = `SELECT c.class, c.gen, c.shard, c.seq, coalesce(p.pack_no, 0), coalesce(p.last_seq, 0), coalesce(p.key, ''), coalesce(p.adopted, false),
  coalesce(p.live_blocks, 0), coalesce(p.first_begin, 0), coalesce(p.last_begin, 0)
FROM (
  SELECT c.class, c.gen, c.shard, c.seq, coalesce(a.seq, 0) AS after, (
    SELECT max(f.last_seq) FROM (SELECT f.last_seq FROM packs f WHERE f.class = c.class AND f.gen = c.gen AND f.shard = c.shard
      AND f.last_seq > coalesce(a.seq, 0) AND NOT f.adopted ORDER BY f.last_seq LIMIT $5) f) AS upto
  FROM checkpoints c LEFT JOIN unnest($1::text[], $2::integer[], $3::integer[], $4::bigint[]) AS a(class, gen, shard, seq) USING (class, gen, shard)
  WHERE c.consumer = $6 AND c.seq > coalesce(a.seq, 0)
  OFFSET 0 -- upto is found once for each shard
) c LEFT JOIN packs p ON p.class = c.class AND p.gen = c.gen AND p.shard = c.shard AND p.last_seq > c.after AND p.last_seq <= c.upto
ORDER BY c.class, c.shard, c.gen, p.last_seq, p.adopted DESC`

// step reads the packs after the positions, one list of them, and reports whether there may be more.
func (r *blockReader) step(ctx context.Context) (more bool, err error) {
	shards, err := r.list(ctx)
	if err != nil {
		return false, err
	}
	var chosen []listedPack
	rows := 0
	flush := func() error {
		defer func() { chosen, rows = nil, 0 }()
		return r.read(ctx, chosen)
	}
	for i := range shards {
		s := &shards[i]
		frames := 0
		for _, p := range s.packs {
			if chosen = append(chosen, p); p.live > 0 {
				rows += int(p.live)
			}
			if p.adopted {
				continue
			}
			frames++
			if rows >= rowsInStep || r.limit > 0 && len(r.rows)+rows >= r.limit {
				if err := flush(); err != nil {
					return false, err
				}
			}
			r.positions[s.shard] = p.last
			if r.full() {
				return false, nil
			}
		}
		if frames == packsInStep {
			more = true
			break // the next step goes on here, so that rows come shard by shard
		}
		r.positions[s.shard] = s.archived // what is left moved the checkpoint only
	}
	return more, flush()
}

func (r *blockReader) list(ctx context.Context) (shards []shardPacks, err error) {
	var classes []string
	var gens, numbers []int32
	var after []int64
	for s, seq := range r.positions {
		classes, gens, numbers = append(classes, string(rune(s.Class))), append(gens, s.Gen), append(numbers, s.Shard)
		after = append(after, signed(seq))
	}
	err = r.db.read(ctx, func(b *batch) {
		shards = nil
		b.query("list packs", listPacks, func(rows pgx.Rows) error {
			var s catalog.ShardID
			var archived, last int64
			var p listedPack
			if err := rows.Scan((*class)(&s.Class), &s.Gen, &s.Shard, &archived, &p.no, &last, &p.key, &p.adopted, &p.live, &p.firstBegin, &p.lastBegin); err != nil {
				return err
			}
			if n := len(shards); n == 0 || shards[n-1].shard != s {
				shards = append(shards, shardPacks{shard: s, archived: uint64(archived)})
			}
			if p.last = uint64(last); p.no != 0 {
				p.shard = s
				one := &shards[len(shards)-1]
				one.packs = append(one.packs, p)
			}
			return nil
		}, classes, gens, numbers, after, packsInStep, catalog.ConsumerArchive)
	})
	return shards, err
}

// selectBlocks reads the blocks of packs, in their order. The times name the partitions that are looked into, and the fence
// (OFFSET 0) keeps the packs outermost.
const selectBlocks = `SELECT k.i, b.block_id, s.stream_id, p.process_id, b.begin_time, b.end_time, b.begin_ticks, b.end_ticks, b.object_offset, b.nb_objects,
  b.insert_time, b.payload_size, s.tags, b.pack_off, b.pack_len, s.registered IS NOT NULL, p.registered IS NOT NULL
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS k(pack_no, first_begin, last_begin, i)
CROSS JOIN LATERAL (SELECT * FROM blocks b WHERE b.pack_no = k.pack_no AND b.begin_time BETWEEN k.first_begin AND k.last_begin OFFSET 0) AS b
JOIN streams s USING(stream_no) JOIN processes p USING(process_no)
ORDER BY k.i, b.pack_off`

// read appends the blocks of packs.
func (r *blockReader) read(ctx context.Context, packs []listedPack) error {
	packs = slices.DeleteFunc(packs, func(p listedPack) bool { return p.live == 0 })
	if len(packs) == 0 {
		return nil
	}
	no, first, last := make([]int64, len(packs)), make([]int64, len(packs)), make([]int64, len(packs))
	for i := range packs {
		no[i], first[i], last[i] = packs[i].no, packs[i].firstBegin, packs[i].lastBegin
	}
	had := len(r.rows)
	return r.db.read(ctx, func(b *batch) {
		r.rows = r.rows[:had]
		b.query("read blocks of packs", selectBlocks, func(rows pgx.Rows) error { return r.scan(rows, packs) }, no, first, last)
	})
}

func (r *blockReader) scan(rows pgx.Rows, packs []listedPack) error {
	r.rows = append(r.rows, catalog.BlockRow{})
	b := &r.rows[len(r.rows)-1]
	var i int64
	var tags []byte
	if err := rows.Scan(&i, (*[16]byte)(&b.ID), (*[16]byte)(&b.StreamID), (*[16]byte)(&b.ProcessID), &b.BeginTime, &b.EndTime, &b.BeginTicks, &b.EndTicks,
		&b.ObjectOffset, &b.NbObjects, &b.InsertTime, &b.PayloadSize, &tags, &b.PackOffset, &b.PackLength, &b.StreamKnown, &b.ProcessKnown); err != nil {
		return err
	}
	b.PackKey, b.Shard, b.PackSeq = packs[i-1].key, packs[i-1].shard, packs[i-1].last
	if !b.StreamKnown {
		return nil
	}
	var err error
	b.Tag, err = r.tags.of(tags)
	return err
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
