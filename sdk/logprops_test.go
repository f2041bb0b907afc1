package sdk_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/sdk"
)

func TestLogProps(t *testing.T) {
	c := begin(t, func(cfg *sdk.Config) { cfg.Memory = 1 << 30 })
	long := strings.Repeat("x", 4<<10) // beyond what entries share
	for _, props := range [][]telemetry.Property{
		nil,
		{{Key: "k", Value: "v"}, {Key: "a", Value: ""}, {Key: "k", Value: "last"}},
		{{Key: "k", Value: "v"}, {Key: "a", Value: ""}, {Key: "k", Value: "last"}},
		{{Key: "", Value: "no key"}, {Key: "bad\xff\x00", Value: "\x00\xff"}},
		{{Key: "long", Value: long}},
	} {
		sdk.LogProps(context.Background(), 0, "t", sdk.Info, fmt.Sprint(len(props)), props)
	}
	sdk.LogProps(t.Context(), 0, "t", sdk.Trace, "off", []telemetry.Property{{Key: "k"}})
	sdk.LogProps(t.Context(), 0, "t", sdk.Warn, "", []telemetry.Property{{Key: "k"}})
	r := end(t, c)
	want := map[string]int{
		"0 {}": 1, `3 {"a":"","k":"last"}`: 2, `2 {"":"no key","bad` + "\uFFFD\uFFFD" + `":"\u0000` + "\uFFFD" + `"}`: 1, `1 {"long":"` + long + `"}`: 1, ` {"k":""}`: 1,
	}
	for _, e := range r.logs {
		want[e.Msg+" "+e.Properties.JSON]--
		if e.Target != "t" {
			t.Errorf("%+v", e)
		}
	}
	for e, n := range want {
		if n != 0 {
			t.Errorf("%d of %.100q are missing", n, e)
		}
	}
}

// Words that records leave behind in a chunk must not get into the properties of later ones.
func TestLogPropsOfManyGoroutines(t *testing.T) {
	const goroutines, each = 4, 2000
	c := begin(t, func(cfg *sdk.Config) { cfg.Memory, cfg.BlockBytes = 1<<30, 16<<10 })
	var all sync.WaitGroup
	for g := range goroutines {
		all.Go(func() {
			for i := range each {
				v := strings.Repeat(string(rune('a'+g)), i%50)
				sdk.LogProps(context.Background(), 0, "t", sdk.Info, v, []telemetry.Property{{Key: v, Value: v}, {Key: "n", Value: fmt.Sprint(len(v))}})
			}
		})
	}
	all.Wait()
	r := end(t, c)
	if len(r.logs) != goroutines*each {
		t.Errorf("%d entries", len(r.logs))
	}
	for _, e := range r.logs {
		v, ok := e.Properties.Lookup(e.Msg)
		n, _ := e.Properties.Lookup("n")
		if !ok || v != e.Msg || n != fmt.Sprint(len(e.Msg)) {
			t.Fatalf("%q has %s", e.Msg, e.Properties.JSON)
		}
	}
}

func TestLevelEnabled(t *testing.T) {
	if sdk.LevelEnabled(sdk.Fatal) {
		t.Error("enabled before Start")
	}
	c := begin(t, func(cfg *sdk.Config) { cfg.Level, cfg.Targets = sdk.Warn, map[string]sdk.Level{"a": sdk.Error} })
	if !sdk.LevelEnabled(sdk.Warn) || sdk.LevelEnabled(sdk.Info) {
		t.Error("not as Config says")
	}
	sdk.SetTargetLevel("b", sdk.Debug)
	if !sdk.LevelEnabled(sdk.Debug) || sdk.LevelEnabled(sdk.Trace) {
		t.Error("not as SetTargetLevel says")
	}
	end(t, c)
}
