package postgres

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

const (
	// daysBefore and daysAfter bound the days around now that get a partition of their own: as far back as a client may have
	// been without a network, and forward for clocks that are fast. All other times, of which a client can make up any number,
	// lie in blocks_default.
	daysBefore, daysAfter = 32, 2
	// dayLock is the key of the lock under which partitions are made, one process at a time.
	dayLock = migrationLock + 1
	// dayLockTimeout bounds the wait for readers of blocks_default, and with it the time that later ones wait behind this one. It
	// is longer than deadlock_timeout (1 s), when the server ends an autovacuum that is in the way.
	dayLockTimeout = 2 * time.Second
	// dayRetry is the pause after an attempt that failed.
	dayRetry = 10 * time.Second
	nsPerDay = int64(24 * time.Hour)
)

// days is what this process knows of the partitions of blocks.
type days struct {
	now  func() int64   // the server's time; set once
	mu   sync.Mutex     // guards what follows
	made map[int64]bool // by days since 1970
	wait time.Time      // no attempt before
}

func (d *days) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.made = nil
}

// missing returns the days, near now, that are not known to have a partition, each once.
func (d *days) missing(blocks []catalog.BlockReg) []int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Now().Before(d.wait) {
		return nil
	}
	today := floorDay(d.now())
	var days []int64
	for i := range blocks {
		day := floorDay(micros(blocks[i].BeginTime))
		if !d.made[day] && day >= today-daysBefore && day <= today+daysAfter && !slices.Contains(days, day) {
			days = append(days, day)
		}
	}
	return days
}

func (d *days) learn(days []int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.made == nil || len(d.made) > 10*(daysBefore+daysAfter) {
		d.made = map[int64]bool{}
	}
	for _, day := range days {
		d.made[day] = true
	}
}

func (d *days) pause() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wait = time.Now().Add(dayRetry)
}

// floorDay returns the day of a time, in days since 1970.
func floorDay(t int64) int64 {
	day := t / nsPerDay
	if t%nsPerDay < 0 {
		day--
	}
	return day
}

func partitionOf(day int64) string {
	return "blocks_" + time.Unix(day*nsPerDay/int64(time.Second), 0).UTC().Format("20060102")
}

// isBlocks says whether a table is one of the partitions of blocks.
func isBlocks(table string) bool {
	return len(table) > len("blocks_") && table[:len("blocks_")] == "blocks_"
}

// makeDays makes the partitions of the blocks' days. It may fail: then the blocks go to blocks_default, and to their own
// partition with the next attempt.
func (db *DB) makeDays(ctx context.Context, blocks []catalog.BlockReg) {
	days := db.days.missing(blocks)
	if len(days) == 0 {
		return
	}
	slices.Sort(days)
	if err := db.makePartitions(ctx, days); err != nil {
		db.days.pause()
		db.log.Warn("no partition for a day of blocks", "first_day", partitionOf(days[0]), "days", len(days), "err", err)
		return
	}
	db.days.learn(days)
}

func (db *DB) makePartitions(ctx context.Context, days []int64) error {
	if err := db.enter(); err != nil {
		return err
	}
	defer db.leave()
	ctx, cancel := context.WithTimeout(ctx, maxCommit)
	defer cancel()
	days, err := db.withoutPartition(ctx, days)
	if err != nil {
		return err
	}
	for _, day := range days { // one transaction each, so that the lock is held briefly
		if err := db.makePartition(ctx, day); err != nil {
			return fmt.Errorf("make %s: %w", partitionOf(day), err)
		}
	}
	return nil
}

func (db *DB) withoutPartition(ctx context.Context, days []int64) ([]int64, error) {
	names := make([]string, len(days))
	for i, day := range days {
		names[i] = partitionOf(day)
	}
	rows, err := db.pool.Query(ctx, `SELECT i FROM unnest($1::text[]) WITH ORDINALITY AS n(name, i)
WHERE NOT EXISTS (SELECT FROM pg_class WHERE relname = name AND relnamespace = to_regnamespace(current_schema()::text))`, names)
	if err != nil {
		return nil, fmt.Errorf("look for partitions: %w", err)
	}
	missing, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("look for partitions: %w", err)
	}
	var left []int64
	for _, i := range missing {
		left = append(left, days[i-1])
	}
	return left, nil
}

// makePartition makes a day's partition and moves the day's rows out of blocks_default. The table is attached, not created as a
// partition, because attaching lets writers of other days pass; only readers and writers of blocks_default wait.
func (db *DB) makePartition(ctx context.Context, day int64) error {
	name, begin, end := partitionOf(day), day*nsPerDay, (day+1)*nsPerDay
	return pgx.BeginFunc(ctx, db.pool, func(tx pgx.Tx) error {
		for _, sql := range []string{
			fmt.Sprintf("SET LOCAL lock_timeout = %d", dayLockTimeout.Milliseconds()),
			endWithClient,
			fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", dayLock),
		} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		var there bool
		if err := tx.QueryRow(ctx, "SELECT "+tableExists, name).Scan(&there); err != nil || there {
			return err
		}
		for _, sql := range []string{
			"LOCK TABLE ONLY blocks IN SHARE UPDATE EXCLUSIVE MODE",
			"LOCK TABLE blocks_default IN ACCESS EXCLUSIVE MODE",
			fmt.Sprintf("CREATE TABLE %s (LIKE blocks)", name),
			fmt.Sprintf(`WITH moved AS (DELETE FROM blocks_default WHERE begin_time >= %d AND begin_time < %d RETURNING *)
INSERT INTO %s SELECT * FROM moved`, begin, end, name),
			fmt.Sprintf("ALTER TABLE blocks ATTACH PARTITION %s FOR VALUES FROM (%d) TO (%d)", name, begin, end),
		} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	})
}
