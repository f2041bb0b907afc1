package query_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/micromegas-go/micromegas/query/client"
	"github.com/micromegas-go/micromegas/query/dialect"
	"github.com/micromegas-go/micromegas/query/querytest"
	"github.com/micromegas-go/micromegas/schemas/tables"
)

// canary is in the files that no statement may read.
const canary = "canary-5a1f"

// anyTable is the catalog of the service: the view sets.
type anyTable struct{}

func (anyTable) Table(name string) (*tables.Table, bool) { return tables.Lookup(name) }

func (anyTable) Names() []string { return nil }

// TestEscapesAreRefused sends every statement of testdata/escapes the whole way. The files that they name are in a folder
// which the engine may read, so that only the dialect stands between.
func TestEscapesAreRefused(t *testing.T) {
	e := querytest.Start(t, querytest.Options{})
	e.Fixture(t)
	c := e.Dial(t, "")
	dir := filepath.Join(e.Lake.Root(), "escapes")
	file := filepath.Join(dir, "canary.csv")
	for name, text := range map[string]string{file: "a\n" + canary + "\n", filepath.Join(dir, "a.parquet"): "PAR1" + canary} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir) // relative names would find them, too
	statements := 0
	try := func(line string) (passed bool) {
		statements++
		sql := strings.NewReplacer("FILE", file, "DIR", dir, `\n`, "\n").Replace(strings.TrimPrefix(line, "~ "))
		_, err := dialect.Rewrite(t.Context(), e.Engine, anyTable{}, sql, dialect.Options{Eval: e.Engine.Eval})
		if _, refused := errors.AsType[*dialect.Error](err); !refused && err != nil {
			t.Errorf("%s\nis refused without a type: %v", line, err)
		}
		passed = err == nil
		got, err := ask(t.Context(), c, sql, client.QueryOptions{})
		if code := status.Code(err); code != codes.OK && code != codes.InvalidArgument && code != codes.Unimplemented {
			t.Errorf("%s\nfails with %v", line, err)
		}
		if strings.Contains(got, canary) || err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("%s\nread the file: %q, %v", line, got, err)
		}
		return err == nil || passed && !strings.HasPrefix(line, "~ ")
	}
	for _, list := range []string{"files.txt", "engine.txt"} {
		for _, line := range readLines(t, filepath.Join(escapesDir, list)) {
			if try(line) {
				t.Errorf("%s\nis not refused", line)
			}
		}
	}
	for _, line := range readLines(t, filepath.Join(escapesDir, "quoting.txt")) {
		try(line)
	}
	if got, err := ask(t.Context(), c, "SELECT count(*) FROM log_entries", client.QueryOptions{}); err != nil || got == "0" {
		t.Errorf("afterwards: %q, %v", got, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("files beside the two: %v, %v", entries, err)
	}
	if statements < 400 {
		t.Errorf("only %d statements", statements)
	}
}

// escapesDir is found before the test changes folders.
var escapesDir = func() string {
	dir, err := filepath.Abs(filepath.Join("testdata", "escapes"))
	if err != nil {
		panic(err)
	}
	return dir
}()

// readLines returns the lines of a file without comments.
func readLines(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSuffix(line, "\n"); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines
}
