package jsonb_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/query/functions/jsonb"
)

func TestBinaryForm(t *testing.T) {
	for text, want := range map[string]string{
		"{}": "40000000", "[]": "80000000", "null": "2000000000000000", "": "2000000000000000",
		"true": "2000000040000000", "false": "2000000030000000", "0": "200000002000000100", "0.0": "200000002000000100", "-0": "200000002000000100",
		"10": "2000000020000002500a", "-1": "200000002000000240ff", "300": "200000002000000350012c", "1.5": "2000000020000009603ff8000000000000",
		"-129": "200000002000000340ff7f", "65536": "20000000200000055000010000", "4294967296": "2000000020000009500000000100000000",
		"-2147483649": "200000002000000940ffffffff7fffffff", "NaN": "200000002000000110", "Infinity": "200000002000000120", "-Infinity": "200000002000000130",
		`"abc"`: "2000000010000003616263", `{"a":"b"}`: "4000000110000001100000016162",
		"[1,2,3]":                     "80000003200000022000000220000002500150025003",
		`[false,10,{"k":"v"}]`:        "8000000330000000200000025000000e500a4000000110000001100000016b76",
		`{"map":"Oslo","build":"17"}`: "40000002100000051000000310000002100000046275696c646d617031374f736c6f",
		"{\"k\":\"v\"}":               "4000000110000001100000016b76",
	} {
		got, err := jsonb.AppendText(nil, text)
		if err != nil || hex.EncodeToString(got) != want {
			t.Errorf("%s = %x, %v, want %s", text, got, err, want)
		}
		v, err := jsonb.Decode(got)
		if err != nil {
			t.Errorf("decode %s: %v", text, err)
		}
		again, _ := jsonb.Append(nil, &v)
		if hex.EncodeToString(again) != want {
			t.Errorf("%s read and written = %x, want %s", text, again, want)
		}
	}
}

func TestDecodeReadsWhatOthersWrite(t *testing.T) {
	for in, want := range map[string]string{
		"200000002000000a7000000000000000ff02": "2.55", // a decimal with its scale
		"20000000a00000025007":                 "7",    // the top bit of an entry is ignored
		"20000001200000025007":                 "7",    // and so is a scalar's count
	} {
		doc, _ := hex.DecodeString(in)
		v, err := jsonb.Decode(doc)
		if got := string(jsonb.AppendJSON(nil, &v)); err != nil || got != want {
			t.Errorf("%s = %s, %v, want %s", in, got, err, want)
		}
	}
}

