package functions

import (
	"math"
	"testing"
)

func TestColorScaleEndPoints(t *testing.T) {
	for _, c := range []struct {
		name string
		at   float64
		want uint32
	}{
		{"viridis", 0, 0x440154},
		{"VIRIDIS", 1, 0xfde725},
		{"magma", 0, 0x000004},
		{"magma", 1, 0xfcfdbf},
		{"plasma", 0, 0x0d0887},
		{"plasma", 1, 0xf0f921},
		{"inferno", 0, 0x000004},
		{"inferno", 1, 0xfcffa4},
		{"cividis", 0, 0x002051},
		{"cividis", 1, 0xfde945},
		{"viridis", -3, 0x440154},
		{"viridis", math.NaN(), 0x440154},
		{"viridis", 7, 0xfde725},
	} {
		got, err := scaleColor(c.name, c.at)
		if err != nil || got != c.want {
			t.Errorf("%s at %v = %06x, %v, want %06x", c.name, c.at, got, err, c.want)
		}
	}
	if _, err := scaleColor("jet", 0); err == nil {
		t.Error("an unknown map has colours")
	}
}

func TestArrowName(t *testing.T) {
	for name, want := range map[string]string{
		"VARCHAR": "Utf8", "INTEGER[]": "List(Int32)", "VARCHAR[][]": "List(List(Utf8))", "INTEGER[3]": "List(Int32)",
		`STRUCT(a INTEGER, "b c" VARCHAR[])`: `Struct("a": Int32, "b c": List(Utf8))`,
		"MAP(VARCHAR, BIGINT)":               "Map(Utf8, Int64)", "DECIMAL(10,2)": "Float64", "TIMESTAMP_NS": `Timestamp(ns, "+00:00")`,
		`STRUCT("a""b" STRUCT(x DOUBLE, y DOUBLE))`: `Struct("a"b": Struct("x": Float64, "y": Float64))`,
	} {
		if got := arrowTypeName(name, "Utf8"); got != want {
			t.Errorf("%s = %s, want %s", name, got, want)
		}
	}
	if got := arrowTypeName("VARCHAR", "Dictionary(Int32, Utf8)"); got != "Dictionary(Int32, Utf8)" {
		t.Error(got)
	}
}

func TestBudgetEnds(t *testing.T) {
	row := spend()
	var out Out
	in := Args{Text: [MaxArgs]string{"repeat"}}
	in.Float[1] = budget / 2
	for i := range 3 {
		if err := row(&in, &out); (err != nil) != (i == 2) {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	in.Float[1] = math.NaN()
	if err := spend()(&in, &out); err == nil {
		t.Error("NaN bytes are allowed")
	}
}
