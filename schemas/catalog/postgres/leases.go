package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

const selectLeases = `SELECT name, owner, epoch, expires FROM leases ORDER BY name COLLATE "C"`

const renewLeases = "UPDATE leases AS l SET expires = " + storeClock + ` + $4 FROM unnest($1::text[], $2::text[], $3::bigint[]) AS h(name, owner, epoch)
WHERE l.name = h.name AND l.owner = h.owner AND l.epoch = h.epoch AND l.owner <> ''`

// KeepLeases implements catalog.Catalog. It does not wait for the disk: should the server fall at this moment, the leases expire
// as if this heartbeat had been missed. Then another owner may come while this one still believes in its lease, which the
// compare of epochs settles, as it does for a paused owner. An epoch itself is always on disk before it is used.
func (db *DB) KeepLeases(ctx context.Context, held []catalog.Lease, ttl time.Duration) (all []catalog.Lease, now int64, err error) {
	run := db.read
	var names, owners []string
	var epochs []int64
	for _, l := range held {
		names, owners, epochs = append(names, l.Name), append(owners, l.Owner), append(epochs, l.Epoch)
		run = db.repeat
	}
	err = run(ctx, func(b *batch) {
		all = nil
		if len(held) > 0 {
			b.exec("keep leases", asyncCommit)
			b.exec("keep leases", renewLeases, names, owners, epochs, int64(ttl))
		}
		// The clock before the rows: what counts as free may be so for longer.
		b.query("read the server's clock", "SELECT "+storeClock, func(r pgx.Rows) error { return r.Scan(&now) })
		b.query("read leases", selectLeases, func(r pgx.Rows) error {
			var l catalog.Lease
			err := r.Scan(&l.Name, &l.Owner, &l.Epoch, &l.Expires)
			all = append(all, l)
			return err
		})
	})
	if err != nil {
		return nil, 0, err
	}
	return all, now, nil
}

// ForgetLeases implements catalog.Catalog.
func (db *DB) ForgetLeases(ctx context.Context, prefix string, before int64) error {
	return db.repeat(ctx, func(b *batch) {
		b.exec("forget leases "+prefix, "DELETE FROM leases WHERE starts_with(name, $1) AND expires < $2", prefix, before)
	})
}
