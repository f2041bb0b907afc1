package query_test

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/deploy/pyclient"
	"github.com/micromegas-go/micromegas/query"
	"github.com/micromegas-go/micromegas/query/dialect"
	"github.com/micromegas-go/micromegas/query/querytest"
	"github.com/micromegas-go/micromegas/query/sqltest"
)

// ours is the folder of the statements that are our own.
const ours = "sqltest/testdata/dialect"

//go:embed testdata/ask.py
var askScript string

// question is one statement for the Python client.
type question struct {
	SQL          string `json:"sql"`
	Dictionaries bool   `json:"dictionaries"` // the client was made with preserve_dictionary=True
}

// answer is what the Python client got: the table of query_arrow as an IPC stream, and what else of it differs between
// the client's methods; or the exception.
type answer struct {
	Error    string   `json:"error"`   // its class
	Message  string   `json:"message"` // its text
	Arrow    []byte   `json:"arrow"`
	Prepared string   `json:"prepared"` // how the schema of prepare_statement differs
	Columns  []string `json:"columns"`  // of the data frame
	Dtypes   []string `json:"dtypes"`
	Rows     int      `json:"rows"`
}

// askTimeout bounds the run of the Python process over all questions.
const askTimeout = time.Minute

// askPython puts all questions to the server through one process with the Python client.
func askPython(t *testing.T, address string, questions []question) []answer {
	t.Helper()
	python := pyclient.Python(t)
	var in, out, diagnostics bytes.Buffer
	enc := json.NewEncoder(&in)
	for _, q := range questions {
		if err := enc.Encode(q); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), askTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "-c", askScript, address)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = &in, &out, &diagnostics
	if err := cmd.Run(); err != nil {
		t.Fatalf("Python: %v\n%s", err, diagnostics.Bytes())
	}
	answers := make([]answer, 0, len(questions))
	dec := json.NewDecoder(&out)
	for {
		var a answer
		switch err := dec.Decode(&a); {
		case errors.Is(err, io.EOF):
			if len(answers) != len(questions) {
				t.Fatalf("got %d answers to %d questions", len(answers), len(questions))
			}
			return answers
		case err != nil:
			t.Fatal(err)
		}
		answers = append(answers, a)
	}
}

// result decodes the table, and checks what the client's other methods made of the same statement.
func (a *answer) result() (*sqltest.Result, error) {
	if a.Error != "" {
		return nil, fmt.Errorf("%s: %s", a.Error, a.Message)
	}
	r, err := ipc.NewReader(bytes.NewReader(a.Arrow))
	if err != nil {
		return nil, fmt.Errorf("read the table: %w", err)
	}
	defer r.Release()
	got := &sqltest.Result{}
	got.Append(r.Schema(), nil)
	for r.Next() {
		got.Append(r.Schema(), r.RecordBatch())
	}
	if err := r.Err(); err != nil {
		return nil, fmt.Errorf("read the table: %w", err)
	}
	if a.Prepared != "" {
		return nil, fmt.Errorf("prepare_statement has another schema: %s", a.Prepared)
	}
	return got, a.checkFrame(got)
}

// checkFrame compares the data frame of client.query with the table.
func (a *answer) checkFrame(table *sqltest.Result) error {
	if a.Rows != len(table.Rows) || len(a.Columns) != len(table.Columns) {
		return fmt.Errorf("data frame of %d rows and %d columns, want %d and %d", a.Rows, len(a.Columns), len(table.Rows), len(table.Columns))
	}
	for i, c := range table.Columns {
		if a.Columns[i] != c.Name {
			return fmt.Errorf("column %d of the data frame is %s, want %s", i+1, a.Columns[i], c.Name)
		}
		want, ok := dtypes[c.Type]
		if ok && a.Dtypes[i] != want && a.Dtypes[i] != "category" && !nullable(table, i) {
			return fmt.Errorf("column %s of type %s has dtype %s, want %s", c.Name, c.Type, a.Dtypes[i], want)
		}
	}
	return nil
}