func TestParseIsLenient(t *testing.T) {
	for text, want := range map[string]string{
		`{"b":1, "a":[1.0,true,null]}`: `{"a":[1.0,true,null],"b":1}`, "": "null", "  \n": "null", "NULL": "null", "True": "true", "fAlSe": "false",
		"NaN": "null", "nan": "null", "-infinity": "null", `'it"s'`: `"it\"s"`, `{a:1,b_2:'x'}`: `{"a":1,"b_2":"x"}`, "+5": "5", "007": "7", ".5": "0.5", "5.": "5.0", "-.5": "-0.5",
		"0xFF": "255", "0x1A.8": "26.5", "-0x10": "-16", "[1,,2]": "[1,null,2]", "[,]": "[null,null]", "[1,]": "[1,null]", `[1\n,\t2\r]\x0C`: "[1,2]",
		`"\u{1F600}"`: `"😀"`, `"\ud83d\ude00"`: `"😀"`, `"\ud83d"`: "\"\ufffd\"", `"a\/b\u00e9"`: `"a/bé"`,
		"18446744073709551615": "18446744073709551615", "18446744073709551616": "1.8446744073709552e19", "-9223372036854775808": "-9223372036854775808", "-9223372036854775809": "-9.223372036854776e18",
		"1e3": "1000.0", "1.0": "1.0", "1e16": "1e16", "1e-6": "1e-6", "0.00001": "0.00001", "1000000000000000.0": "1000000000000000.0", "1.5e300": "1.5e300", "1e999": "null", "-1.5E-7": "-1.5e-7",
		"\"\\b\\f\\n\\r\\t\\u0001\\u007f\"": "\"\\b\\f\\n\\r\\t\\u0001\u007f\"", "\"a\nb\"": `"a\nb"`, `{"\u0061":1}`: `{"a":1}`, `{ }`: "{}", "[ ]": "[]",
	} {
		v, err := jsonb.Parse(text)
		if got := string(jsonb.AppendJSON(nil, &v)); err != nil || got != want {
			t.Errorf("%q = %s, %v, want %s", text, got, err, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{
		"{ not json... }", `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, "1 2", `{"key": invalid}`, "nul", "nulls", "[1", `{"a"`, `{"a":}`, `{"a":1,}`, `"abc`, `"\q"`, "-", "+", ".", "0x", "1e", "1x", "]", "{,}",
		`"\u{110000}"`, `"\u12"`, "\xff", strings.Repeat("[", 300) + strings.Repeat("]", 300),
	} {
		if v, err := jsonb.Parse(text); err == nil {
			t.Errorf("%q = %s", text, jsonb.AppendJSON(nil, &v))
		}
	}
	if _, err := jsonb.Parse(`{"a":1,"a":2}`); !errors.Is(err, jsonb.ErrDuplicateKey) {
		t.Errorf("duplicate key: %v", err)
	}
	if v, err := jsonb.ParseStored(`{"a":1,"b":0,"a":2}`); err != nil || string(jsonb.AppendJSON(nil, &v)) != `{"a":2,"b":0}` {
		t.Errorf("stored duplicates: %v", err)
	}
}

func TestFind(t *testing.T) {
	f := func(doc, name, want string, found bool) {
		t.Helper()
		got, ok := jsonb.Find(doc, name)
		if got != want || ok != found {
			t.Errorf("Find(%s, %s) = %s, %v, want %s, %v", doc, name, got, ok, want, found)
		}
	}
	f(`{"Map":"Oslo","n":5}`, "map", `"Oslo"`, true)
	f(`{"MAP":"1","map":"2","mAp":"3"}`, "map", `"2"`, true)
	f(`{"MAP":"1","mAp":"3"}`, "map", `"1"`, true)
	f(`{"n":5}`, "x", "", false)
	f(`{}`, "x", "", false)
	f(`[1]`, "x", "", false)
	f(`"x"`, "x", "", false)
	f(` { "a" : { "b" : [ 1, "}" ] } , "c" : true } `, "c", "true", true)
	f(` { "a" : { "b" : [ 1, "}" ] } , "c" : true } `, "a", `{ "b" : [ 1, "}" ] }`, true)
	f(`{"a\"b":1}`, `a"b`, "1", true)
	f(`{"É":1}`, "é", "", false) // ASCII case only
	f(`{'a':1}`, "a", "1", true)
	f(`{"a":NaN}`, "a", "NaN", true)
	f(`{"a"`, "a", "", false)
	f("", "a", "", false)
}

func TestText(t *testing.T) {
	for raw, want := range map[string]string{
		`"Oslo"`: "Oslo", `"a\nb"`: "a\nb", "5": "5", "null": "null", "true": "true", "1.0": "1.0", `{"a": 1}`: `{"a":1}`, "NaN": "null", "1E3": "1000.0", "007": "7", "123456789012345678901": "123456789012345680000.0",
	} {
		if raw == "123456789012345678901" {
			want = "1.2345678901234568e20"
		}
		if got, ok := jsonb.Text(raw); !ok || got != want {
			t.Errorf("Text(%s) = %s, %v, want %s", raw, got, ok, want)
		}
	}
}

func TestLen(t *testing.T) {
	for doc, want := range map[string]int{`{}`: 0, ` { } `: 0, `{"a":1,"b":2}`: 2, `{"b":1,"a":2}`: 2, `{"a":1,"a":2}`: 1, `{a:1}`: 1} {
		if n, ok := jsonb.Len(doc); !ok || n != want {
			t.Errorf("Len(%s) = %d, %v, want %d", doc, n, ok, want)
		}
	}
	for _, doc := range []string{"[1]", "5", `"a"`, "null", "{"} {
		if n, ok := jsonb.Len(doc); ok || n != 0 {
			t.Errorf("Len(%s) = %d, %v", doc, n, ok)
		}
	}
}

func query(t *testing.T, doc, path string) (string, error) {
	t.Helper()
	v, err := jsonb.Parse(doc)
	if err != nil {
		t.Fatal(err)
	}
	p, err := jsonb.CompilePath(path)
	if err != nil {
		return "", err
	}
	visits := 10000
	matches, err := p.Query(&v, &visits)
	out := jsonb.Value{Kind: jsonb.Array}
	for _, m := range matches {
		out.Items = append(out.Items, *m)
	}
	return string(jsonb.AppendJSON(nil, &out)), err
}

func TestPath(t *testing.T) {
	const items = `{"items":[{"key":"foo","value":1},{"key":"bar","value":2}]}`
	const store = `{"a":{"b":[10,20,30]},"n":5,"s":"text","t":true,"thread-name":"main","z":null}`
	for _, c := range []struct{ doc, path, want string }{
		{store, "$", "[" + store + "]"},
		{store, "$.a.b[1]", "[20]"},
		{store, "a.b[0]", "[10]"},
		{store, "$.a.b[*]", "[10,20,30]"},
		{store, "$.a.*", "[[10,20,30]]"},
		{store, "$.a.b[last]", "[30]"},
		{store, "$.a.b[last - 1]", "[20]"},
		{store, "$.a.b[-1]", "[30]"},
		{store, "$.a.b[0,2]", "[10,30]"},
		{store, "$.a.b[1 to last]", "[20,30]"},
		{store, "$.a.b[7]", "[]"},
		{store, `$."thread-name"`, `["main"]`},
		{store, `$["thread-name"]`, `["main"]`},
		{store, "$.thread-name", `["main"]`},
		{store, "$:n", "[5]"},
		{store, "thread-name", `["main"]`},
		{store, "$.missing.x", "[]"},
		{store, "$.n > 4", "[true]"},
		{store, "$.n > 5", "[false]"},
		{store, "$.n + 1 == 6 && $.t", "[true]"},
		{store, `$.s starts with "te"`, "[true]"},
		{store, "!($.n == 5)", "[false]"},
		{store, "exists($.a.b)", "[true]"},
		{store, "exists($.q)", "[false]"},
		{store, "$.z == null", "[true]"},
		{store, "$.q == null", "[false]"},
		{store, "-$.n == -5", "[true]"},
		{store, "$.n * 2 - 1 >= 9 || false", "[true]"},
		{store, "$.n <> 5", "[false]"},
		{store, "$.n / 2 == 2.5", "[true]"},
		{store, "$.n % 2 == 1", "[true]"},
		{items, `$.items[*]?(@.key=="bar").value`, "[2]"},
		{items, `$.items[*] ? (@.key == "bar" && @.value > 1)`, `[{"key":"bar","value":2}]`},
		{items, `$.items[*]?(exists(@.value)).key`, `["foo","bar"]`},
		{items, `$.items[*]?(!(@.value < 2)).key`, `["bar"]`},
		{items, `$.items[*]?(@.key == $.items[0].key).value`, "[1]"},
		{items, `$.items[*]?((@.value == 1 || @.value == 2) && @.key starts with 'f').key`, `["foo"]`},
		{items, "$.**.value", "[1,2]"},
		{`{"a":{"a":{"a":1}}}`, "$.**{1}", `[{"a":{"a":1}}]`},
		{`{"a":{"a":{"a":1}}}`, "$.**{2 to last}", `[{"a":1},1]`},
		{`[[1],[2,[3]]]`, "$[*][0]", "[1,2]"},
		{`[1,2,3]`, "$[*]", "[1,2,3]"},
		{`[1,2,3]`, "[1]", "[2]"},
		{`{"a b":1}`, `"a b"`, "[1]"},
		{`[1,"1",true]`, `$[*]?(@ == 1)`, "[1]"},
		{`[1,2]`, `$[*]?(@ >= 1.5)`, "[2]"},
	} {
		if got, err := query(t, c.doc, c.path); err != nil || got != c.want {
			t.Errorf("%s = %s, %v, want %s", c.path, got, err, c.want)
		}
	}
}

func TestPathRefuses(t *testing.T) {
	for _, path := range []string{
		"", "$[invalid", "$.", "$[", "$[]", "$[1", "$.a?", "$.a?()", "$.a?(@", "$.a?(1)", "$ $", "$.a b", "1", "'x' 'y'", "$[*", "@.a", "$.**{", "$..a", "$.a == ", "(", "exists(", "!", "$[99999999999999]", "\xff",
		strings.Repeat("(", 1000), strings.Repeat("!", 1000), strings.Repeat("-", 1000) + "1", strings.Repeat("$?(", 500),
	} {
		p, err := jsonb.CompilePath(path)
		var pe *jsonb.PathError
		if err == nil || !errors.As(err, &pe) {
			t.Errorf("%.20q is a path: %v %v", path, p, err)
		}
	}
}

func TestPathIsBounded(t *testing.T) {
	doc := strings.Repeat(`[`, 50) + strings.Repeat(`]`, 50)
	_, err := query(t, doc, "$.**.**.**.**.**.**")
	if !errors.Is(err, jsonb.ErrPathTooCostly) {
		t.Errorf("a costly path: %v", err)
	}
}

func TestInt64(t *testing.T) {
	for text, want := range map[string]int64{"42.0": 42, "9223372036854775807": math.MaxInt64, "-9223372036854775808": math.MinInt64, "-1e3": -1000, "0": 0} {
		v, _ := jsonb.Parse(text)
		if got, ok := v.Int64(); !ok || got != want {
			t.Errorf("%s = %d, %v", text, got, ok)
		}
	}
	for _, text := range []string{"42.5", "9223372036854775808", "1e19", "NaN", "Infinity", `"42"`, "true", "null"} {
		v, _ := jsonb.Parse(text)
		if got, ok := v.Int64(); ok {
			t.Errorf("%s = %d", text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", `{"a":[1,2.5,"x",null,true]}`, "[1,,2]", "{a:'b'}", "0x1A.8", "-Infinity", `"\ud83d\ude00"`, "1e400"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := jsonb.Parse(text)
		if err != nil {
			return
		}
		canonical := string(jsonb.AppendCanonical(nil, &v))
		w, err := jsonb.Parse(canonical)
		if err != nil {
			t.Fatalf("%q prints as %q, which does not parse: %v", text, canonical, err)
		}
		if again := string(jsonb.AppendCanonical(nil, &w)); again != canonical {
			t.Fatalf("%q prints as %q, then as %q", text, canonical, again)
		}
		bin, err := jsonb.Append(nil, &v)
		if err != nil {
			t.Fatal(err)
		}
		u, err := jsonb.Decode(bin)
		if err != nil {
			t.Fatalf("%q as binary %x: %v", text, bin, err)
		}
		if got := string(jsonb.AppendCanonical(nil, &u)); got != canonical {
			t.Fatalf("%q through binary is %q", canonical, got)
		}
		if direct, err := jsonb.AppendText(nil, canonical); err != nil || !bytes.Equal(direct, bin) {
			t.Fatalf("%q as binary is %x, directly %x, %v", canonical, bin, direct, err)
		}
		for i := range v.Members { // the scanner agrees with the tree
			raw, ok := jsonb.Find(canonical, v.Members[i].Key)
			if want := string(jsonb.AppendCanonical(nil, &v.Members[i].Value)); !ok || raw != want {
				t.Fatalf("Find(%q, %q) = %q, %v, want %q", canonical, v.Members[i].Key, raw, ok, want)
			}
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, text := range []string{"{}", "[1,2,3]", `{"a":"b"}`, "1.5", `[false,10,{"k":"v"}]`} {
		doc, _ := jsonb.AppendText(nil, text)
		f.Add(doc)
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		v, err := jsonb.Decode(doc)
		if err != nil {
			return
		}
		bin, err := jsonb.Append(nil, &v)
		if err != nil {
			t.Fatal(err)
		}
		w, err := jsonb.Decode(bin)
		if err != nil {
			t.Fatalf("%x is written as %x: %v", doc, bin, err)
		}
		if diff := cmp.Diff(string(jsonb.AppendCanonical(nil, &v)), string(jsonb.AppendCanonical(nil, &w))); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzPath(f *testing.F) {
	for _, p := range []string{"$", `$.items[*]?(@.key=="bar").value`, "$.a > 1", "$.**{1 to 2}", "[0,1 to last-1]", `exists($.a) && !($.b == 'x')`} {
		f.Add(p, `{"items":[{"key":"bar","value":2}],"a":[1,2]}`)
	}
	f.Fuzz(func(t *testing.T, path, doc string) {
		p, err := jsonb.CompilePath(path)
		if err != nil {
			return
		}
		v, err := jsonb.Parse(doc)
		if err != nil {
			return
		}
		visits := 10000
		p.Query(&v, &visits)
	})
}

func FuzzFind(f *testing.F) {
	f.Add(`{"a":1,"B":{"c":"}"}}`, "b")
	f.Add(`{'a':1}`, "a")
	f.Fuzz(func(t *testing.T, doc, name string) {
		raw, ok := jsonb.Find(doc, name)
		v, err := jsonb.Parse(doc)
		if err != nil {
			return // Find may answer from the good part of a bad document
		}
		m, want := v.Member(name)
		if ok != want {
			t.Fatalf("Find(%q, %q) = %q, %v, want %v", doc, name, raw, ok, want)
		}
		if !ok {
			return
		}
		w, err := jsonb.ParseStored(raw)
		if err != nil {
			t.Fatalf("Find(%q, %q) = %q: %v", doc, name, raw, err)
		}
		if got, want := string(jsonb.AppendCanonical(nil, &w)), string(jsonb.AppendCanonical(nil, m)); got != want {
			t.Fatalf("Find(%q, %q) = %q, want %q", doc, name, got, want)
		}
	})
}

func BenchmarkAppendText(b *testing.B) {
	const doc = `{"build":"17","map":"Oslo","session":"5a0e7c1e-1111-4222-8333-444444444444","thread":"main"}`
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	var buf []byte
	for b.Loop() {
		buf, _ = jsonb.AppendText(buf[:0], doc)
	}
}

func BenchmarkFind(b *testing.B) {
	const doc = `{"build":"17","map":"Oslo","session":"5a0e7c1e-1111-4222-8333-444444444444","thread":"main"}`
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		jsonb.Find(doc, "Thread")
	}
}
