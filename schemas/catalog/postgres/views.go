package postgres

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// forgottenKey is the setting that holds the highest commit number whose retirements are forgotten.
const forgottenKey = "partitions_forgotten"

// CommitView implements catalog.Catalog. The commit number is taken when all that can fail or wait is done, and held to the end.
func (db *DB) CommitView(ctx context.Context, c *catalog.ViewCommit) (commitNo int64, err error) {
	if err := c.Validate(); err != nil {
		return 0, err
	}
	moves := slices.SortedStableFunc(slices.Values(c.Moves), func(a, b catalog.Move) int { return a.Shard.Compare(b.Shard) })
	views := viewsOf(c.Added)
	err = db.write(ctx, func(b *batch) {
		b.guard(c.Guard)
		for _, m := range moves {
			b.moveView(c.Consumer, m)
		}
		b.openBacklog(c.Consumer, c.Backlog)
		b.moveChunk(c.Consumer, c.Chunk)
		b.park(c.Consumer, c.ParkedAdded)
		b.unpark(c.Consumer, c.ParkedDone)
		b.addViews(slices.DeleteFunc(slices.Clone(views), db.known.hasView))
		take := "SELECT commit_no FROM clock WHERE one = 1"
		if len(c.Added)+len(c.Retired) > 0 {
			take = "UPDATE clock SET commit_no = commit_no + 1 WHERE one = 1 RETURNING commit_no"
		}
		b.query("take a commit number", take, func(r pgx.Rows) error { return r.Scan(&commitNo) })
		b.retire(c.Retired)
		b.add(c.Added)
	})
	if err != nil {
		return 0, fmt.Errorf("commit of %s: %w", cmp.Or(c.Consumer, "merger"), err)
	}
	db.known.learn(nil, nil, views)
	return commitNo, nil
}

// moveView moves a view's checkpoint, which never passes archive's.
func (b *batch) moveView(consumer string, m catalog.Move) {
	b.moveCheckpoint(consumer, m)
	if m.To == m.From {
		return
	}
	what := fmt.Sprintf("%s of %s to %d", consumer, m.Shard, m.To)
	b.exec(what, `SELECT catalog_refuse('`+codeArchiveBehind+`', $6) WHERE $5 > coalesce(
  (SELECT seq FROM checkpoints WHERE consumer = $4 AND class = $1 AND gen = $2 AND shard = $3), 0)`,
		class(m.Shard.Class), m.Shard.Gen, m.Shard.Shard, catalog.ConsumerArchive, signed(m.To), what)
}

func (b *batch) retire(partNos []int64) {
	if len(partNos) == 0 {
		return
	}
	what := fmt.Sprintf("retire %d partitions", len(partNos))
	b.exec(what, `WITH gone AS (
  UPDATE partitions SET retired = (SELECT commit_no FROM clock), retired_at = `+storeClock+` WHERE part_no = ANY($1) AND retired IS NULL RETURNING 1)
SELECT catalog_refuse('`+codeStale+`', $3) FROM gone HAVING count(*) <> $2`, partNos, len(partNos), what)
}

