package functions

import (
	"fmt"
	"slices"
	"strconv"
	"unsafe"

	"github.com/micromegas-go/micromegas/query/functions/jsonb"
)

func jsonScalars() []Scalar {
	return []Scalar{
		{"property_get", []Type{Text, Text}, Text, stateless(propertyGet)},
		{"properties_length", []Type{Text}, Int32, stateless(propertiesLength)},
		{"jsonb_parse", []Type{Text}, JSON, buffered(jsonbParse)},
		{"jsonb_format_json", []Type{Text}, Text, buffered(jsonbFormat)},
		{"jsonb_get", []Type{Text, Text}, JSON, stateless(jsonbGet)},
		{"jsonb_as_string", []Type{Text}, Text, stateless(jsonbAsString)},
		{"jsonb_as_f64", []Type{Text}, Float64, stateless(jsonbAsFloat)},
		{"jsonb_as_i64", []Type{Text}, Int64, stateless(jsonbAsInt)},
		{"jsonb_array_length", []Type{Text}, Int64, stateless(jsonbArrayLength)},
		{"jsonb_object_keys", []Type{Text}, TextList, stateless(jsonbObjectKeys)},
		{"jsonb_path_query", []Type{Text, Text}, JSON, func() Row { return pathQuery("jsonb_path_query", pathAll) }},
		{"jsonb_path_query_first", []Type{Text, Text}, JSON, func() Row { return pathQuery("jsonb_path_query_first", pathFirst) }},
		// Behind macros: the binary form, and the entries of objects and arrays.
		{"mm_jsonb_binary", []Type{Text}, Blob, buffered(jsonbBinary)},
		{"mm_jsonb_keys", []Type{Text}, TextList, stateless(jsonbEntryKeys)},
		{"mm_jsonb_values", []Type{Text}, JSONList, stateless(jsonbEntryValues)},
		{"mm_jsonb_elements", []Type{Text}, JSONList, stateless(jsonbElements)},
		{"mm_jsonb_texts", []Type{Text}, TextList, stateless(jsonbEntryTexts)},
	}
}

func stateless(row Row) func() Row { return func() Row { return row } }

// buffered makes a function that appends its text to a buffer it keeps. A false result is NULL.
func buffered(f func(dst []byte, doc string) ([]byte, bool, error)) func() Row {
	return func() Row {
		var buf []byte
		return func(in *Args, out *Out) error {
			b, ok, err := f(buf[:0], in.Text[0])
			buf = b
			out.Null = !ok
			out.Text = unsafe.String(unsafe.SliceData(b), len(b))
			return err
		}
	}
}

func propertyGet(in *Args, out *Out) error {
	raw, ok := jsonb.Find(in.Text[0], in.Text[1])
	if ok {
		out.Text, ok = jsonb.Text(raw)
	}
	out.Null = !ok
	return nil
}

func propertiesLength(in *Args, out *Out) error {
	n, _ := jsonb.Len(in.Text[0])
	out.Int = int64(n)
	return nil
}

func jsonbParse(dst []byte, text string) ([]byte, bool, error) {
	v, err := jsonb.Parse(text)
	if err != nil { // an invalid text is NULL, by definition of the function
		return dst, false, nil
	}
	return jsonb.AppendCanonical(dst, &v), true, nil
}

func jsonbFormat(dst []byte, doc string) ([]byte, bool, error) {
	v, err := jsonb.ParseStored(doc)
	if err != nil { // stored bytes that are no document are shown as they are
		return append(dst, doc...), true, nil
	}
	return jsonb.AppendJSON(dst, &v), true, nil
}

func jsonbBinary(dst []byte, doc string) ([]byte, bool, error) {
	dst, err := jsonb.AppendText(dst, doc)
	return dst, err == nil, err
}

func jsonbGet(in *Args, out *Out) error {
	raw, ok := jsonb.Find(in.Text[0], in.Text[1])
	out.Text, out.Null = raw, !ok
	return nil
}

// document parses a stored document; what is no document is like a missing one.
func document(doc string, out *Out) (jsonb.Value, bool) {
	v, err := jsonb.ParseStored(doc)
	if err != nil {
		out.Null = true
		return v, false
	}
	return v, true
}

func jsonbAsString(in *Args, out *Out) error {
	if doc := in.Text[0]; doc != "" && (doc[0] == '{' || doc[0] == '[') {
		out.Null = true
		return nil
	}
	if v, ok := document(in.Text[0], out); ok {
		out.Text, out.Null = v.Str, v.Kind != jsonb.String
	}
	return nil
}

