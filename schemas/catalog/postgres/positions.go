package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// storeClock is the server's clock in nanoseconds, of the moment at which it is evaluated. The server has microseconds.
const storeClock = "((extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000)"

// asyncCommit lets a transaction end before it is on disk: see KeepLeases.
const asyncCommit = "SELECT set_config('synchronous_commit', 'off', true)"

// Now implements catalog.Catalog.
func (db *DB) Now(ctx context.Context) (now int64, err error) {
	err = db.read(ctx, func(b *batch) {
		b.query("read the server's clock", "SELECT "+storeClock, func(r pgx.Rows) error { return r.Scan(&now) })
	})
	if err != nil {
		return 0, err
	}
	db.clock.set(now)
	return now, nil
}

// Setting implements catalog.Catalog.
func (db *DB) Setting(ctx context.Context, key string) (v string, found bool, err error) {
	err = db.read(ctx, func(b *batch) {
		v, found = "", false
		b.query("read setting "+key, "SELECT v FROM lake WHERE k = $1", func(r pgx.Rows) error {
			found = true
			return r.Scan(&v)
		}, key)
	})
	return v, found, err
}

// PutSettingIfAbsent implements catalog.Catalog.
func (db *DB) PutSettingIfAbsent(ctx context.Context, key, value string) (stands string, err error) {
	err = db.repeat(ctx, func(b *batch) {
		b.exec("put setting "+key, "INSERT INTO lake(k, v) VALUES($1, $2) ON CONFLICT DO NOTHING", key, value)
		b.query("read setting "+key, "SELECT v FROM lake WHERE k = $1", func(r pgx.Rows) error { return r.Scan(&stands) }, key)
	})
	return stands, err
}

// Generations implements catalog.Catalog.
func (db *DB) Generations(ctx context.Context) (all []catalog.Generation, err error) {
	err = db.read(ctx, func(b *batch) {
		all = nil
		b.query("read generations", "SELECT class, gen, shard, stream, created, first_seq FROM generations ORDER BY class, shard, gen", func(r pgx.Rows) error {
			var g catalog.Generation
			var first int64
			err := r.Scan((*class)(&g.Class), &g.Gen, &g.Shard, &g.Stream, &g.Created, &first)
			g.FirstSeq = uint64(first)
			all = append(all, g)
			return err
		})
	})
	return all, err
}

// OpenGeneration implements catalog.Catalog.
func (db *DB) OpenGeneration(ctx context.Context, g catalog.Generation) error {
	return db.repeat(ctx, func(b *batch) {
		b.exec("open generation", `INSERT INTO generations(class, gen, shard, stream, created, first_seq) VALUES($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`,
			class(g.Class), g.Gen, g.Shard, g.Stream, g.Created, signed(g.FirstSeq))
		b.exec("open generation", `SELECT catalog_refuse('`+codeConflict+`', $7) WHERE NOT EXISTS (
  SELECT FROM generations WHERE class = $1 AND gen = $2 AND shard = $3 AND stream = $4 AND created = $5 AND first_seq = $6)`,
			class(g.Class), g.Gen, g.Shard, g.Stream, g.Created, signed(g.FirstSeq), fmt.Sprintf("open generation %s", g.ShardID))
	})
}

const acquireLease = `INSERT INTO leases AS l (name, owner, epoch, expires) VALUES($1, $2, 1, ` + storeClock + ` + $3)
ON CONFLICT(name) DO UPDATE SET owner = excluded.owner, epoch = l.epoch + 1, expires = excluded.expires
WHERE l.owner = '' OR l.owner = excluded.owner OR l.expires <= ` + storeClock + `
RETURNING epoch, expires`

// AcquireLease implements catalog.Catalog. It may be repeated: the owner's own lease counts as free.
func (db *DB) AcquireLease(ctx context.Context, name, owner string, ttl time.Duration) (catalog.Lease, error) {
	lease := catalog.Lease{Name: name, Owner: owner}
	held := &catalog.HeldError{Name: name}
	acquired := false
	err := db.repeat(ctx, func(b *batch) {
		acquired = false
		b.query("acquire "+name, acquireLease, func(r pgx.Rows) error {
			acquired = true
			return r.Scan(&lease.Epoch, &lease.Expires)
		}, name, owner, int64(ttl))
		b.query("acquire "+name, "SELECT owner, expires, "+storeClock+" FROM leases WHERE name = $1", func(r pgx.Rows) error {
			return r.Scan(&held.Owner, &held.Expires, &held.Now)
		}, name)
	})
	switch {
	case err != nil:
		return catalog.Lease{}, err
	case !acquired: // if it was given back at this very moment, the error says that it is free
		return catalog.Lease{}, held
	default:
		return lease, nil
	}
}

