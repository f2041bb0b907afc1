package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// Setting implements catalog.Catalog.
func (db *DB) Setting(ctx context.Context, key string) (string, bool, error) {
	var v string
	err := db.read.QueryRowContext(ctx, "SELECT v FROM lake WHERE k = ?", key).Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("read setting %s: %w", key, err)
	}
	return v, true, nil
}

// PutSettingIfAbsent implements catalog.Catalog.
func (db *DB) PutSettingIfAbsent(ctx context.Context, key, value string) (string, error) {
	var stands string
	err := db.writer.do(ctx, func(t *tx) error {
		if _, err := t.exec("INSERT INTO lake(k, v) VALUES(?, ?) ON CONFLICT DO NOTHING", key, value); err != nil {
			return err
		}
		return t.query("SELECT v FROM lake WHERE k = ?", func(row []driver.Value) error {
			stands, _ = row[0].(string)
			return nil
		}, key)
	})
	return stands, err
}

const selectGenerations = "SELECT class, gen, shard, stream, created, first_seq FROM generations"

func scanGeneration(rows *sql.Rows) (catalog.Generation, error) {
	var g catalog.Generation
	var class string
	err := rows.Scan(&class, &g.Gen, &g.Shard, &g.Stream, &g.Created, &g.FirstSeq)
	g.Class = classByte(class)
	return g, err
}

// Generations implements catalog.Catalog.
func (db *DB) Generations(ctx context.Context) ([]catalog.Generation, error) {
	return collect(ctx, db.read, scanGeneration, selectGenerations+" ORDER BY class, shard, gen")
}

// OpenGeneration implements catalog.Catalog.
func (db *DB) OpenGeneration(ctx context.Context, g catalog.Generation) error {
	return db.writer.do(ctx, func(t *tx) error {
		n, err := t.exec("INSERT INTO generations(class, gen, shard, stream, created, first_seq) VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
			className(g.Class), int64(g.Gen), int64(g.Shard), g.Stream, g.Created, int64(g.FirstSeq))
		if err != nil || n == 1 {
			return err
		}
		same, err := t.queryInt("SELECT count(*) FROM generations WHERE class = ? AND gen = ? AND shard = ? AND stream = ? AND created = ? AND first_seq = ?",
			className(g.Class), int64(g.Gen), int64(g.Shard), g.Stream, g.Created, int64(g.FirstSeq))
		if err == nil && same == 0 {
			err = fmt.Errorf("open generation %s: %w", g.ShardID, catalog.ErrConflict)
		}
		return err
	})
}

// clock is the store's clock: the machine's, since one process alone serves the file.
func clock() int64 { return time.Now().UnixNano() }

// Now implements catalog.Catalog.
func (db *DB) Now(ctx context.Context) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if db.closed.Load() {
		return 0, catalog.ErrClosed
	}
	return clock(), nil
}

// AcquireLease implements catalog.Catalog.
func (db *DB) AcquireLease(ctx context.Context, name, owner string, ttl time.Duration) (catalog.Lease, error) {
	lease := catalog.Lease{Name: name, Owner: owner}
	err := db.writer.do(ctx, func(t *tx) error {
		now := clock()
		held := &catalog.HeldError{Name: name, Now: now}
		epoch := int64(0)
		err := t.query("SELECT owner, epoch, expires FROM leases WHERE name = ?", func(row []driver.Value) error {
			held.Owner, _ = row[0].(string)
			epoch, _ = row[1].(int64)
			held.Expires, _ = row[2].(int64)
			return nil
		}, name)
		if err != nil {
			return err
		}
		if held.Owner != "" && held.Owner != owner && held.Expires > now {
			return held
		}
		lease.Epoch, lease.Expires = epoch+1, now+int64(ttl)
		_, err = t.exec("INSERT INTO leases(name, owner, epoch, expires) VALUES(?, ?, ?, ?) ON CONFLICT(name) DO UPDATE SET owner = excluded.owner, epoch = excluded.epoch, expires = excluded.expires",
			name, owner, lease.Epoch, lease.Expires)
		return err
	})
	if err != nil {
		return catalog.Lease{}, err
	}
	return lease, nil
}

// ReleaseLease implements catalog.Catalog.
func (db *DB) ReleaseLease(ctx context.Context, l catalog.Lease) error {
	err := db.writer.do(ctx, func(t *tx) error {
		return lost(t.exec("UPDATE leases SET owner = '', expires = 0 WHERE name = ? AND owner = ? AND epoch = ?", l.Name, l.Owner, l.Epoch))
	})
	if err != nil {
		return fmt.Errorf("release %s: %w", l.Name, err)
	}
	return nil
}

func lost(n int64, err error) error {
	if err == nil && n == 0 {
		return catalog.ErrLeaseLost
	}
	return err
}

const selectLeases = "SELECT name, owner, epoch, expires FROM leases ORDER BY name"

// Leases implements catalog.Catalog.
func (db *DB) Leases(ctx context.Context) ([]catalog.Lease, error) {
	return collect(ctx, db.read, func(rows *sql.Rows) (l catalog.Lease, err error) {
		err = rows.Scan(&l.Name, &l.Owner, &l.Epoch, &l.Expires)
		return l, err
	}, selectLeases)
}