// nullable says whether a column holds a NULL, for which pandas takes a wider type.
func nullable(table *sqltest.Result, column int) bool {
	for _, row := range table.Rows {
		if row[column] == nil {
			return true
		}
	}
	return false
}

// dtypes are the types that pandas gives to columns.
var dtypes = map[string]string{
	"ts": "datetime64[ns, UTC]", "dur": "timedelta64[ns]", "i16": "int16", "i32": "int32", "i64": "int64", "u32": "uint32",
	"u64": "uint64", "f64": "float64", "bool": "bool", "bin": "object", "list<str>": "object", "struct": "object",
}

// startPublished starts a server, at a home or with a folder of its own, whose relations are those that the published statements are written for. The function
// returns the number of statements that came as far as their relations.
func startPublished(t *testing.T, home *querytest.Home) (address string, passed func() int64) {
	t.Helper()
	var n atomic.Int64
	e := querytest.Start(t, querytest.Options{Home: home, Service: func(s *query.Service) {
		query.UseRelations(s, sqltest.FixtureNames{}, func(st *dialect.Statement) map[string]string {
			n.Add(1)
			return fixtureRelations(st)
		})
	}})
	sqltest.LoadFixture(t, e.Engine)
	return e.Address, n.Load
}

// fixtureRelations finds what a statement names among the tables of the fixture, which have the same names.
func fixtureRelations(st *dialect.Statement) map[string]string {
	const from = `FROM memory.main."%s"`
	relations := make(map[string]string)
	for _, t := range st.Tables {
		relations[t.ViewName] = fmt.Sprintf(from, t.Name)
	}
	for _, v := range st.Instances {
		relations[v.ViewName] = fmt.Sprintf(from, v.ViewName)
	}
	for _, f := range st.Functions {
		relations[f.ViewName] = sqltest.FixtureFunction(f.Name)
	}
	return relations
}

// published is one statement of a file with the check of its answer.
type published struct {
	file string
	sqltest.Case
	question
	check func(sqltest.Case, *answer) error
}

func (p *published) name() string {
	name := fmt.Sprintf("%s line %d", p.file, p.Line)
	if p.Dictionaries {
		name += " with dictionaries"
	}
	return name
}

// rows makes a check of the rows of an answer.
func rows(check func(sqltest.Case, *sqltest.Result) error) func(sqltest.Case, *answer) error {
	return func(c sqltest.Case, a *answer) error {
		got, err := a.result()
		if err != nil {
			return err
		}
		return check(c, got)
	}
}