// ReleaseLease implements catalog.Catalog.
func (db *DB) ReleaseLease(ctx context.Context, l catalog.Lease) error {
	found := false
	err := db.write(ctx, func(b *batch) {
		found = false
		b.query("release "+l.Name, "UPDATE leases SET owner = '', expires = 0 WHERE name = $1 AND owner = $2 AND epoch = $3 RETURNING 1", func(pgx.Rows) error {
			found = true
			return nil
		}, l.Name, l.Owner, l.Epoch)
	})
	if err == nil && !found {
		err = fmt.Errorf("release %s: %w", l.Name, catalog.ErrLeaseLost)
	}
	return err
}

// Leases implements catalog.Catalog.
func (db *DB) Leases(ctx context.Context) (all []catalog.Lease, err error) {
	err = db.read(ctx, func(b *batch) {
		all = nil
		b.query("read leases", `SELECT name, owner, epoch, expires FROM leases ORDER BY name COLLATE "C"`, func(r pgx.Rows) error {
			var l catalog.Lease
			err := r.Scan(&l.Name, &l.Owner, &l.Epoch, &l.Expires)
			all = append(all, l)
			return err
		})
	})
	return all, err
}

// startOf is the position of a checkpoint that was never moved, of the shard ($1, $2, $3).
const startOf = "coalesce((SELECT greatest(first_seq - 1, 0) FROM generations WHERE class = $1 AND gen = $2 AND shard = $3), 0)"

// Checkpoint implements catalog.Catalog.
func (db *DB) Checkpoint(ctx context.Context, consumer string, s catalog.ShardID) (c catalog.Checkpoint, err error) {
	err = db.read(ctx, func(b *batch) {
		b.query(fmt.Sprintf("checkpoint of %s in %s", consumer, s), `SELECT coalesce(c.seq, `+startOf+`), coalesce(c.epoch, 0)
FROM (SELECT) one LEFT JOIN checkpoints c ON c.consumer = $4 AND c.class = $1 AND c.gen = $2 AND c.shard = $3`, func(r pgx.Rows) error {
			var seq int64
			err := r.Scan(&seq, &c.Epoch)
			c.Seq = uint64(seq)
			return err
		}, class(s.Class), s.Gen, s.Shard, consumer)
	})
	return c, err
}

// ArchivePositions implements catalog.Catalog.
func (db *DB) ArchivePositions(ctx context.Context) (m map[catalog.ShardID]uint64, err error) {
	err = db.read(ctx, func(b *batch) {
		m = map[catalog.ShardID]uint64{}
		b.query("read archive's positions", "SELECT class, gen, shard, seq FROM checkpoints WHERE consumer = $1", func(r pgx.Rows) error {
			var s catalog.ShardID
			var seq int64
			err := r.Scan((*class)(&s.Class), &s.Gen, &s.Shard, &seq)
			m[s] = uint64(seq)
			return err
		}, catalog.ConsumerArchive)
	})
	return m, err
}

// moveCheckpoint is the compare-and-swap on which exactly-once rests. Without a row the checkpoint stands just before the
// generation's first sequence number. Of two that make the row at once, the second meets the first's at the conflict, and loses at
// the compare.
const moveCheckpoint = `WITH moved AS (
  INSERT INTO checkpoints AS c (consumer, class, gen, shard, seq, epoch)
  SELECT $4, $1, $2, $3, $6, $7
  WHERE EXISTS (SELECT FROM checkpoints WHERE consumer = $4 AND class = $1 AND gen = $2 AND shard = $3) OR $5 = ` + startOf + `
  ON CONFLICT (consumer, class, gen, shard) DO UPDATE SET seq = excluded.seq, epoch = excluded.epoch
  WHERE c.seq = $5 AND c.epoch <= excluded.epoch
  RETURNING 1)
SELECT catalog_refuse('` + codeConflict + `', $8) WHERE NOT EXISTS (SELECT FROM moved)`

func (b *batch) moveCheckpoint(consumer string, m catalog.Move) {
	what := fmt.Sprintf("%s of %s from %d to %d with epoch %d", consumer, m.Shard, m.From, m.To, m.Epoch)
	b.exec(what, moveCheckpoint, class(m.Shard.Class), m.Shard.Gen, m.Shard.Shard, consumer, signed(m.From), signed(m.To), m.Epoch, what)
}

// class is a shard's class in a column of one letter.
type class byte

// TextValue implements pgtype.TextValuer.
func (c class) TextValue() (pgtype.Text, error) {
	return pgtype.Text{String: string(rune(c)), Valid: true}, nil
}

// ScanText implements pgtype.TextScanner.
func (c *class) ScanText(v pgtype.Text) error {
	*c = 0
	if v.String != "" {
		*c = class(v.String[0])
	}
	return nil
}

// signed keeps "no limit" positions inside a bigint.
func signed(seq uint64) int64 { return int64(min(seq, 1<<63-1)) }
