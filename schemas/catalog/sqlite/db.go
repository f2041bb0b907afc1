// Package sqlite keeps the catalog in one SQLite file, for a lake that one process serves.
package sqlite

import (
	"context"
	"errors"
	"log/slog"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// DB is a catalog in a SQLite file.
type DB struct{ catalog.Catalog }

// Open opens or creates the catalog at path and brings its tables up to date.
func Open(ctx context.Context, path string, log *slog.Logger) (*DB, error) {
	return nil, errors.New("not there yet")
}
