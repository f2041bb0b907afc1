package engine_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micromegas-go/micromegas/query/engine"
)

var update = flag.Bool("update", false, "rewrite the results in testdata")

// TestScripts runs testdata/*.test: statements as they come out of the dialect, and below each
// its rows as JSON, or its error.
//
//	SELECT 1 AS a;
//	---- a: int64
//	{"a":1}
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.test")
	if err != nil || len(files) == 0 {
		t.Fatalf("scripts: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c := conn(t, open(t, nil))
			var out strings.Builder
			for block := range strings.SplitSeq(strings.TrimSpace(string(data)), "\n\n") {
				got := runBlock(t, c, block)
				out.WriteString(got + "\n\n")
				if got != block && !*update {
					t.Errorf("got:\n%s\nwant:\n%s", got, block)
				}
			}
			if *update {
				text := strings.TrimSpace(out.String()) + "\n"
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// runBlock returns the block with the results of now.
func runBlock(t *testing.T, c *engine.Conn, block string) string {
	head, rest := "", block
	for strings.HasPrefix(rest, "#") {
		line, tail, _ := strings.Cut(rest, "\n")
		head, rest = head+line+"\n", tail
	}
	sql, _, _ := strings.Cut(rest, "\n----")
	if sql = strings.TrimSpace(sql); sql == "" {
		return block
	}
	return head + sql + "\n" + runStatement(t, c, sql)
}

func runStatement(t *testing.T, c *engine.Conn, sql string) string {
	if strings.HasPrefix(sql, "CREATE") {
		if err := c.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
		return "---- ok"
	}
	res, err := c.Query(t.Context(), sql, engine.QueryOptions{})
	if err != nil {
		return errorLine(err)
	}
	defer res.Close()
	var types []string
	for _, f := range res.Schema().Fields() {
		types = append(types, f.Name+": "+f.Type.String())
	}
	out, err := drain(t, res)
	if err != nil {
		return errorLine(err)
	}
	return strings.TrimSpace("---- " + strings.Join(types, ", ") + "\n" + strings.Join(out, "\n"))
}

func errorLine(err error) string {
	var e *engine.Error
	if !errors.As(err, &e) {
		return "---- ERROR " + err.Error()
	}
	message, _, _ := strings.Cut(e.Message, "\n")
	return "---- ERROR " + e.Class.String() + ": " + message
}
