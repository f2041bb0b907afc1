package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Each archive commit notes which rows of processes and streams it changed, under its position. A mark on the rows instead would cost
// each of them an index entry, with every block; and to ask the blocks' rows would miss the process from which a stub moved
// away, and the blocks that were frozen.

const insertChanges = `INSERT INTO changes(class, gen, shard, seq, from_seq, weight, processes, streams)
VALUES(?1, ?2, ?3, ?4, ?5, ?6 + coalesce((SELECT weight FROM changes WHERE class = ?1 AND gen = ?2 AND shard = ?3 AND seq < ?4 ORDER BY seq DESC LIMIT 1), 0), ?7, ?8)
RETURNING weight`

// Old notes are forgotten once for forgetEvery of new weight, more of them than came meanwhile.
const (
	forgetEvery  = 64 * catalog.ChangeWeight
	forgetAtOnce = 2 * forgetEvery / catalog.ChangeWeight
)

const deleteChanges = `DELETE FROM changes WHERE class = ?1 AND gen = ?2 AND shard = ?3 AND weight <= ?4
AND seq IN (SELECT seq FROM changes WHERE class = ?1 AND gen = ?2 AND shard = ?3 ORDER BY seq LIMIT ?5)`

// changes notes what the commit changed, and forgets what was noted long ago.
func (a *archiving) changes() error {
	for _, r := range a.rows {
		a.changedProcesses.add(r.process)
		a.changedStreams.add(r.stream)
	}
	processes, streams := a.changedProcesses.sorted(), a.changedStreams.sorted()
	s := a.c.Shard
	class, gen, shard := className(s.Class), int64(s.Gen), int64(s.Shard)
	own := int64(catalog.ChangeWeight + len(processes) + len(streams))
	weight, err := a.t.queryInt(insertChanges, class, gen, shard, int64(a.c.To), int64(a.c.From), own, encodeNumbers(processes), encodeNumbers(streams))
	if err != nil || weight/forgetEvery == (weight-own)/forgetEvery {
		return err
	}
	_, err = a.t.exec(deleteChanges, class, gen, shard, weight-a.t.w.keptChanges, int64(forgetAtOnce))
	return err
}

// numberList collects numbers that come several times.
type numberList struct{ list []int64 }

func (n *numberList) add(no int64) {
	if k := len(n.list); k == 0 || n.list[k-1] != no {
		n.list = append(n.list, no)
	}
}

// sorted returns the numbers in order, each once.
func (n *numberList) sorted() []int64 {
	slices.Sort(n.list)
	n.list = slices.Compact(n.list)
	return n.list
}

// encodeNumbers writes ascending numbers.
func encodeNumbers(list []int64) []byte {
	b := make([]byte, 0, 2*len(list))
	before := int64(0)
	for _, no := range list {
		b = binary.AppendUvarint(b, uint64(no-before))
		before = no
	}
	return b
}

var errNumbers = errors.New("changed rows are written in a way that this program does not know")

// appendNumbers reads what encodeNumbers wrote.
func appendNumbers(list []int64, b []byte) ([]int64, error) {
	no := int64(0)
	for len(b) > 0 {
		d, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, errNumbers
		}
		no += int64(d)
		list = append(list, no)
		b = b[n:]
	}
	return list, nil
}

// ChangedProcesses implements catalog.Catalog.
func (db *DB) ChangedProcesses(ctx context.Context, after map[catalog.ShardID]uint64, limit int) (catalog.Changes, error) {
	return db.changed(ctx, "processes", "SELECT process_id FROM json_each(?) j CROSS JOIN processes ON process_no = j.value ORDER BY process_no", after, limit)
}

// ChangedStreams implements catalog.Catalog.
func (db *DB) ChangedStreams(ctx context.Context, after map[catalog.ShardID]uint64, limit int) (catalog.Changes, error) {
	return db.changed(ctx, "streams", "SELECT stream_id FROM json_each(?) j CROSS JOIN streams ON stream_no = j.value ORDER BY stream_no", after, limit)
}

func (db *DB) changed(ctx context.Context, column, ids string, after map[catalog.ShardID]uint64, limit int) (catalog.Changes, error) {
	var c catalog.Changes
	err := db.snapshot(ctx, func(t *sql.Tx) (err error) {
		if c.Positions, err = archivePositions(ctx, t); err != nil {
			return err
		}
		r := changeReader{t: t, column: column, limit: limit}
		for s, to := range c.Positions {
			from, known := after[s]
			if !known {
				if from, err = beforeGeneration(ctx, t, s); err != nil {
					return err
				}
			}
			whole, err := r.shard(ctx, s, from, to)
			if err != nil {
				return fmt.Errorf("shard %s: %w", s, err)
			}
			if !whole {
				c.All = true
				return nil
			}
		}
		if limit > 0 && len(r.numbers.sorted()) > limit {
			c.All = true
			return nil
		}
		c.IDs, err = r.ids(ctx, ids)
		return err
	})
	if err != nil {
		return catalog.Changes{}, fmt.Errorf("read changed %s: %w", column, err)
	}
	return c, nil
}

// beforeGeneration returns the position before the first of a generation.
func beforeGeneration(ctx context.Context, t *sql.Tx, s catalog.ShardID) (seq uint64, err error) {
	err = t.QueryRowContext(ctx, "SELECT max(first_seq - 1, 0) FROM generations WHERE class = ? AND gen = ? AND shard = ?", className(s.Class), s.Gen, s.Shard).Scan(&seq)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return seq, err
}

// changeReader collects the numbers of changed rows.
type changeReader struct {
	t       *sql.Tx
	column  string
	limit   int
	numbers numberList
	sorted  int // numbers up to here are in order, each once
}

// shard reads the notes of the commits in (from, to]. It returns false when they are not all there, or when they are too many.
func (r *changeReader) shard(ctx context.Context, s catalog.ShardID, from, to uint64) (whole bool, err error) {
	rows, err := r.t.QueryContext(ctx, "SELECT from_seq, seq, "+r.column+" FROM changes WHERE class = ? AND gen = ? AND shard = ? AND seq > ? ORDER BY seq",
		className(s.Class), s.Gen, s.Shard, signed(from))
	if err != nil {
		return false, err
	}
	defer rows.Close()
	at := from
	for first := true; rows.Next(); first = false {
		var before, seq uint64
		var list sql.RawBytes
		if err := rows.Scan(&before, &seq, &list); err != nil {
			return false, err
		}
		if before > at || !first && before != at {
			return false, nil
		}
		at = seq
		if r.numbers.list, err = appendNumbers(r.numbers.list, list); err != nil {
			return false, err
		}
		if r.tooMany() {
			return false, nil
		}
	}
	return at >= to, rows.Err()
}

// tooMany reports whether more numbers came than are asked for. The list never grows beyond twice as many, and a commit's.
func (r *changeReader) tooMany() bool {
	if r.limit <= 0 || len(r.numbers.list) <= max(r.limit, 2*r.sorted) {
		return false
	}
	r.sorted = len(r.numbers.sorted())
	return r.sorted > r.limit
}

func (r *changeReader) ids(ctx context.Context, query string) ([]telemetry.ID, error) {
	list := r.numbers.sorted()
	if len(list) == 0 {
		return nil, nil
	}
	text := []byte{'['}
	for i, no := range list {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, no, 10)
	}
	return collect(ctx, r.t, func(rows *sql.Rows) (id telemetry.ID, err error) {
		err = rows.Scan(idColumn{&id})
		return id, err
	}, query, string(append(text, ']')))
}
