package archive_test

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake/frozen"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
	"github.com/micromegas-go/micromegas/workers/archive"
	"github.com/micromegas-go/micromegas/workers/freezer"
)

// freezer returns a freezer that freezes late rows at once. The blocks of these tests are years old.
func (w *world) freezer() *freezer.Freezer {
	w.t.Helper()
	cfg := freezer.DefaultConfig()
	cfg.LateRows = 1
	f, err := freezer.New(cfg, w.cat, w.lake, slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

func (w *world) freeze(f *freezer.Freezer) {
	w.t.Helper()
	if err := f.Freeze(context.Background()); err != nil {
		w.t.Fatal(err)
	}
}

// frozenBlocks returns the blocks in frozen files, after it has checked that each is there once.
func (w *world) frozenBlocks() map[telemetry.ID]catalog.BlockRow {
	w.t.Helper()
	files, err := w.cat.Frozen(context.Background(), math.MinInt64, math.MaxInt64)
	if err != nil {
		w.t.Fatal(err)
	}
	found := map[telemetry.ID]catalog.BlockRow{}
	r := frozen.NewReader(w.lake)
	for i := range files.Files {
		for b, err := range r.Rows(context.Background(), &files.Files[i]) {
			if err != nil {
				w.t.Fatal(err)
			}
			if _, twice := found[b.ID]; twice {
				w.t.Errorf("block %s is frozen twice", b.ID)
			}
			found[b.ID] = b
		}
	}
	return found
}

// everywhere fails unless each posted block is a row or in a file, once, and leads to its body.
func (w *world) everywhere(posted []*bus.Record) {
	w.t.Helper()
	rows, files := w.archived(nil), w.frozenBlocks()
	for _, p := range posted {
		row, isRow := rows[p.BlockID]
		file, isFrozen := files[p.BlockID]
		if isRow == isFrozen {
			w.t.Errorf("block %s: row %v, frozen %v", p.BlockID, isRow, isFrozen)
			continue
		}
		if isFrozen {
			row = file
		}
		body, err := w.lake.GetRange(context.Background(), row.PackKey, row.PackOffset, row.PackLength)
		if err != nil || string(body) != string(p.Body) {
			w.t.Errorf("block %s at %s %d+%d is not what was posted: %v", p.BlockID, row.PackKey, row.PackOffset, row.PackLength, err)
		}
	}
}

func TestCopiesOfFrozenBlocksAreSettled(t *testing.T) {
	w := newWorld(t)
	a := w.start(patient(), "a", nil)
	w.publish(bus.Raw, processRecord(0), streamRecord(0, 0))
	old := blocks(0, 60, 500)
	w.publishAll(bus.Raw, old)
	w.flush(raw)
	f := w.freezer()
	w.freeze(f)
	if n := len(w.archived(nil)); n != 0 {
		t.Fatalf("%d rows are left", n)
	}

	w.publishAll(bus.Raw, old) // all of them again, beside new ones of the same days
	more := blocks(60, 90, 500)
	w.publishAll(bus.Raw, more)
	w.flush(raw)
	w.everywhere(append(old, more...))
	if rows := w.archived(nil); len(rows) != 30 {
		t.Fatalf("%d rows", len(rows))
	}
	if skips := w.skips(raw); len(skips) != 60 || skips[0].Reason != catalog.SkipDuplicate {
		t.Fatalf("%d skips", len(skips))
	}
	st := a.Stats().Shards[1]
	if st.Blocks != 90 || st.Duplicates != 60 || st.Settled == 0 || st.Retries != 0 {
		t.Fatalf("stats %+v", st)
	}
	w.checkPacks(raw, 0)

	// The late ones go to a file too; a copy of any is still settled, and one in a frame with copies of rows as well.
	w.freeze(f)
	last := blocks(90, 95, 500)
	w.publishAll(bus.Raw, last)
	w.flush(raw)
	w.publishAll(bus.Raw, append(append(append([]*bus.Record{}, old[:10]...), more...), last...))
	w.flush(raw)
	w.everywhere(append(append(old, more...), last...))
	if skips := w.skips(raw); len(skips) != 60+45 {
		t.Fatalf("%d skips", len(skips))
	}
}

// Blocks of today cost nothing: the catalog is asked once.
func TestYoungBlocksAreNotLookedUp(t *testing.T) {
	w := newWorld(t)
	var commits atomic.Int64
	a := w.start(patient(), "a", func(s archive.Step) error {
		if s == archive.StepCommit {
			commits.Add(1)
		}
		return nil
	})
	w.publishAll(bus.Raw, blocks(0, 10, 100))
	w.flush(raw)
	w.freeze(w.freezer())
	b := telemetry.Block{ID: id('b', 50), StreamID: id('s', 1), ProcessID: id('p', 1), BeginTime: time.Now().UnixNano(), NbObjects: 1}
	b.EndTime = b.BeginTime + 1000
	before := commits.Load()
	w.publish(bus.Raw, &bus.Record{
		Kind: bus.KindBlock, Tag: telemetry.TagCPU, InsertTimeUs: time.Now().UnixMicro(), ProcessID: b.ProcessID, StreamID: b.StreamID, BlockID: b.ID,
		BeginTime: b.BeginTime, EndTime: b.EndTime, Body: wire.AppendBlock(nil, &b, nil, []byte{1}),
	})
	w.flush(raw)
	a.stop()
	if n := commits.Load() - before; n != 1 {
		t.Errorf("%d commits", n)
	}
}

// Two shards get the same old blocks while freezers freeze whatever there is: each block ends up somewhere once.
func TestFreezingBesideCopies(t *testing.T) {
	w := newWorld(t)
	cfg := patient()
	cfg.PackAge, cfg.LazyAge = time.Millisecond, 2*time.Millisecond
	a := w.start(cfg, "a", nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	freezes := make([]int64, 2)
	for i := range freezes {
		f := w.freezer()
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := f.Freeze(ctx); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
			freezes[i] = f.Stats().Freezes
		})
	}
	posted := blocks(0, 180, 200)
	for range 3 {
		for part := 0; part < len(posted); part += 60 {
			w.publishAll(bus.Raw, posted[part:part+60])
			w.publishAll(bus.Eager, posted[part:part+60])
			w.flush(raw)
			w.flush(eager)
		}
	}
	cancel()
	wg.Wait()
	w.everywhere(posted)
	var blocks, copies int64
	for _, st := range a.Stats().Shards {
		blocks, copies = blocks+st.Blocks, copies+st.Duplicates
	}
	if blocks != 180 || copies != 5*180 {
		t.Errorf("%d blocks and %d copies", blocks, copies)
	}
	if freezes[0]+freezes[1] == 0 {
		t.Error("nothing was frozen")
	}
	t.Logf("%d freezes", freezes[0]+freezes[1])
}
