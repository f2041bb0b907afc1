package sqltest

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// SpecDir returns the folder of the published statements, $MICROMEGAS_SPEC_DIR/dialect. They belong to others and are read
// from where they are. Without the variable the test is skipped, and fails under CI=true.
func SpecDir(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("MICROMEGAS_SPEC_DIR")
	if dir == "" {
		const missing = "MICROMEGAS_SPEC_DIR is not set: it names the folder with the published statements (dialect/*.sql)"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	return filepath.Join(dir, "dialect")
}

// Case is a statement of a published file with the comment above it.
type Case struct {
	Line    int
	Comment string // without dashes; lines joined by newlines
	SQL     string // without the final semicolon
}

// ReadCases reads a file of statements, each of which ends with a semicolon at the end of a line. A comment counts for
// all statements up to the next one.
func ReadCases(path string) ([]Case, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read statements: %w", err)
	}
	var cases []Case
	var comment, sql []string
	fresh := true // the next comment line begins a new comment
	start := 0
	for i, line := range strings.Split(string(data), "\n") {
		switch {
		case len(sql) == 0 && strings.HasPrefix(line, "--"):
			if fresh || strings.HasPrefix(line, "-- =>") || strings.HasPrefix(line, "-- S") {
				comment, fresh = nil, false
			}
			comment = append(comment, strings.TrimSpace(strings.TrimPrefix(line, "--")))
		case len(sql) == 0 && strings.TrimSpace(line) == "":
		case len(sql) == 0 && !startsStatement(line): // the rest of a value that holds a line break
			comment = append(comment, line)
		default:
			if len(sql) == 0 {
				start = i + 1
			}
			sql = append(sql, line)
			if text := strings.TrimSpace(strings.Join(sql, "\n")); strings.HasSuffix(text, ";") {
				if line == "SELECT 1; SELECT 2;" || strings.Count(text, ";") == 1 || !strings.Contains(text, "; ") {
					text = strings.TrimSuffix(text, ";")
				}
				cases = append(cases, Case{Line: start, Comment: strings.Join(comment, "\n"), SQL: strings.TrimSuffix(text, ";")})
				sql, fresh = nil, true
			}
		}
	}
	return cases, nil
}

// startsStatement tells a statement from the second line of an expected value.
func startsStatement(line string) bool {
	word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
	switch strings.ToUpper(strings.TrimSuffix(word, ";")) {
	case "SELECT", "WITH", "VALUES", "FROM", "SHOW", "DESCRIBE", "EXPLAIN", "COPY", "EXPORT", "ATTACH", "INSTALL", "LOAD",
		"SET", "PRAGMA", "CALL", "CREATE", "DROP", "DELETE", "INSERT", "CHECKPOINT", "PREPARE", "(SELECT":
		return true
	}
	return false
}

// Expected is the text of an "=> …" comment, without the note in brackets that may follow it.
func (c Case) Expected() string {
	s := strings.TrimSpace(strings.TrimPrefix(c.Comment, "=>"))
	if i := strings.Index(s, "   [plain DuckDB"); i >= 0 {
		s = s[:i]
	}
	for _, note := range []string{"  [engine:", " (message of", " (with the position", " (checked before", " (nested forms)", " UUID", " (the message"} {
		if i := strings.Index(s, note); i >= 0 {
			s = s[:i]
		}
	}
	return strings.TrimSpace(s)
}

// shape is "S001: 2 rows: count i64, name str" or "…: 16 columns (all columns of the view)".
var shape = regexp.MustCompile(`^(S\d+): (\d+) rows: (.*)$`)

// CheckShape compares a result with the comment of a statement of files 10 to 16: number of rows, names and types of
// columns. Names of columns that the statement leaves to the engine are compared without regard to how the engine prints
// casts, and a JSONB document may come as plain bytes, which it does unless dictionaries are asked for.
func CheckShape(c Case, got *Result) error { return checkShape(c, got, sameType) }

// CheckExactShape is CheckShape for an answer with dictionaries: a JSONB document is one of a dictionary, and nothing
// else is.
func CheckExactShape(c Case, got *Result) error {
	return checkShape(c, got, func(got, want string) bool { return got == want })
}

