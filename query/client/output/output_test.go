package output_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/query/client/output"
	"github.com/micromegas-go/micromegas/query/functions/jsonb"
)

// source gives batches.
type source struct {
	schema  *arrow.Schema
	batches []arrow.RecordBatch
	err     error
}

func (s *source) Schema() *arrow.Schema { return s.schema }

func (s *source) Next() (arrow.RecordBatch, error) {
	if len(s.batches) == 0 {
		if s.err != nil {
			return nil, s.err
		}
		return nil, io.EOF
	}
	b := s.batches[0]
	s.batches = s.batches[1:]
	return b, nil
}

// sample has two rows of every kind of column that servers send, one of them NULLs.
func sample(t testing.TB) *source {
	t.Helper()
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "time", Type: &arrow.TimestampType{Unit: arrow.Nanosecond, TimeZone: "+00:00"}, Nullable: true},
		{Name: "msg", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "props", Type: arrow.BinaryTypes.Binary, Nullable: true},
		{Name: "n", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
		{Name: "x", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
		{Name: "tags", Type: arrow.ListOf(arrow.BinaryTypes.String), Nullable: true},
		{Name: "d", Type: arrow.FixedWidthTypes.Duration_ns, Nullable: true},
		{Name: "kind", Type: &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}, Nullable: true},
		{Name: "ok", Type: arrow.FixedWidthTypes.Boolean, Nullable: true},
	}, nil)
	doc, err := jsonb.AppendText(nil, `{"a":[1,"ü"]}`)
	if err != nil {
		t.Fatal(err)
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	b.Field(0).(*array.TimestampBuilder).Append(arrow.Timestamp(time.Date(2026, 3, 1, 10, 0, 0, 1, time.UTC).UnixNano()))
	b.Field(1).(*array.StringBuilder).Append("two\nlines, \"quoted\" \x1b[31m")
	b.Field(2).(*array.BinaryBuilder).Append(doc)
	b.Field(3).(*array.Int64Builder).Append(-7)
	b.Field(4).(*array.Float64Builder).Append(1.5)
	l := b.Field(5).(*array.ListBuilder)
	l.Append(true)
	l.ValueBuilder().(*array.StringBuilder).AppendValues([]string{"log", "x"}, nil)
	b.Field(6).(*array.DurationBuilder).Append(arrow.Duration(1500 * time.Millisecond))
	if err := b.Field(7).(*array.BinaryDictionaryBuilder).AppendString("k"); err != nil {
		t.Fatal(err)
	}
	b.Field(8).(*array.BooleanBuilder).Append(true)
	for _, f := range b.Fields() {
		f.AppendNull()
	}
	return &source{schema: schema, batches: []arrow.RecordBatch{b.NewRecordBatch()}}
}

func write(t testing.TB, f output.Format, s *source) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := output.Write(&b, f, s)
	if err != nil || n != 2 {
		t.Fatalf("%s: %d rows, %v", f, n, err)
	}
	return b.Bytes()
}

func TestTable(t *testing.T) {
	want := strings.Join([]string{
		`time                            msg                                   props            n    x  tags      d     kind  ok`,
		`------------------------------  ------------------------------------  -------------  ----  ----  --------  ----  ----  ----`,
		`2026-03-01T10:00:00.000000001Z  two\nlines, "quoted" \u001b[31m       {"a":[1,"ü"]}    -7   1.5  [log, x]  1.5s  k     true`,
		`NULL                            NULL                                  NULL           NULL  NULL  NULL      NULL  NULL  NULL`,
	}, "\n") + "\n"
	squeeze := func(s string) string {
		var lines []string
		for line := range strings.Lines(s) {
			lines = append(lines, strings.Join(strings.Fields(strings.ReplaceAll(line, "-", "")), " "))
		}
		return strings.Join(lines, "\n")
	}
	got := string(write(t, output.Table, sample(t)))
	if diff := cmp.Diff(squeeze(want), squeeze(got)); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
	if strings.ContainsRune(got, '\x1b') || len(lines) != 4 {
		t.Errorf("a cell breaks the table:\n%s", got)
	}
	if col := strings.Index(lines[0], " props"); strings.Index(lines[2], " {") != col {
		t.Errorf("columns do not line up:\n%s", got)
	}
}

