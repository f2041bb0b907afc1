package output

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
)

const (
	// sampleRows is how many rows are held back to find the widths of a table's columns. Later cells that are wider
	// stand out rather than being cut.
	sampleRows = 1000
	// maxWidth is the widest that a table's column gets; longer cells of the last column run on, others are cut.
	maxWidth = 80
)

// tableWriter writes columns under a header line, numbers to the right.
type tableWriter struct {
	w      io.Writer
	names  []string
	right  []bool
	widths []int
	held   [][]string
	ready  bool
	line   []byte
}

func newTableWriter(w io.Writer, schema *arrow.Schema) *tableWriter {
	t := &tableWriter{w: w}
	for _, f := range schema.Fields() {
		t.names = append(t.names, f.Name)
		t.right = append(t.right, isNumber(f.Type))
		t.widths = append(t.widths, utf8.RuneCountInString(f.Name))
	}
	return t
}

func isNumber(t arrow.DataType) bool {
	id := t.ID()
	return arrow.IsInteger(id) || arrow.IsFloating(id) || arrow.IsDecimal(id)
}

func (t *tableWriter) write(b arrow.RecordBatch) error {
	for row := range int(b.NumRows()) {
		cells := make([]string, b.NumCols())
		for i := range cells {
			cells[i] = oneLine(string(appendOrNull(nil, b.Column(i), row)))
		}
		if t.ready {
			if err := t.writeLine(cells); err != nil {
				return err
			}
			continue
		}
		for i, c := range cells {
			t.widths[i] = max(t.widths[i], min(utf8.RuneCountInString(c), maxWidth))
		}
		t.held = append(t.held, cells)
		if len(t.held) == sampleRows {
			if err := t.release(); err != nil {
				return err
			}
		}
	}
	return nil
}

// release writes the header and what was held back.
func (t *tableWriter) release() error {
	t.ready = true
	if err := t.writeLine(t.names); err != nil {
		return err
	}
	rule := make([]string, len(t.names))
	for i, width := range t.widths {
		rule[i] = strings.Repeat("-", width)
	}
	if err := t.writeLine(rule); err != nil {
		return err
	}
	for _, cells := range t.held {
		if err := t.writeLine(cells); err != nil {
			return err
		}
	}
	t.held = nil
	return nil
}

func (t *tableWriter) writeLine(cells []string) error {
	t.line = t.line[:0]
	for i, c := range cells {
		if i > 0 {
			t.line = append(t.line, "  "...)
		}
		last := i == len(cells)-1
		n := utf8.RuneCountInString(c)
		if n > maxWidth && !last {
			c, n = cut(c, maxWidth-1)+"…", maxWidth
		}
		pad := max(0, t.widths[i]-n)
		if t.right[i] {
			t.line = append(t.line, strings.Repeat(" ", pad)...)
			pad = 0
		}
		t.line = append(t.line, c...)
		if !last {
			t.line = append(t.line, strings.Repeat(" ", pad)...)
		}
	}
	t.line = append(t.line, '\n')
	_, err := t.w.Write(t.line)
	return err
}

func (t *tableWriter) close() error {
	if t.ready {
		return nil
	}
	return t.release()
}

// cut returns the first n characters of s.
func cut(s string, n int) string {
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

// oneLine replaces characters that would break a table, or drive a terminal, by visible ones.
func oneLine(s string) string {
	if strings.IndexFunc(s, unicode.IsControl) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case unicode.IsControl(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// csvWriter writes RFC 4180 with a header line.
type csvWriter struct {
	w     *csv.Writer
	cells []string
}

func newCSVWriter(w io.Writer, schema *arrow.Schema) (writer, error) {
	c := &csvWriter{w: csv.NewWriter(w), cells: make([]string, schema.NumFields())}
	for i, f := range schema.Fields() {
		c.cells[i] = f.Name
	}
	return c, c.w.Write(c.cells)
}

func (c *csvWriter) write(b arrow.RecordBatch) error {
	var text []byte
	for row := range int(b.NumRows()) {
		for i := range c.cells {
			c.cells[i] = ""
			if a := b.Column(i); a.IsValid(row) {
				text = appendCell(text[:0], a, row)
				c.cells[i] = string(text)
			}
		}
		if err := c.w.Write(c.cells); err != nil {
			return err
		}
	}
	return nil
}

func (c *csvWriter) close() error {
	c.w.Flush()
	return c.w.Error()
}

// jsonWriter writes an array of objects, a line each.
type jsonWriter struct {
	w     io.Writer
	names [][]byte // quoted, with the colon
	any   bool
	line  []byte
}

func newJSONWriter(w io.Writer, schema *arrow.Schema) *jsonWriter {
	j := &jsonWriter{w: w}
	for _, f := range schema.Fields() {
		j.names = append(j.names, append(appendQuoted(nil, f.Name), ':'))
	}
	return j
}

func (j *jsonWriter) write(b arrow.RecordBatch) error {
	for row := range int(b.NumRows()) {
		j.line = append(j.line[:0], ",\n{"...)
		if !j.any {
			j.line = append(j.line[:0], "[\n{"...)
			j.any = true
		}
		for i, name := range j.names {
			if i > 0 {
				j.line = append(j.line, ',')
			}
			j.line = append(j.line, name...)
			j.line = appendJSON(j.line, b.Column(i), row)
		}
		j.line = append(j.line, '}')
		if _, err := j.w.Write(j.line); err != nil {
			return err
		}
	}
	return nil
}

func (j *jsonWriter) close() error {
	end := "\n]\n"
	if !j.any {
		end = "[]\n"
	}
	_, err := io.WriteString(j.w, end)
	return err
}

// appendQuoted appends s as a JSON string.
func appendQuoted(dst []byte, s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil { // text always encodes
		return append(dst, `""`...)
	}
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
}
