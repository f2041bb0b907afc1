// Package sqlite keeps the catalog in one SQLite file, for a lake that one process serves.
// Written and read through catalog.Catalog only; no other program may write the file while it is open.
//
// The file is in WAL mode with synchronous FULL: a commit is answered after the fsync of the log, and readers see a
// snapshot and never wait. One goroutine writes; it groups the commits that wait (writer). Reads go to a pool of
// connections that cannot write.
//
// Assumed of the file system: fsync of a file makes its content durable, fsync of a folder its names. SQLite does both
// for its files, and Open does it for the folder once more.
package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"

	"modernc.org/sqlite"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

const (
	// maxReaders bounds the connections that read, and with them the reads that run at once.
	maxReaders = 4
	// writerCacheKiB and readerCacheKiB bound SQLite's page cache of each connection. The writer's holds the upper levels of
	// the blocks' tree and the pages that a batch touches.
	writerCacheKiB = 32 << 10
	readerCacheKiB = 4 << 10
	// maxLogBytes is what the log file keeps of its size after a checkpoint.
	maxLogBytes = 64 << 20
	// checkpointPages is how many pages the log collects before they are copied into the file, 16 MiB. Pages that every
	// commit touches, such as the last-seen times, are then copied once for many commits.
	checkpointPages = 4096
	// busyTimeoutMs bounds the wait for a lock that another connection holds for a moment, as at recovery.
	busyTimeoutMs = 10_000
)

// DB is a catalog in a SQLite file.
type DB struct {
	read   *sql.DB
	writer *writer
	closed atomic.Bool
}

var _ catalog.Catalog = (*DB)(nil)

// Open opens or creates the catalog at path and brings its tables up to date. The folder must exist.
func Open(ctx context.Context, path string, log *slog.Logger) (*DB, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	conn, err := connect(source(path, writerCacheKiB, "journal_mode(WAL)", "synchronous(FULL)", fmt.Sprintf("journal_size_limit(%d)", maxLogBytes), fmt.Sprintf("wal_autocheckpoint(%d)", checkpointPages)))
	if err != nil {
		return nil, fmt.Errorf("open catalog %s: %w", path, err)
	}
	s := newSession(conn)
	if err := prepareFile(s, path); err != nil {
		return nil, errors.Join(fmt.Errorf("open catalog %s: %w", path, err), s.close())
	}
	read, err := sql.Open("sqlite", source(path, readerCacheKiB, "query_only(1)"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open catalog %s: %w", path, err), s.close())
	}
	read.SetMaxOpenConns(maxReaders)
	read.SetMaxIdleConns(maxReaders)
	db := &DB{read: read, writer: newWriter(s)}
	if err := db.Ping(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open catalog %s: %w", path, err), db.Close())
	}
	log.Debug("catalog opened", "path", path)
	return db, nil
}

func source(path string, cacheKiB int, pragmas ...string) string {
	q := url.Values{}
	for _, p := range append([]string{
		fmt.Sprintf("busy_timeout(%d)", busyTimeoutMs),
		fmt.Sprintf("cache_size(-%d)", cacheKiB),
		"temp_store(MEMORY)",
	}, pragmas...) {
		q.Add("_pragma", p)
	}
	return (&url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: q.Encode()}).String()
}

func connect(source string) (driver.Conn, error) {
	d := &sqlite.Driver{}
	return d.Open(source)
}

// prepareFile checks the modes that durability rests on, migrates, and makes the files' names durable.
func prepareFile(s *session, path string) error {
	mode := ""
	err := s.query("PRAGMA journal_mode", func(row []driver.Value) error {
		mode, _ = row[0].(string)
		return nil
	})
	if err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("journal mode is %q instead of wal: is the file on a network folder?", mode)
	}
	if level, err := s.queryInt("PRAGMA synchronous"); err != nil || level != 2 {
		return errors.Join(fmt.Errorf("synchronous is %d instead of 2 (FULL)", level), err)
	}
	if err := migrate(s); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Close waits for the commit under way; commits that wait get catalog.ErrClosed, and so does a second Close.
func (db *DB) Close() error {
	if db.closed.Swap(true) {
		return catalog.ErrClosed
	}
	return errors.Join(db.read.Close(), db.writer.close()) // the writer last: it checkpoints the log
}

// Ping reports whether the file can be read.
func (db *DB) Ping(ctx context.Context) error {
	_, err := db.CommitNo(ctx)
	return err
}

// snapshot runs fn inside one read transaction: all it reads is of one moment.
func (db *DB) snapshot(ctx context.Context, fn func(*sql.Tx) error) error {
	t, err := db.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("begin read: %w", err)
	}
	defer t.Rollback() // nothing was written
	return fn(t)
}

// querier is a pool or a transaction to read from.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// collect reads all rows of a query through scan.
func collect[T any](ctx context.Context, q querier, scan func(*sql.Rows) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", firstLine(query), err)
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", firstLine(query), err)
		}
		all = append(all, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", firstLine(query), err)
	}
	return all, nil
}
