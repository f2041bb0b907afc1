package functions

import "strings"

// arrowNames of DuckDB's plain types.
var arrowNames = map[string]string{
	"BIGINT": "Int64", "INTEGER": "Int32", "SMALLINT": "Int16", "TINYINT": "Int8",
	"UBIGINT": "UInt64", "UINTEGER": "UInt32", "USMALLINT": "UInt16", "UTINYINT": "UInt8",
	"HUGEINT": "Int64", "UHUGEINT": "Int64", "DOUBLE": "Float64", "FLOAT": "Float32", "BOOLEAN": "Boolean",
	"BLOB": "Binary", "BIT": "Binary", "UUID": "Utf8", "DATE": "Date32", "TIME": "Time64(µs)", "TIME_NS": "Time64(ns)",
	"JSON": "Dictionary(Int32, Binary)", `"NULL"`: "Null", "NULL": "Null", "INTERVAL": "Interval(MonthDayNano)",
	"TIMESTAMP": timestampName, "TIMESTAMP_NS": timestampName, "TIMESTAMP_MS": timestampName, "TIMESTAMP_S": timestampName,
	"TIMESTAMP WITH TIME ZONE": timestampName,
}

const timestampName = `Timestamp(ns, "+00:00")`

// arrowName gives the name of the Arrow type that clients see of a DuckDB type; texts have the
// name of the second argument.
func arrowName(in *Args, out *Out) error {
	out.Text = arrowTypeName(in.Text[0], in.Text[1])
	return nil
}

func arrowTypeName(name, text string) string {
	if name == "VARCHAR" {
		return strings.Clone(text)
	}
	if a, ok := arrowNames[name]; ok {
		return a
	}
	switch {
	case strings.HasSuffix(name, "]"): // a list or an array
		return "List(" + arrowTypeName(name[:strings.LastIndexByte(name, '[')], "Utf8") + ")"
	case strings.HasPrefix(name, "STRUCT("):
		fields := splitFields(inside(name))
		for i, f := range fields {
			n, t := splitField(f)
			fields[i] = `"` + n + `": ` + arrowTypeName(t, "Utf8")
		}
		return "Struct(" + strings.Join(fields, ", ") + ")"
	case strings.HasPrefix(name, "MAP("):
		fields := splitFields(inside(name))
		for i, f := range fields {
			fields[i] = arrowTypeName(f, "Utf8")
		}
		return "Map(" + strings.Join(fields, ", ") + ")"
	case strings.HasPrefix(name, "DECIMAL("):
		return "Float64"
	case strings.HasPrefix(name, "ENUM("):
		return "Utf8"
	default:
		return strings.Clone(name)
	}
}

// inside returns what the outer parentheses of a type's name hold.
func inside(name string) string {
	return strings.TrimSuffix(name[strings.IndexByte(name, '(')+1:], ")")
}

// splitFields splits at the commas outside of parentheses and quotes.
func splitFields(s string) []string {
	var out []string
	depth, begin, quoted := 0, 0, false
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			out = append(out, strings.TrimSpace(s[begin:i]))
			begin = i + 1
		}
	}
	return append(out, strings.TrimSpace(s[begin:]))
}

// splitField splits a struct's field into its name, without quotes, and its type.
func splitField(f string) (name, typ string) {
	if !strings.HasPrefix(f, `"`) {
		name, typ, _ = strings.Cut(f, " ")
		return name, typ
	}
	for i := 1; i < len(f); i++ {
		if f[i] != '"' {
			continue
		}
		if i+1 < len(f) && f[i+1] == '"' { // a quote in the name
			i++
			continue
		}
		return strings.ReplaceAll(f[1:i], `""`, `"`), strings.TrimSpace(f[i+1:])
	}
	return f, ""
}