func jsonbAsFloat(in *Args, out *Out) error {
	if v, ok := document(in.Text[0], out); ok {
		out.Float, ok = v.Float64()
		out.Null = !ok
	}
	return nil
}

func jsonbAsInt(in *Args, out *Out) error {
	if v, ok := document(in.Text[0], out); ok {
		out.Int, ok = v.Int64()
		out.Null = !ok
	}
	return nil
}

func jsonbArrayLength(in *Args, out *Out) error {
	if v, ok := document(in.Text[0], out); ok {
		out.Int, out.Null = int64(len(v.Items)), v.Kind != jsonb.Array
	}
	return nil
}

func jsonbObjectKeys(in *Args, out *Out) error {
	if v, ok := document(in.Text[0], out); ok {
		out.Null = v.Kind != jsonb.Object
		appendKeys(out, &v)
	}
	return nil
}

func appendKeys(out *Out, v *jsonb.Value) {
	for i := range v.Members {
		out.List = append(out.List, v.Members[i].Key)
	}
}

// jsonbEntryKeys gives the keys of an object, or the indexes of an array as text.
func jsonbEntryKeys(in *Args, out *Out) error {
	if v, ok := document(in.Text[0], out); ok {
		appendKeys(out, &v)
		for i := range v.Items {
			out.List = append(out.List, strconv.Itoa(i))
		}
	}
	return nil
}

// jsonbEntryValues gives the values of an object or of an array, as documents.
func jsonbEntryValues(in *Args, out *Out) error {
	if v, ok := document(in.Text[0], out); ok {
		for i := range v.Members {
			out.List = append(out.List, string(jsonb.AppendCanonical(nil, &v.Members[i].Value)))
		}
		appendElements(out, &v)
	}
	return nil
}

func jsonbElements(in *Args, out *Out) error {
	if v, ok := document(in.Text[0], out); ok {
		appendElements(out, &v)
	}
	return nil
}

func appendElements(out *Out, v *jsonb.Value) {
	for i := range v.Items {
		out.List = append(out.List, string(jsonb.AppendCanonical(nil, &v.Items[i])))
	}
}

// jsonbEntryTexts gives the values of an object as property_get shows them.
func jsonbEntryTexts(in *Args, out *Out) error {
	v, ok := document(in.Text[0], out)
	if !ok {
		return nil
	}
	for i := range v.Members {
		m := &v.Members[i].Value
		if m.Kind == jsonb.String {
			out.List = append(out.List, m.Str)
		} else {
			out.List = append(out.List, string(jsonb.AppendJSON(nil, m)))
		}
	}
	return nil
}

// pathVisits is what the JSONPaths of one chunk of rows may visit: about 0.1 s.
const pathVisits = 8 << 20

// pathQuery runs a JSONPath, which usually is the same in all rows.
func pathQuery(name string, result func(dst []byte, matches []*jsonb.Value) ([]byte, bool)) Row {
	var path *jsonb.Path
	var text string
	var buf []byte
	visits := pathVisits
	return func(in *Args, out *Out) error {
		if path == nil || text != in.Text[1] {
			p, err := jsonb.CompilePath(in.Text[1])
			if err != nil {
				return fmt.Errorf("%s: invalid JSONPath '%s': %w", name, in.Text[1], err)
			}
			path, text = p, string(slices.Clone([]byte(in.Text[1])))
		}
		doc, ok := document(in.Text[0], out)
		if !ok {
			return nil
		}
		matches, err := path.Query(&doc, &visits)
		if err != nil {
			return fmt.Errorf("limit: %s: JSONPath '%s': %w", name, in.Text[1], err)
		}
		buf, ok = result(buf[:0], matches)
		out.Text, out.Null = unsafe.String(unsafe.SliceData(buf), len(buf)), !ok
		return nil
	}
}

func pathFirst(dst []byte, matches []*jsonb.Value) ([]byte, bool) {
	if len(matches) == 0 {
		return dst, false
	}
	return jsonb.AppendCanonical(dst, matches[0]), true
}

func pathAll(dst []byte, matches []*jsonb.Value) ([]byte, bool) {
	dst = append(dst, '[')
	for i, m := range matches {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = jsonb.AppendCanonical(dst, m)
	}
	return append(dst, ']'), true
}