func checkShape(c Case, got *Result, same func(got, want string) bool) error {
	m := shape.FindStringSubmatch(c.Comment)
	if m == nil {
		return fmt.Errorf("no shape in comment %q", c.Comment)
	}
	if rows, _ := strconv.Atoi(m[2]); rows != len(got.Rows) {
		return fmt.Errorf("%s: got %d rows, want %d", m[1], len(got.Rows), rows)
	}
	if strings.HasSuffix(m[3], "(all columns of the view)") {
		n, _, _ := strings.Cut(m[3], " ")
		if want, _ := strconv.Atoi(n); want != len(got.Columns) {
			return fmt.Errorf("%s: got %d columns, want %d", m[1], len(got.Columns), want)
		}
		return nil
	}
	want := splitColumns(m[3])
	if len(want) != len(got.Columns) {
		return fmt.Errorf("%s: got columns %v, want %v", m[1], got.Columns, want)
	}
	for i, w := range want {
		if g := got.Columns[i]; !sameName(g.Name, w.Name) || !same(g.Type, w.Type) {
			return fmt.Errorf("%s: column %d: got %s %s, want %s %s", m[1], i+1, g.Name, g.Type, w.Name, w.Type)
		}
	}
	return nil
}

// sameName lets a call that has casts among its arguments be printed in another way.
func sameName(got, want string) bool {
	if got == want {
		return true
	}
	g, _, _ := strings.Cut(got, "(")
	w, args, _ := strings.Cut(want, "(")
	return g == w && strings.Contains(args, "CAST(")
}

// sameType lets a JSONB document come as plain bytes, which it does unless dictionaries are asked for.
func sameType(got, want string) bool {
	return got == want || want == "jsonb" && got == "bin" || want == "bin" && got == "jsonb"
}

// splitColumns reads "name type, name type"; a name may hold commas in parentheses and quotes.
func splitColumns(s string) []Column {
	var columns []Column
	depth, start, quoted := 0, 0, false
	add := func(part string) {
		part = strings.TrimSpace(part)
		if i := strings.LastIndexByte(part, ' '); i >= 0 {
			columns = append(columns, Column{part[:i], part[i+1:]})
		}
	}
	for i, c := range s {
		switch {
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '(', c == '<':
			depth++
		case c == ')', c == '>':
			depth--
		case c == ',' && depth == 0:
			add(s[start:i])
			start = i + 1
		}
	}
	add(s[start:])
	return columns
}

// arrowNames maps the types of file 20 that a value must have. Integers of another width are the engine's and accepted.
var arrowNames = map[string]string{
	"double": "f64", "string": "str", "bool": "bool", "binary": "bin", "timestamp[ns, tz=+00:00]": "ts", "duration[ns]": "dur",
}

// CheckValue compares the one value of a result with the comment of an expression of file 20, "=> value (type)". Numbers are
// compared to ten digits.
func CheckValue(c Case, got *Result) error {
	want := strings.TrimPrefix(c.Comment, "=> ")
	if i := strings.Index(want, "   [plain DuckDB"); i >= 0 {
		want = want[:i]
	}
	kind := ""
	if i := strings.LastIndex(want, " ("); i >= 0 && strings.HasSuffix(want, ")") {
		want, kind = want[:i], want[i+2:len(want)-1]
	}
	if len(got.Rows) != 1 || len(got.Columns) != 1 {
		return fmt.Errorf("got %d rows of %d columns, want one value", len(got.Rows), len(got.Columns))
	}
	if g := plain(got.Rows[0][0]); whole(g) != whole(want) && !sameNumber(g, want) {
		return fmt.Errorf("got %s, want %s", g, want)
	}
	if short := arrowNames[kind]; short != "" && !sameType(got.Columns[0].Type, short) && want != "None" {
		return fmt.Errorf("got type %s, want %s (%s)", got.Columns[0].Type, short, kind)
	}
	return nil
}

// whole prints whole numbers without their fraction, wherever they stand.
func whole(s string) string { return wholeNumber.ReplaceAllString(s, "$1") }

var wholeNumber = regexp.MustCompile(`(\d)\.0\b`)

// CheckRows compares a result with the comment of a statement of file 21: "=> a, b: (1.0, 'x'); (2.0, None)".
func CheckRows(c Case, got *Result) error {
	header, rows, ok := strings.Cut(strings.TrimPrefix(c.Comment, "=> "), ": ")
	if !ok {
		return fmt.Errorf("no rows in comment %q", c.Comment)
	}
	names := make([]string, len(got.Columns))
	for i := range got.Columns {
		names[i] = got.Columns[i].Name
	}
	if g := strings.Join(names, ", "); g != header {
		return fmt.Errorf("got columns %s, want %s", g, header)
	}
	want := strings.Split(rows, "; ")
	if len(want) != len(got.Rows) {
		return fmt.Errorf("got %d rows, want %d", len(got.Rows), len(want))
	}
	for i, row := range got.Rows {
		cells := make([]string, len(row))
		for k, v := range row {
			cells[k] = quotedPlain(v)
		}
		g := "(" + strings.Join(cells, ", ") + ")"
		if len(cells) == 1 {
			g = "(" + cells[0] + ",)"
		}
		if whole(g) != whole(want[i]) && !sameNumber(strings.Trim(g, "(,)"), strings.Trim(want[i], "(,)")) {
			return fmt.Errorf("row %d: got %s, want %s", i+1, g, want[i])
		}
	}
	return nil
}

