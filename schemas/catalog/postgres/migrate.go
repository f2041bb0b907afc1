package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// migrations holds the steps from an empty database to today's tables, one file a version, named NNNN_what.sql. A file that was
// ever released does not change; the next change is the next file, and must leave the processes of the version before at work.
//
//go:embed migrations/*.sql
var migrations embed.FS

// migrationLock is the key of the lock under which one process migrates while others wait.
const migrationLock = 0x6d6963726f6d6567 // "micromeg"

// NewerSchemaError is of tables that a newer program made.
type NewerSchemaError struct {
	Have, Known int // versions of the tables, and the newest that this program knows
}

func (e *NewerSchemaError) Error() string {
	return fmt.Sprintf("the catalog has version %d, this program knows versions up to %d: start the newer program on it", e.Have, e.Known)
}

// migrate brings the tables to the newest version. All steps and the version number are one transaction, so an interrupted start
// leaves nothing half done. The lock belongs to the transaction: one of the session would stay behind in a pooler.
func migrate(ctx context.Context, conn *pgx.Conn) error {
	files, err := fs.Glob(migrations, "migrations/*.sql") // sorted by name
	if err != nil {
		return err
	}
	have, err := version(ctx, conn)
	if err != nil || have == len(files) {
		return err
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, endWithClient); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(migrationLock)); err != nil {
			return fmt.Errorf("lock for migration: %w", err)
		}
		have, err := version(ctx, tx)
		if err != nil {
			return err
		}
		if have > len(files) {
			return &NewerSchemaError{Have: have, Known: len(files)}
		}
		for i, name := range files[have:] {
			if err := step(ctx, tx, name, have+i+1); err != nil {
				return fmt.Errorf("migration %s: %w", name, err)
			}
		}
		return nil
	})
}

// tableExists says whether the catalog has the table $1. It reads the system's table: to_regclass answers from the session's cache,
// which knows nothing of what others did while this transaction waited for a lock.
const tableExists = "EXISTS (SELECT FROM pg_class WHERE relname = $1 AND relnamespace = to_regnamespace(current_schema()::text))"

// version returns the version of the tables, 0 where there are none.
func version(ctx context.Context, q interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
},
) (int, error) {
	var there bool
	if err := q.QueryRow(ctx, "SELECT "+tableExists, "catalog_version").Scan(&there); err != nil {
		return 0, fmt.Errorf("look for the version of the catalog: %w", err)
	}
	if !there {
		return 0, nil
	}
	var have int
	err := q.QueryRow(ctx, "SELECT version FROM catalog_version WHERE one = 1").Scan(&have)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("read the version of the catalog: %w", err)
	}
	return have, nil
}

func step(ctx context.Context, tx pgx.Tx, name string, number int) error {
	if v, err := strconv.Atoi(strings.SplitN(path.Base(name), "_", 2)[0]); err != nil || v != number {
		return fmt.Errorf("not number %d", number)
	}
	text, err := migrations.ReadFile(name)
	if err != nil {
		return err
	}
	note := fmt.Sprintf(`CREATE TABLE IF NOT EXISTS catalog_version(one integer PRIMARY KEY CHECK(one = 1), version integer NOT NULL);
INSERT INTO catalog_version(one, version) VALUES(1, %d) ON CONFLICT(one) DO UPDATE SET version = excluded.version;`, number)
	// Several statements at once go by the simple protocol.
	_, err = tx.Conn().PgConn().Exec(ctx, string(text)+note).ReadAll()
	return err
}
