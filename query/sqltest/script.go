package sqltest

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the results of the statements into the scripts")

// RunScripts runs every script that matches the pattern, such as testdata/*.test, as a sub-test.
//
// A script is a list of blocks with empty lines between them. A block that begins with # is a comment. Any other block begins
// with its kind, then has the statement, a line of four dashes, and what must come out:
//
//	query
//	SELECT a, 'x|y' AS b FROM (VALUES (1), (NULL)) v(a)
//	----
//	a i32|b str
//	1|x\|y
//	NULL|x\|y
//
//	error
//	SELEC 1
//	----
//	SQL error: syntax error
//
// A query gives names and types of columns, then rows in order. An error's text must contain each of the lines. Running the
// tests with -update writes what came out in place of what must come out.
func RunScripts(t *testing.T, pattern string, exec Executor) {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no scripts match %s (%v)", pattern, err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) { runScript(t, path, exec) })
	}
}

// block is a statement of a script with its expectation, or a comment.
type block struct {
	line int
	kind string // query, error, or # for a comment
	sql  string // or the text of the comment
	want []string
}

func runScript(t *testing.T, path string, exec Executor) {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := parseScript(string(data))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	for i := range blocks {
		b := &blocks[i]
		if b.kind == "#" {
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		got, complaint := b.run(ctx, exec)
		cancel()
		if complaint != "" && *update {
			b.want = got
		} else if complaint != "" {
			t.Errorf("%s:%d: %s\n%s", path, b.line, b.sql, complaint)
		}
	}
	if *update {
		if err := os.WriteFile(path, printScript(blocks), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// run executes the block and returns what came out, with a complaint when it is not what must come out.
func (b *block) run(ctx context.Context, exec Executor) (got []string, complaint string) {
	res, err := exec(ctx, b.sql)
	if b.kind == "error" {
		if err == nil {
			return b.want, "no error"
		}
		got = strings.Split(err.Error(), "\n")
		for _, w := range b.want {
			if !strings.Contains(err.Error(), w) {
				return got, fmt.Sprintf("got error %v\nwant %s", err, w)
			}
		}
		if len(b.want) == 0 {
			return got, "no expectation"
		}
		return got, ""
	}
	if err != nil {
		return b.want, err.Error()
	}
	got = lines(res)
	if strings.Join(got, "\n") != strings.Join(b.want, "\n") {
		return got, fmt.Sprintf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(b.want, "\n"))
	}
	return got, ""
}

// lines prints a result as scripts hold it.
func lines(res *Result) []string {
	header := make([]string, len(res.Columns))
	for i, c := range res.Columns {
		header[i] = format(c.Name) + " " + c.Type
	}
	out := []string{strings.Join(header, "|")}
	for _, row := range res.Rows {
		cells := make([]string, len(row))
		for i, v := range row {
			cells[i] = format(v)
		}
		out = append(out, strings.Join(cells, "|"))
	}
	return out
}

func parseScript(text string) ([]block, error) {
	var blocks []block
	all := strings.Split(text, "\n")
	for i := 0; i < len(all); {
		if strings.TrimSpace(all[i]) == "" {
			i++
			continue
		}
		begin := i
		for i < len(all) && strings.TrimSpace(all[i]) != "" {
			i++
		}
		b, err := parseBlock(all[begin:i])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", begin+1, err)
		}
		b.line = begin + 1
		blocks = append(blocks, b)
	}
	return blocks, nil
}

func parseBlock(text []string) (block, error) {
	if strings.HasPrefix(text[0], "#") {
		return block{kind: "#", sql: strings.Join(text, "\n")}, nil
	}
	b := block{kind: text[0]}
	if b.kind != "query" && b.kind != "error" {
		return b, fmt.Errorf("%q is neither query nor error", b.kind)
	}
	for i, line := range text {
		if line == "----" {
			b.sql, b.want = strings.Join(text[1:i], "\n"), text[i+1:]
			return b, nil
		}
	}
	b.sql = strings.Join(text[1:], "\n")
	return b, nil
}

func printScript(blocks []block) []byte {
	var out bytes.Buffer
	for i, b := range blocks {
		if i > 0 {
			out.WriteByte('\n')
		}
		if b.kind == "#" {
			out.WriteString(b.sql + "\n")
			continue
		}
		out.WriteString(b.kind + "\n" + b.sql + "\n----\n")
		for _, w := range b.want {
			out.WriteString(w + "\n")
		}
	}
	return out.Bytes()
}
