package querytest

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micromegas-go/micromegas/deploy/parts"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/postgres"
	"github.com/micromegas-go/micromegas/schemas/catalog/sqlite"
	"github.com/micromegas-go/micromegas/schemas/lake"
)

// Home is where a catalog and a bucket are: whatever runs on one must run alike on the other.
type Home struct {
	Name string
	Env  []string // tells a server process of it; empty: what a data folder has by itself

	dir     string // of the data
	catalog string // connection string; "" = SQLite in dir
	bucket  string // URI
}

// EachHome runs a test on a SQLite file and a folder, and on a PostgreSQL and an S3 server of its own. dir is a new folder for
// the data of each.
func EachHome(t *testing.T, dir func(testing.TB) string, test func(t *testing.T, h *Home)) {
	t.Run("SQLite and folder", func(t *testing.T) { test(t, LocalHome(t, dir(t))) })
	t.Run("PostgreSQL and S3", func(t *testing.T) { test(t, RemoteHome(t, dir(t))) })
}

// LocalHome is a data folder as a single process keeps it.
func LocalHome(t testing.TB, dir string) *Home {
	t.Helper()
	uri, err := lake.FolderURI(filepath.Join(dir, "lake"))
	check(t, err)
	return &Home{Name: "local", dir: dir, bucket: uri}
}

// RemoteHome starts the servers, which end with the test. The test is skipped where there is no PostgreSQL, and fails there under
// CI=true.
func RemoteHome(t testing.TB, dir string) *Home {
	t.Helper()
	pg, err := parts.StartPostgres(t.Context(), filepath.Join(dir, "postgres"), parts.PostgresOptions{})
	if errors.Is(err, parts.ErrNotInstalled) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	check(t, err)
	t.Cleanup(func() { check(t, pg.Stop()) })
	s3, err := parts.StartS3(t.Context(), filepath.Join(dir, "s3"))
	check(t, err)
	t.Cleanup(func() { check(t, s3.Stop()) })
	h := &Home{Name: "remote", dir: dir, catalog: pg.URL("micromegas"), bucket: s3.URI("lake")}
	h.Env = append(s3.Env(), "MICROMEGAS_SQL_CONNECTION_STRING="+h.catalog, "MICROMEGAS_OBJECT_STORE_URI="+h.bucket)
	for _, e := range s3.Env() { // the test opens the bucket too
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value)
	}
	return h
}

// Dir is the folder for a server's data.
func (h *Home) Dir() string { return h.dir }

// OpenCatalog opens the catalog. The caller closes it.
func (h *Home) OpenCatalog(t testing.TB) catalog.Catalog {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	if h.catalog != "" {
		db, err := postgres.Open(t.Context(), h.catalog, log)
		check(t, err)
		return db
	}
	db, err := sqlite.Open(t.Context(), filepath.Join(h.dir, "catalog.db"), log)
	check(t, err)
	return db
}

// OpenLake opens the bucket. The caller closes it.
func (h *Home) OpenLake(t testing.TB) *lake.Lake {
	t.Helper()
	l, err := lake.Open(t.Context(), h.bucket, lake.Options{CacheDir: filepath.Join(h.dir, "cache", "lake")})
	check(t, err)
	return l
}