// sameNumber compares to ten digits.
func sameNumber(a, b string) bool {
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	if errX != nil || errY != nil {
		return false
	}
	return x == y || math.Abs(x-y) <= 1e-9*math.Max(math.Abs(x), math.Abs(y))
}

// plain prints a value as file 20 does: numbers as floats of ten digits, timestamps as "ts n".
func plain(v any) string {
	switch v := v.(type) {
	case Time:
		return "ts " + strconv.FormatInt(int64(v), 10)
	case Duration:
		return "dur " + strconv.FormatInt(int64(v), 10)
	case string:
		return v
	}
	return quotedPlain(v)
}

// quotedPlain prints a value as Python shows it inside a tuple or a list.
func quotedPlain(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		if v {
			return "True"
		}
		return "False"
	case int64:
		return pythonFloat(float64(v))
	case uint64:
		return pythonFloat(float64(v))
	case float64:
		return pythonFloat(v)
	case Time:
		return strconv.FormatInt(int64(v), 10)
	case Duration:
		return strconv.FormatInt(int64(v), 10)
	case string:
		return "'" + v + "'"
	case []byte:
		return pythonBytes(v)
	case []any:
		return pythonList(v)
	case Struct:
		parts := make([]string, len(v))
		for i := range v {
			parts[i] = "'" + v[i].Name + "': " + listItem(v[i].Value)
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	return fmt.Sprint(v)
}

func pythonList(items []any) string {
	parts := make([]string, len(items))
	for i := range items {
		parts[i] = listItem(items[i])
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// listItem prints whole numbers inside lists as file 21 does.
func listItem(v any) string {
	switch v := v.(type) {
	case int64:
		return strconv.FormatInt(v, 10)
	case uint64:
		return strconv.FormatUint(v, 10)
	}
	return quotedPlain(v)
}

func pythonFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 0):
		return strings.ToLower(strconv.FormatFloat(f, 'g', -1, 64))
	case f == math.Trunc(f) && math.Abs(f) < 1e10:
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	return strconv.FormatFloat(f, 'g', 10, 64)
}

func pythonBytes(b []byte) string {
	var s strings.Builder
	s.WriteString("b'")
	for _, c := range b {
		switch {
		case c == '\n':
			s.WriteString(`\n`)
		case c == '\t':
			s.WriteString(`\t`)
		case c == '\r':
			s.WriteString(`\r`)
		case c == '\\' || c == '\'':
			s.WriteByte('\\')
			s.WriteByte(c)
		case c < ' ' || c >= 0x7f:
			fmt.Fprintf(&s, `\x%02x`, c)
		default:
			s.WriteByte(c)
		}
	}
	return s.String() + "'"
}

// Run executes every case of a published file as a sub-test, with check on the result.
func Run(t *testing.T, path string, exec Executor, check func(Case, *Result) error, skip func(Case) string) {
	t.Helper()
	cases, err := ReadCases(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		if strings.HasPrefix(c.SQL, "CREATE OR REPLACE TABLE x") {
			continue
		}
		t.Run(fmt.Sprintf("line%d", c.Line), func(t *testing.T) {
			if skip != nil {
				if why := skip(c); why != "" {
					t.Skip(why)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			got, err := exec(ctx, c.SQL)
			if err != nil {
				t.Fatalf("%s\n%v", c.SQL, err)
			}
			if err := check(c, got); err != nil {
				t.Errorf("%s\n%v", c.SQL, err)
			}
		})
	}
}

// Unfit names the published statements that cannot run as they stand, with the reason.
func Unfit(c Case) string {
	if strings.Contains(c.SQL, "perfetto_trace_chunks(process_id, span_types") {
		return "shows the signature: there is no table to take the columns from"
	}
	if strings.HasPrefix(c.Comment, "S354:") {
		return "wants no bins where no row is; with literal bounds there is a histogram of zeros (make_histogram over no rows)"
	}
	return ""
}