// readPublished returns the statements of a file, at least so many.
func readPublished(t *testing.T, path string, least int, dictionaries bool, check func(sqltest.Case, *answer) error) []published {
	t.Helper()
	cases, err := sqltest.ReadCases(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(cases) < least {
		t.Fatalf("read %d statements of %s, want %d", len(cases), path, least)
	}
	var out []published
	for _, c := range cases {
		if !strings.HasPrefix(c.SQL, "CREATE OR REPLACE TABLE x ") && sqltest.Unfit(c) == "" {
			out = append(out, published{filepath.Base(path), c, question{c.SQL, dictionaries}, check})
		}
	}
	return out
}

// runPublished asks all statements and checks the answers.
func runPublished(t *testing.T, address string, all []published) {
	t.Helper()
	questions := make([]question, len(all))
	for i := range all {
		questions[i] = all[i].question
	}
	answers := askPython(t, address, questions)
	for i := range all {
		if err := all[i].check(all[i].Case, &answers[i]); err != nil {
			t.Errorf("%s: %s\n%v", all[i].name(), all[i].question.SQL, err)
		}
	}
}

// TestPublishedStatementsInPython runs the statements about logs, processes, measures, spans, metadata and administration
// through the Python client, as it is by default and with preserve_dictionary.
func TestPublishedStatementsInPython(t *testing.T) {
	querytest.EachHome(t, testing.TB.TempDir, testPublishedStatementsInPython)
}

func testPublishedStatementsInPython(t *testing.T, home *querytest.Home) {
	dir := sqltest.SpecDir(t)
	address, _ := startPublished(t, home)
	var all []published
	for _, f := range []struct {
		name  string
		least int
	}{{"10_logs_and_processes.sql", 82}, {"11_measures.sql", 19}, {"12_spans_async_net_images.sql", 73}, {"13_metadata_and_admin.sql", 55}} {
		path := filepath.Join(dir, f.name)
		all = append(all, readPublished(t, path, f.least, false, rows(sqltest.CheckShape))...)
		all = append(all, readPublished(t, path, f.least, true, rows(checkDictionaries))...)
	}
	runPublished(t, address, all)
}

// checkDictionaries is for answers with dictionaries, in which JSONB documents come as such. Those of parse_block do not:
// each of its rows has another.
func checkDictionaries(c sqltest.Case, got *sqltest.Result) error {
	if strings.Contains(c.SQL, "FROM parse_block(") {
		return sqltest.CheckShape(c, got)
	}
	return sqltest.CheckExactShape(c, got)
}

// TestExpressionsInPython runs expressions and statements with their values through the Python client.
func TestExpressionsInPython(t *testing.T) {
	querytest.EachHome(t, testing.TB.TempDir, testExpressionsInPython)
}

func testExpressionsInPython(t *testing.T, home *querytest.Home) {
	address, _ := startPublished(t, home)
	all := readPublished(t, filepath.Join(ours, "expressions.sql"), 290, false, rows(sqltest.CheckValue))
	all = append(all, readPublished(t, filepath.Join(ours, "statements.sql"), 55, false, rows(sqltest.CheckRows))...)
	runPublished(t, address, all)
}

// TestRefusalsInPython runs what must not run: the client gets the reason, nothing reaches the engine, and the server
// goes on.
func TestRefusalsInPython(t *testing.T) {
	querytest.EachHome(t, testing.TB.TempDir, testRefusalsInPython)
}

func testRefusalsInPython(t *testing.T, home *querytest.Home) {
	address, passed := startPublished(t, home)
	all := readPublished(t, filepath.Join(ours, "refused.sql"), 50, false, func(c sqltest.Case, a *answer) error {
		want := c.Expected()
		if strings.HasPrefix(want, "a scope trick") {
			want = "table 'x.csv' not found"
		}
		return a.failed(want, "ArrowInvalid", "ArrowNotImplementedError")
	})
	runPublished(t, address, all)
	if n := passed(); n != 0 {
		t.Errorf("%d refused statements came as far as their relations", n)
	}
	runPublished(t, address, []published{{"after refusals", sqltest.Case{Comment: "=> 1 (int64)"}, question{SQL: "SELECT 1"}, rows(sqltest.CheckValue)}})
}

// TestErrorsInPython runs what fails by the client's fault.
func TestErrorsInPython(t *testing.T) {
	querytest.EachHome(t, testing.TB.TempDir, testErrorsInPython)
}

func testErrorsInPython(t *testing.T, home *querytest.Home) {
	address, _ := startPublished(t, home)
	runPublished(t, address, readPublished(t, filepath.Join(ours, "errors.sql"), 17, false, func(c sqltest.Case, a *answer) error {
		return a.failed(c.Expected(), "ArrowInvalid")
	}))
}

// failed checks that the client raised one of the classes, with a text.
func (a *answer) failed(text string, classes ...string) error {
	for _, class := range classes {
		if a.Error == class && strings.Contains(a.Message, text) && strings.Contains(a.Message, "query_id=") {
			return nil
		}
	}
	return fmt.Errorf("got %q: %q, want %s with %q", a.Error, a.Message, strings.Join(classes, " or "), text)
}

// TestTypesInPython checks what types and dtypes the client sees.
func TestTypesInPython(t *testing.T) {
	address, _ := startPublished(t, nil)
	tests := []struct {
		question
		columns string // name type dtype, …
		row     []any  // the first; nil = any
	}{
		{question{SQL: "SELECT time FROM log_entries ORDER BY time"}, "time ts datetime64[ns, UTC]", nil},
		{question{SQL: "SELECT t FROM x"}, "t ts datetime64[ns, UTC]", []any{sqltest.Time(1710591130123456789)}},
		{question{SQL: "SELECT date_trunc('hour', t) AS h, now() > t AS b FROM x"}, "h ts datetime64[ns, UTC], b bool bool", []any{sqltest.Time(1710590400000000000), true}},
		{question{SQL: "SELECT sum(nb_objects) AS n, count(*) AS c, avg(nb_objects) AS a FROM blocks"}, "n i64 int64, c i64 int64, a f64 float64", []any{int64(100), int64(4), 25.0}},
		{question{SQL: "SELECT 1.5 AS a, 1 AS b, 'x' AS c, NULL AS d"}, "a f64 float64, b i64 int64, c str object, d i32 float64", []any{1.5, int64(1), "x", nil}},
		{question{SQL: "SELECT last_block_end_time - start_time AS d FROM processes ORDER BY start_time"}, "d dur timedelta64[ns]", []any{sqltest.Duration(7200123456788)}},
		{question{SQL: "SELECT a - b AS d FROM (SELECT last_block_end_time AS a, start_time AS b FROM processes ORDER BY start_time)"}, "d dur timedelta64[ns]", []any{sqltest.Duration(7200123456788)}},
		{question{SQL: "SELECT t - timestamp '2024-03-15T00:00:00Z' AS d FROM x"}, "d dur timedelta64[ns]", []any{sqltest.Duration(130330123456789)}},
		{question{SQL: "SELECT properties FROM log_entries WHERE level = 3"}, "properties bin object", []any{[]byte("\x40\x00\x00\x00")}},
		{question{SQL: "SELECT properties, exe FROM log_entries WHERE level = 3", Dictionaries: true}, "properties jsonb category, exe str category", []any{[]byte("\x40\x00\x00\x00"), "/opt/demo/flight-app"}},
		{question{SQL: "SELECT array_agg(level ORDER BY level) AS l, array_agg(target ORDER BY target) AS t FROM log_entries WHERE level < 3"}, "l list<i32> object, t list<str> object", []any{[]any{int64(1), int64(2)}, []any{"app", "lgn::auth"}}},
		{question{SQL: "SELECT value FROM measures WHERE name = 'net.packet_sent_bits'"}, "value f64 float64", []any{math.NaN()}},
		{question{SQL: "SELECT time, level, properties FROM log_entries WHERE false"}, "time ts datetime64[ns, UTC], level i32 int32, properties bin object", nil},
		{question{SQL: "SELECT last_block_end_ticks, parent_process_id FROM processes ORDER BY start_time"}, "last_block_end_ticks i64 int64, parent_process_id str object", []any{int64(100), nil}},
		{question{SQL: "SHOW TABLES"}, "table_catalog str object, table_schema str object, table_name str object, table_type str object", []any{"datafusion", "public", "blocks", "BASE TABLE"}},
		{question{SQL: "DESCRIBE log_stats"}, "column_name str object, data_type str object, is_nullable str object", []any{"time_bin", `Timestamp(ns, "+00:00")`, "YES"}},
	}
	questions := make([]question, len(tests))
	for i := range tests {
		questions[i] = tests[i].question
	}
	for i, a := range askPython(t, address, questions) {
		got, err := a.result()
		if err != nil {
			t.Errorf("%s: %v", tests[i].SQL, err)
			continue
		}
		columns := make([]string, len(got.Columns))
		for k, c := range got.Columns {
			columns[k] = c.Name + " " + c.Type + " " + a.Dtypes[k]
		}
		if diff := cmp.Diff(tests[i].columns, strings.Join(columns, ", ")); diff != "" {
			t.Errorf("%s: columns (-want +got):\n%s", tests[i].SQL, diff)
		}
		if tests[i].row == nil {
			continue
		}
		if len(got.Rows) == 0 {
			t.Errorf("%s: no rows", tests[i].SQL)
		} else if diff := cmp.Diff(tests[i].row, got.Rows[0], equateNaNs); diff != "" {
			t.Errorf("%s: first row (-want +got):\n%s", tests[i].SQL, diff)
		}
	}
}

var equateNaNs = cmp.Comparer(func(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) })
