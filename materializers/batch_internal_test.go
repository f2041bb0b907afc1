package materializers

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

func TestApplySkips(t *testing.T) {
	newBatch := func() *batch {
		return &batch{
			segments: []segment{{place: place{1, 0}}, {place: place{1, 1}}, {place: place{1, 0}, parked: &parkedCopy{}}},
			waiting:  []waiting{{place: place{2, 0}}}, dead: []deadCopy{{place: place{2, 1}}},
			foreseen: map[place]struct{}{{3, 0}: {}},
		}
	}
	b := newBatch()
	if changed, err := b.apply(skipsOf([]catalog.Skip{{Seq: 3}})); changed || err != nil {
		t.Errorf("a duplicate that was foreseen: %v %v", changed, err)
	}
	b = newBatch()
	if _, err := b.apply(skipsOf(nil)); !errors.Is(err, errForeseen) {
		t.Errorf("a copy left out that counts: %v", err)
	}
	b = newBatch()
	changed, err := b.apply(skipsOf([]catalog.Skip{{Seq: 1}, {Seq: 2}, {Seq: 2, Rec: 1}, {Seq: 3}}))
	if !changed || err != nil || !b.segments[0].dropped || b.segments[1].dropped || b.segments[2].dropped || len(b.waiting)+len(b.dead) != 0 {
		t.Errorf("skips of all kinds: %v %v %+v", changed, err, b)
	}
}

func TestSeenBlocksAreBounded(t *testing.T) {
	s := seenBlocks{limit: 10}
	key := func(i int) catalog.BlockKey { return catalog.BlockKey{BeginTime: int64(i)} }
	for i := range 1000 {
		if s.add(key(i)) {
			t.Fatalf("block %d was not seen before", i)
		}
		if i >= 9 && !s.add(key(i-9)) {
			t.Fatalf("block %d was seen a moment ago", i-9)
		}
		if len(s.young)+len(s.old) > 20 {
			t.Fatalf("%d blocks are remembered", len(s.young)+len(s.old))
		}
	}
}

func TestCacheEvictsWhatWasNotUsed(t *testing.T) {
	c := newCache[int, string]()
	c.put(1, "a")
	c.put(2, "b")
	c.put(3, "c")
	c.get(1)
	c.trim(2)
	if _, ok := c.get(2); ok {
		t.Error("the value that was not used for longest stays")
	}
	if v, ok := c.get(1); !ok || v != "a" {
		t.Error("a value in use is gone")
	}
}

// Streams with one layout share it, and layouts are bounded by their bytes too.
func TestLayoutsAreSharedAndBounded(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxStreams, cfg.MaxLayoutBytes = 100, 10_000
	r := newRegistry(nil, cfg)
	add := func(n int, name string) {
		for range n {
			s := telemetry.Stream{ID: telemetry.NewID()}
			s.Dependencies, s.Objects = wire.LogTypes()
			s.Objects = append(s.Objects, telemetry.Type{Name: name})
			r.addStream(s)
		}
		r.trim()
	}
	add(150, "same")
	if len(r.streams.entries) != 100 || len(r.layouts) != 1 {
		t.Errorf("%d streams with %d layouts", len(r.streams.entries), len(r.layouts))
	}
	for i := range 20 {
		add(1, fmt.Sprint("other ", i))
	}
	if n := len(r.layouts); n < 2 || n > 10 || r.layoutBytes > cfg.MaxLayoutBytes || len(r.streams.entries) < n {
		t.Errorf("%d layouts of %d bytes, of %d streams", n, r.layoutBytes, len(r.streams.entries))
	}
	add(1, strings.Repeat("x", 20_000))
	if len(r.layouts)+len(r.streams.entries)+r.layoutBytes != 0 {
		t.Errorf("a layout larger than the bound stays: %d layouts of %d bytes, %d streams", len(r.layouts), r.layoutBytes, len(r.streams.entries))
	}
}
