package dialect

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// lexedText runs the lexer pass and prints what the parser would get.
func lexedText(t *testing.T, sql string) string {
	t.Helper()
	l, err := lexPass(sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	out, _ := l.print(0)
	return out
}

func TestLexerPassSpellsForTheParser(t *testing.T) {
	f := func(sql, want string) {
		t.Helper()
		if got := lexedText(t, sql); got != want {
			t.Errorf("%s\n got %s\nwant %s", sql, got, want)
		}
	}
	// L0
	f(`SELECT Abc AS X, "Abc", 'Abc', É`, `select abc as x, "Abc", 'Abc', É`)
	// L1
	f("SELECT 1 ; ;", "select 1")
	f("SELECT ';', \";\" /* ; */ -- ;", `select ';', ";"`)
	// L2
	f("SELECT end", `select "end"`)
	f("SELECT a, end, t.end FROM x WHERE end > 1 AND b < end", `select a, "end", t.end from x where "end" > 1 and b < "end"`)
	f("SELECT 1 AS end, (end) FROM x ORDER BY end", `select 1 as end, ("end") from x order by "end"`)
	f("CASE WHEN end = 1 THEN end ELSE end END", `case when "end" = 1 then "end" else "end" end`)
	f("CASE a WHEN 'x' THEN f(1) END end", `case a when 'x' then f(1) end "end"`)
	f("CASE WHEN a THEN CASE WHEN b THEN x[1] END END", "case when a then case when b then x[1] end end")
	f("CASE WHEN a THEN $1 END", "case when a then $1 end")
	f("q.case, end", `q.case, "end"`)
	// L3
	f("CAST(x AS INT UNSIGNED), x::BIGINT UNSIGNED", "cast(x as UINTEGER), x::UBIGINT")
	// L4
	f("SELECT * EXCEPT (a), t.* EXCEPT(b)", "select * EXCLUDE (a), t.* EXCLUDE(b)")
	f("SELECT * EXCEPT (SELECT 1)", "select * except (select 1)")
	f("SELECT * EXCEPT ((SELECT 1))", "select * except ((select 1))")
	f("SELECT * EXCEPT SELECT 1", "select * except select 1")
	// L5
	f("X'0aFF'", "unhex('0aFF')")
	// L6, L7
	f("TIMESTAMP '2024-01-01'", "TIMESTAMP_NS '2024-01-01'")
	f("TIMESTAMPTZ  '2024-01-01'", "TIMESTAMP_NS '2024-01-01'")
	f("TIMESTAMP WITH TIME ZONE '2024-01-01'", "TIMESTAMP_NS '2024-01-01'")
	f("CAST(x AS TIMESTAMP(9) WITHOUT TIME ZONE)", "cast(x as TIMESTAMP_NS)")
	f("TRY_CAST(x AS timestamptz), x::timestamp", "try_cast(x as TIMESTAMP_NS), x::TIMESTAMP_NS")
	f("SELECT x AS timestamp, timestamp FROM t", "select x as timestamp, timestamp from t")
	f("SELECT (x AS timestamp)", "select (x as timestamp)")
	// L8
	f("approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY a, b)", "approx_percentile_cont( ( a, b ) ,0.5 )")
	f("approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY v DESC)", "approx_percentile_cont( ( v ) , 1 - (0.9 ) )")
	f("approx_percentile_cont(a, 0.5)", "approx_percentile_cont(a, 0.5)")
	// Comments, odd spaces, numbers and operators
	f("a/* x */b--y\nc", "a b c")
	f("a\u00a0b\ufeffc", "a b c")
	f("1e3+.5-0xFF*1_000.5e-3", "1e3+.5-0xFF*1_000.5e-3")
	f("a->>'b', c!~*'d', x::int, y=>1, z:=2", "a->>'b', c!~*'d', x::int, y=>1, z:=2")
	f("a--b\n-c", "a -c")
	f("t.1, l[1:2]", "t.1, l[1:2]")
}

func TestLexerRefuses(t *testing.T) {
	f := func(sql, want string, line, column int) {
		t.Helper()
		_, err := lexPass(sql)
		if err == nil || !strings.Contains(err.Error(), want) || err.Line != line || err.Column != column {
			t.Errorf("%.40q: got %v at %+v, want %s", sql, err, err, want)
		}
	}
	f("SELECT 'a", "unterminated quoted text", 1, 8)
	f("SELECT 1,\n \"a", "unterminated quoted text", 2, 2)
	f("SELECT $$a", "unterminated quoted text", 1, 8)
	f("SELECT /* a /* b */", "unterminated /* comment", 1, 8)
	f("SELECT 1;\nSELECT 2", "only one statement per query", 1, 9)
	f("SELECT \x00", "zero byte", 1, 8)
	f("SELECT a"+strings.Repeat(" OR a", 10_001), "more than 10000 AND and OR", 1, 9+5*10_000+1)
	f(strings.Repeat("(", maxNesting+1), "nest deeper than 200", 1, maxNesting+1)
	f(strings.Repeat(" ", maxStatementBytes)+"1", "longer than the limit", 0, 0)
	f(strings.Repeat("a ", maxTokens+1), "tokens", 0, 0)
	f(strings.Repeat("approx_percentile_cont(1) within group (order by a) ", maxWithinGroups+1), "WITHIN GROUP", 1, 1)
}

func TestPositionsLeadBack(t *testing.T) {
	sql := "SELECT x'00', /* c */\n TIMESTAMP WITH TIME ZONE '2024-01-01', * EXCEPT (a)\nFROM Nope"
	l, err := lexPass(sql)
	if err != nil {
		t.Fatal(err)
	}
	out, at := l.print(0)
	for _, name := range []string{"nope", "'2024-01-01'", "EXCLUDE", "from"} {
		source := map[string]string{"nope": "Nope", "EXCLUDE": "EXCEPT", "from": "FROM"}[name]
		if source == "" {
			source = name
		}
		if got, want := at.source(strings.Index(out, name)), strings.Index(sql, source); got != want {
			t.Errorf("%s: got offset %d, want %d", name, got, want)
		}
	}
	if line, column := lineColumn(sql, strings.Index(sql, "Nope")); line != 3 || column != 6 {
		t.Errorf("got line %d, column %d", line, column)
	}
}

func FuzzLexer(f *testing.F) {
	for _, s := range []string{
		"SELECT 'it''s', \"a\"\"b\", E'\\'', x'0a', $$a$$, $t$b$t$, $1, ? FROM t -- c", "/* /* */ */ 1e+5 .5 1..2 a.b::c",
		"CASE WHEN end THEN end END", "approx_percentile_cont(1) WITHIN GROUP (ORDER BY a DESC NULLS LAST)", "TIMESTAMP(9) WITH TIME ZONE '1'",
		"* EXCEPT (", "\xff\xfe", "é\u00a0\u200b", "INT UNSIGNED", "->>!~~*@>", "$a$", "'", "E'\\",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		tokens, err := lex(sql)
		if err != nil {
			return
		}
		end := 0
		for _, token := range tokens {
			if token.start < end || token.end <= token.start || token.end > len(sql) {
				t.Fatalf("token %+v after offset %d of %d", token, end, len(sql))
			}
			if gap := sql[end:token.start]; strings.TrimSpace(gap) != "" && !strings.Contains(gap, "--") && !strings.Contains(gap, "/*") && utf8.ValidString(gap) && wideSpace(strings.TrimSpace(gap)) == 0 {
				t.Fatalf("text %q was dropped", gap)
			}
			end = token.end
		}
		l, err := lexPass(sql)
		if err != nil {
			return
		}
		out, at := l.print(0)
		for i := range len(out) {
			if in := at.source(i); in < 0 || in > len(sql) {
				t.Fatalf("offset %d leads to %d of %d", i, in, len(sql))
			}
		}
	})
}

func FuzzTree(f *testing.F) {
	f.Add([]byte(`{"a":[1,-2.5,"x\"y",null,true,Infinity,{"b":18446744073709551615}],"c":{}}`))
	f.Add([]byte(`[[[[`))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := parseTree(data)
		if err != nil {
			return
		}
		out := n.append(nil)
		again, err := parseTree(out)
		if err != nil {
			t.Fatalf("%q became %q: %v", data, out, err)
		}
		if second := again.append(nil); string(second) != string(out) {
			t.Fatalf("%q became %q", out, second)
		}
	})
}
