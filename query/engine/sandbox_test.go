package engine_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/micromegas-go/micromegas/query/engine"
)

// TestSettingsKeepStatementsInTheirFolders checks what the engine's settings hold back by
// themselves. The dialect refuses all of these statements, and more, before they come here.
func TestSettingsKeepStatementsInTheirFolders(t *testing.T) {
	root := t.TempDir()
	allowed, outside := filepath.Join(root, "cache"), filepath.Join(root, "cache-of-another")
	for _, dir := range []string{allowed, outside} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "a.csv"), []byte("x\n1\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := conn(t, open(t, func(c *engine.Config) { c.AllowedDirs = []string{allowed} }))
	if out, err := rows(t, c, fmt.Sprintf("SELECT * FROM read_csv('%s/*.csv')", allowed), engine.QueryOptions{}); err != nil || len(out) != 1 {
		t.Errorf("an allowed folder: %v, %v", out, err)
	}
	for _, sql := range []string{
		fmt.Sprintf("SELECT * FROM read_csv('%s/a.csv')", outside),
		fmt.Sprintf("SELECT * FROM '%s/a.csv'", outside),
		fmt.Sprintf("SELECT * FROM read_text('%s/../cache-of-another/a.csv')", allowed),
		fmt.Sprintf("SELECT * FROM glob('%s/*')", outside),
		fmt.Sprintf("COPY (SELECT 1) TO '%s/b.csv'", outside),
		fmt.Sprintf("ATTACH '%s/x.db'", outside),
		"SELECT * FROM read_text('/etc/passwd')",
		"SELECT * FROM read_csv('https://example.invalid/a.csv')",
		"INSTALL httpfs", "LOAD httpfs",
		"SET memory_limit = '100GB'", "SET threads = 64", "SET TimeZone = 'America/New_York'",
		"SET enable_external_access = true", "SET allowed_directories = ['/']", "RESET lock_configuration",
		"SET errors_as_json = false", "SET integer_division = false",
	} {
		if out, err := rows(t, c, sql, engine.QueryOptions{}); err == nil && len(out) > 0 {
			t.Errorf("%s: %v", sql, out)
		} else if err == nil {
			t.Errorf("%s is allowed", sql)
		}
	}
	if _, err := os.Stat(filepath.Join(outside, "b.csv")); err == nil {
		t.Error("a file outside was written")
	}
}