func TestCSV(t *testing.T) {
	records, err := csv.NewReader(bytes.NewReader(write(t, output.CSV, sample(t)))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{
		{"time", "msg", "props", "n", "x", "tags", "d", "kind", "ok"},
		{"2026-03-01T10:00:00.000000001Z", "two\nlines, \"quoted\" \x1b[31m", `{"a":[1,"ü"]}`, "-7", "1.5", "[log, x]", "1.5s", "k", "true"},
		{"", "", "", "", "", "", "", "", ""},
	}
	if diff := cmp.Diff(want, records); diff != "" {
		t.Errorf("CSV (-want +got):\n%s", diff)
	}
}

func TestJSON(t *testing.T) {
	var got []map[string]any
	if err := json.Unmarshal(write(t, output.JSON, sample(t)), &got); err != nil {
		t.Fatal(err)
	}
	null := map[string]any{}
	for _, f := range sample(t).schema.Fields() {
		null[f.Name] = nil
	}
	want := []map[string]any{{
		"time": "2026-03-01T10:00:00.000000001Z", "msg": "two\nlines, \"quoted\" \x1b[31m", "props": map[string]any{"a": []any{1.0, "ü"}},
		"n": -7.0, "x": 1.5, "tags": []any{"log", "x"}, "d": 1.5e9, "kind": "k", "ok": true,
	}, null}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
	var b bytes.Buffer
	if _, err := output.Write(&b, output.JSON, &source{schema: sample(t).schema}); err != nil || b.String() != "[]\n" {
		t.Errorf("no rows: %q %v", b.String(), err)
	}
}

func TestArrowAndParquet(t *testing.T) {
	r, err := ipc.NewReader(bytes.NewReader(write(t, output.Arrow, sample(t))))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	if !r.Next() || !array.RecordEqual(r.RecordBatch(), sample(t).batches[0]) {
		t.Error("Arrow: other rows come back")
	}
	table, err := pqarrow.ReadTable(t.Context(), bytes.NewReader(write(t, output.Parquet, sample(t))),
		parquet.NewReaderProperties(memory.DefaultAllocator), pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Release()
	if table.NumRows() != 2 || table.NumCols() != 9 {
		t.Errorf("Parquet: %d rows of %d columns", table.NumRows(), table.NumCols())
	}
}

func TestErrorsAreReturned(t *testing.T) {
	broken := errors.New("broken")
	for _, f := range output.Formats() {
		s := sample(t)
		s.err = broken
		if _, err := output.Write(io.Discard, f, s); !errors.Is(err, broken) {
			t.Errorf("%s: %v", f, err)
		}
		if _, err := output.Write(failing{}, f, sample(t)); err == nil {
			t.Errorf("%s: a full disk goes unnoticed", f)
		}
	}
	if _, err := output.ParseFormat("xml"); err == nil || !strings.Contains(err.Error(), "table, csv, json, arrow, parquet") {
		t.Errorf("error %v", err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestProgressAppearsAndGoes(t *testing.T) {
	var b syncBuffer
	p := output.NewProgress(&b)
	shows := func(text string) {
		t.Helper()
		for end := time.Now().Add(5 * time.Second); !strings.Contains(b.String(), text); {
			if time.Now().After(end) {
				t.Fatalf("no %q: %q", text, b.String())
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	p.Building(3, 17)
	shows(" s, 3 of 17 blocks decoded, 0 rows")
	p.Describe(func() string { return "2.5 MB" })
	rows := p.Watch(sample(t), true)
	shows(" s, 2.5 MB")
	if _, err := rows.Next(); err != nil {
		t.Fatal(err)
	}
	p.Stop()
	p.Stop()
	if got := b.String(); !strings.HasSuffix(got, "\r\x1b[K") {
		t.Errorf("the line stays: %q", got)
	}
}
