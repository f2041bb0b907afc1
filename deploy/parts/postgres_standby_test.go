package parts_test

import (
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/micromegas-go/micromegas/deploy/parts"
)

// TestStandbyTakesOver loses the primary right after a commit: the promoted standby has it, and takes the next one.
func TestStandbyTakesOver(t *testing.T) {
	primary := startPostgres(t, parts.PostgresOptions{})
	url := primary.URL("shop")
	standby, err := parts.StartStandby(t.Context(), filepath.Join(t.TempDir(), "standby"), primary)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { standby.Stop() })
	if err := primary.Synchronous(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec := func(url, statement string) {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context())
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	exec(url, "CREATE TABLE sold AS SELECT 1 AS n")
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec(standby.URL("shop"), "INSERT INTO sold SELECT 2 / count(*) FROM sold") // fails when the row is not there
}