// viewsOf returns the names of the partitions' views, sorted.
func viewsOf(partitions []catalog.Partition) []string {
	var names []string
	for i := range partitions {
		names = append(names, partitions[i].View)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (b *batch) addViews(names []string) {
	if len(names) == 0 {
		return
	}
	b.exec("add views", `INSERT INTO views(name) SELECT n.name FROM unnest($1::text[]) AS n(name)
WHERE (SELECT true FROM views v WHERE v.name = n.name) IS NULL ON CONFLICT DO NOTHING`, names)
}

const insertPartitions = `INSERT INTO partitions(view_no, added, instance_no, level, bucket, min_time, max_time, min_insert, max_insert, rows, size,
  schema_ver, sort, procs, key, src_hash, objects, max_sort_key, state)
SELECT (SELECT v.view_no FROM views v WHERE v.name = n.view), (SELECT commit_no FROM clock), n.instance_no, n.level, n.bucket, n.min_time, n.max_time,
  n.min_insert, n.max_insert, n.rows, n.size, n.schema_ver, n.sort, n.procs, n.key, n.src_hash, n.objects, n.max_sort_key, n.state
FROM unnest($1::text[], $2::bigint[], $3::smallint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[],
    $11::integer[], $12::smallint[], $13::bytea[], $14::text[], $15::bytea[], $16::bigint[], $17::bigint[], $18::bytea[])
  AS n(view, instance_no, level, bucket, min_time, max_time, min_insert, max_insert, rows, size, schema_ver, sort, procs, key, src_hash, objects, max_sort_key,
    state)`

func (b *batch) add(partitions []catalog.Partition) {
	n := len(partitions)
	if n == 0 {
		return
	}
	view, key := make([]string, n), make([]string, n)
	procs, hash, state := make([][]byte, n), make([][]byte, n), make([][]byte, n)
	level, sort, version := make([]int16, n), make([]int16, n), make([]int32, n)
	var columns [10][]int64
	for c := range columns {
		columns[c] = make([]int64, n)
	}
	for i := range partitions {
		p := &partitions[i]
		view[i], key[i], level[i], sort[i], version[i] = p.View, p.Key, p.Level, p.Sort, p.SchemaVer
		procs[i], hash[i], state[i] = nilIfEmpty(p.Procs), nilIfEmpty(p.SrcHash), nilIfEmpty(p.State)
		for c, v := range [...]int64{p.Instance, p.Bucket, p.MinTime, p.MaxTime, p.MinInsert, p.MaxInsert, p.Rows, p.Size, p.Objects, p.MaxSortKey} {
			columns[c][i] = v
		}
	}
	b.exec(fmt.Sprintf("add %d partitions", n), insertPartitions, view, columns[0], level, columns[1], columns[2], columns[3], columns[4], columns[5],
		columns[6], columns[7], version, sort, procs, key, hash, columns[8], columns[9], state)
}

func nilIfEmpty(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

// copies are parked copies as columns, in the order in which all transactions lock them.
type copies struct {
	class            []string
	gen, shard, rec  []int32
	seq, since       []int64
	streams, process [][16]byte
	dead             []bool
	reason           []string
}

// sortCopies makes columns of parked copies; of one that comes twice the last counts.
func sortCopies(parked []catalog.Parked) copies {
	order := make([]int, len(parked))
	for i := range order {
		order[i] = i
	}
	place := func(a, b int) int {
		return cmp.Or(parked[a].Shard.Compare(parked[b].Shard), cmp.Compare(parked[a].Seq, parked[b].Seq), cmp.Compare(parked[a].Rec, parked[b].Rec))
	}
	slices.SortStableFunc(order, place)
	var c copies
	for n, i := range order {
		if n+1 < len(order) && place(i, order[n+1]) == 0 {
			continue
		}
		p := &parked[i]
		c.class = append(c.class, string(rune(p.Shard.Class)))
		c.gen, c.shard, c.rec = append(c.gen, p.Shard.Gen), append(c.shard, p.Shard.Shard), append(c.rec, p.Rec)
		c.seq, c.since = append(c.seq, signed(p.Seq)), append(c.since, p.Since)
		c.streams, c.process = append(c.streams, p.StreamID), append(c.process, p.ProcessID)
		c.dead, c.reason = append(c.dead, p.Dead), append(c.reason, clean(p.Reason))
	}
	return c
}

func (b *batch) park(consumer string, parked []catalog.Parked) {
	if len(parked) == 0 {
		return
	}
	c := sortCopies(parked)
	b.exec("park", `INSERT INTO parked(consumer, class, gen, shard, seq, rec, stream_id, process_id, since, dead, reason)
SELECT $1, n.* FROM unnest($2::text[], $3::integer[], $4::integer[], $5::bigint[], $6::integer[], $7::uuid[], $8::uuid[], $9::bigint[], $10::boolean[], $11::text[]) AS n
ON CONFLICT (consumer, class, gen, shard, seq, rec) DO UPDATE SET dead = excluded.dead, reason = excluded.reason`,
		consumer, c.class, c.gen, c.shard, c.seq, c.rec, c.streams, c.process, c.since, c.dead, c.reason)
}

func (b *batch) unpark(consumer string, parked []catalog.Parked) {
	if len(parked) == 0 {
		return
	}
	c := sortCopies(parked)
	what := fmt.Sprintf("%d parked copies of %s", len(parked), consumer)
	b.exec(what, `WITH gone AS (
  DELETE FROM parked p USING unnest($2::text[], $3::integer[], $4::integer[], $5::bigint[], $6::integer[]) AS n(class, gen, shard, seq, rec)
  WHERE p.consumer = $1 AND p.class = n.class AND p.gen = n.gen AND p.shard = n.shard AND p.seq = n.seq AND p.rec = n.rec RETURNING 1)
SELECT catalog_refuse('`+codeStale+`', $8) FROM gone HAVING count(*) <> $7`,
		consumer, c.class, c.gen, c.shard, c.seq, c.rec, len(parked), what)
}

// Skips implements catalog.Catalog.
func (db *DB) Skips(ctx context.Context, s catalog.ShardID, after, to uint64) (all []catalog.Skip, err error) {
	err = db.read(ctx, func(b *batch) {
		all = nil
		b.query(fmt.Sprintf("skips of %s", s), "SELECT seq, rec, reason FROM skips WHERE class = $1 AND gen = $2 AND shard = $3 AND seq > $4 AND seq <= $5 ORDER BY seq, rec", func(r pgx.Rows) error {
			var k catalog.Skip
			var seq int64
			err := r.Scan(&seq, &k.Rec, &k.Reason)
			k.Seq = uint64(seq)
			all = append(all, k)
			return err
		}, class(s.Class), s.Gen, s.Shard, signed(after), signed(to))
	})
	return all, err
}

// Parked implements catalog.Catalog.
func (db *DB) Parked(ctx context.Context, consumer string, f catalog.ParkedFilter) (all []catalog.Parked, err error) {
	query := strings.Builder{}
	var args []any
	arg := func(v any) string {
		args = append(args, v)
		return "$" + strconv.Itoa(len(args))
	}
	query.WriteString("SELECT class, gen, shard, seq, rec, stream_id, process_id, since, dead, reason FROM parked WHERE consumer = " + arg(consumer))
	if s := f.Shard; s != nil {
		query.WriteString(" AND class = " + arg(class(s.Class)) + " AND gen = " + arg(s.Gen) + " AND shard = " + arg(s.Shard))
	}
	if len(f.StreamIDs)+len(f.ProcessIDs) > 0 {
		query.WriteString(" AND (stream_id = ANY(" + arg(uuids(f.StreamIDs)) + "::uuid[]) OR process_id = ANY(" + arg(uuids(f.ProcessIDs)) + "::uuid[]))")
	}
	if f.Dead != nil {
		query.WriteString(" AND dead = " + arg(*f.Dead))
	}
	if f.SinceBefore != 0 {
		query.WriteString(" AND since < " + arg(f.SinceBefore))
	}
	query.WriteString(" ORDER BY class, gen, shard, seq, rec")
	if f.Limit > 0 {
		query.WriteString(" LIMIT " + arg(f.Limit))
	}
	err = db.read(ctx, func(b *batch) {
		all = nil
		b.query("read parked copies of "+consumer, query.String(), func(r pgx.Rows) error {
			var p catalog.Parked
			var seq int64
			err := r.Scan((*class)(&p.Shard.Class), &p.Shard.Gen, &p.Shard.Shard, &seq, &p.Rec, (*[16]byte)(&p.StreamID), (*[16]byte)(&p.ProcessID), &p.Since, &p.Dead, &p.Reason)
			p.Seq = uint64(seq)
			all = append(all, p)
			return err
		}, args...)
	})
	return all, err
}

// uuids returns ids in the type that pgx encodes.
func uuids(ids []telemetry.ID) [][16]byte {
	all := make([][16]byte, len(ids))
	for i := range ids {
		all[i] = ids[i]
	}
	return all
}

// CommitNo implements catalog.Catalog.
func (db *DB) CommitNo(ctx context.Context) (no int64, err error) {
	err = db.read(ctx, func(b *batch) {
		b.query("read commit number", "SELECT commit_no FROM clock WHERE one = 1", func(r pgx.Rows) error { return r.Scan(&no) })
	})
	return no, err
}

const selectPartitions = `SELECT p.part_no, v.name, p.instance_no, p.level, p.bucket, p.min_time, p.max_time, p.min_insert, p.max_insert, p.rows, p.size,
  p.schema_ver, p.sort, p.procs, p.key, p.src_hash, p.objects, p.max_sort_key, p.added, coalesce(p.retired, 0), coalesce(p.retired_at, 0)
FROM partitions p JOIN views v USING(view_no) `

// partitionColumns are where the columns of selectPartitions go.
func partitionColumns(p *catalog.Partition) []any {
	return []any{
		&p.PartNo, &p.View, &p.Instance, &p.Level, &p.Bucket, &p.MinTime, &p.MaxTime, &p.MinInsert, &p.MaxInsert, &p.Rows, &p.Size,
		&p.SchemaVer, &p.Sort, &p.Procs, &p.Key, &p.SrcHash, &p.Objects, &p.MaxSortKey, &p.Added, &p.Retired, &p.RetiredAt,
	}
}

func scanPartition(r pgx.Rows) (p catalog.Partition, err error) {
	err = r.Scan(partitionColumns(&p)...)
	return p, err
}

// Partitions implements catalog.Catalog.
func (db *DB) Partitions(ctx context.Context, sinceCommit int64) (d catalog.PartitionDelta, err error) {
	full := sinceCommit <= 0
	for {
		forgotten := int64(0)
		err = db.snapshot(ctx, func(b *batch) {
			d = catalog.PartitionDelta{Full: full}
			b.query("read commit number", "SELECT commit_no, coalesce((SELECT v::bigint FROM lake WHERE k = $1), 0) FROM clock WHERE one = 1", func(r pgx.Rows) error {
				return r.Scan(&d.CommitNo, &forgotten)
			}, forgottenKey)
			added := func(r pgx.Rows) error {
				p, err := scanPartition(r)
				d.Added = append(d.Added, p)
				return err
			}
			if full {
				b.query("read partitions", selectPartitions+"WHERE p.retired IS NULL AND p.instance_no = 0 ORDER BY p.part_no", added)
				return
			}
			b.query("read added partitions", selectPartitions+"WHERE p.added > $1 AND p.retired IS NULL AND p.instance_no = 0 ORDER BY p.part_no", added, sinceCommit)
			b.query("read retired partitions", "SELECT part_no FROM partitions WHERE retired > $1 ORDER BY part_no", func(r pgx.Rows) error {
				var no int64
				err := r.Scan(&no)
				d.Retired = append(d.Retired, no)
				return err
			}, sinceCommit)
		})
		if err != nil {
			return catalog.PartitionDelta{}, fmt.Errorf("partitions since commit %d: %w", sinceCommit, err)
		}
		if full || sinceCommit >= forgotten && sinceCommit <= d.CommitNo {
			return d, nil
		}
		full = true // the reader cannot be told what to drop
	}
}

// RetiredBefore implements catalog.Catalog.
func (db *DB) RetiredBefore(ctx context.Context, t int64, limit int) (all []catalog.Partition, err error) {
	err = db.read(ctx, func(b *batch) {
		all = nil
		b.query("read retired partitions", selectPartitions+"WHERE p.retired IS NOT NULL AND p.retired_at < $1 ORDER BY p.retired, p.part_no LIMIT $2", func(r pgx.Rows) error {
			p, err := scanPartition(r)
			all = append(all, p)
			return err
		}, t, limit)
	})
	return all, err
}

// ForgetPartitions implements catalog.Catalog.
func (db *DB) ForgetPartitions(ctx context.Context, partNos []int64) error {
	if len(partNos) == 0 {
		return nil
	}
	return db.repeat(ctx, func(b *batch) {
		b.exec("forget partitions", `WITH gone AS (
  DELETE FROM partitions WHERE part_no = ANY($1) AND retired IS NOT NULL RETURNING retired
), last AS (SELECT max(retired) AS no FROM gone)
INSERT INTO lake(k, v) SELECT $2, no::text FROM last WHERE no IS NOT NULL
ON CONFLICT(k) DO UPDATE SET v = excluded.v WHERE lake.v::bigint < excluded.v::bigint`, partNos, forgottenKey)
	})
}

// KeysReferenced implements catalog.Catalog. The subqueries keep the keys outermost, whatever the server knows of the tables.
func (db *DB) KeysReferenced(ctx context.Context, keys []string) ([]bool, error) {
	found := make([]bool, len(keys))
	err := db.read(ctx, func(b *batch) {
		b.query("look up keys", `SELECT k.i FROM unnest($1::text[]) WITH ORDINALITY AS k(key, i)
WHERE coalesce((SELECT true FROM packs p WHERE p.key = k.key LIMIT 1), (SELECT true FROM partitions p WHERE p.key = k.key LIMIT 1), false)`, func(r pgx.Rows) error {
			var i int64
			err := r.Scan(&i)
			if err == nil {
				found[i-1] = true
			}
			return err
		}, cleanAll(keys))
	})
	return found, err
}