const renewLease = "UPDATE leases SET expires = ? WHERE name = ? AND owner = ? AND epoch = ?"

// KeepLeases implements catalog.Catalog.
func (db *DB) KeepLeases(ctx context.Context, held []catalog.Lease, ttl time.Duration) (all []catalog.Lease, now int64, err error) {
	if len(held) == 0 {
		now = clock() // before the rows: what counts as free may be so for longer
		all, err = db.Leases(ctx)
		return all, now, err
	}
	err = db.writer.do(ctx, func(t *tx) error {
		now = clock()
		for _, l := range held {
			if _, err := t.exec(renewLease, now+int64(ttl), l.Name, l.Owner, l.Epoch); err != nil {
				return err
			}
		}
		return t.query(selectLeases, func(row []driver.Value) error {
			var l catalog.Lease
			l.Name, _ = row[0].(string)
			l.Owner, _ = row[1].(string)
			l.Epoch, _ = row[2].(int64)
			l.Expires, _ = row[3].(int64)
			all = append(all, l)
			return nil
		})
	})
	if err != nil {
		return nil, 0, fmt.Errorf("keep %d leases: %w", len(held), err)
	}
	return all, now, nil
}

// ForgetLeases implements catalog.Catalog.
func (db *DB) ForgetLeases(ctx context.Context, prefix string, before int64) error {
	err := db.writer.do(ctx, func(t *tx) error {
		_, err := t.exec("DELETE FROM leases WHERE substr(name, 1, length(?1)) = ?1 AND expires < ?2", prefix, before)
		return err
	})
	if err != nil {
		return fmt.Errorf("forget leases %s: %w", prefix, err)
	}
	return nil
}

// Checkpoint implements catalog.Catalog.
func (db *DB) Checkpoint(ctx context.Context, consumer string, s catalog.ShardID) (catalog.Checkpoint, error) {
	found, err := collect(ctx, db.read, func(rows *sql.Rows) (c catalog.Checkpoint, err error) {
		err = rows.Scan(&c.Seq, &c.Epoch)
		return c, err
	}, `SELECT seq, epoch FROM (
  SELECT seq, epoch, 0 AS standin FROM checkpoints WHERE consumer = ?1 AND class = ?2 AND gen = ?3 AND shard = ?4
  UNION ALL SELECT max(first_seq - 1, 0), 0, 1 FROM generations WHERE class = ?2 AND gen = ?3 AND shard = ?4)
ORDER BY standin LIMIT 1`, consumer, className(s.Class), s.Gen, s.Shard)
	if err != nil || len(found) == 0 {
		return catalog.Checkpoint{}, err
	}
	return found[0], nil
}

// ArchivePositions implements catalog.Catalog.
func (db *DB) ArchivePositions(ctx context.Context) (map[catalog.ShardID]uint64, error) {
	return archivePositions(ctx, db.read)
}

func archivePositions(ctx context.Context, q querier) (map[catalog.ShardID]uint64, error) {
	type position struct {
		shard catalog.ShardID
		seq   uint64
	}
	all, err := collect(ctx, q, func(rows *sql.Rows) (p position, err error) {
		var class string
		err = rows.Scan(&class, &p.shard.Gen, &p.shard.Shard, &p.seq)
		p.shard.Class = classByte(class)
		return p, err
	}, "SELECT class, gen, shard, seq FROM checkpoints WHERE consumer = ?", catalog.ConsumerArchive)
	if err != nil {
		return nil, err
	}
	m := make(map[catalog.ShardID]uint64, len(all))
	for _, p := range all {
		m[p.shard] = p.seq
	}
	return m, nil
}

// moveCheckpoint is the compare-and-swap on which exactly-once rests.
func moveCheckpoint(t *tx, consumer string, m catalog.Move) error {
	class, gen, shard := className(m.Shard.Class), int64(m.Shard.Gen), int64(m.Shard.Shard)
	n, err := t.exec("UPDATE checkpoints SET seq = ?, epoch = ? WHERE consumer = ? AND class = ? AND gen = ? AND shard = ? AND seq = ? AND epoch <= ?",
		int64(m.To), m.Epoch, consumer, class, gen, shard, int64(m.From), m.Epoch)
	if err != nil || n == 1 {
		return err
	}
	// Without a row the checkpoint stands just before the generation's first sequence number.
	n, err = t.exec(`INSERT INTO checkpoints(consumer, class, gen, shard, seq, epoch) SELECT ?1, ?2, ?3, ?4, ?5, ?6
WHERE ?7 = coalesce((SELECT max(first_seq - 1, 0) FROM generations WHERE class = ?2 AND gen = ?3 AND shard = ?4), 0)
ON CONFLICT DO NOTHING`, consumer, class, gen, shard, int64(m.To), m.Epoch, int64(m.From))
	if err != nil || n == 1 {
		return err
	}
	return fmt.Errorf("%s of %s from %d to %d with epoch %d: %w", consumer, m.Shard, m.From, m.To, m.Epoch, catalog.ErrConflict)
}

func className(c byte) string { return string(rune(c)) }

func classByte(s string) byte {
	if s == "" {
		return 0
	}
	return s[0]
}
