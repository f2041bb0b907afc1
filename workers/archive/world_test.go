package archive_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/bus/bustest"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/sqlite"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
	"github.com/micromegas-go/micromegas/workers/archive"
)

// world is a bus, a catalog in SQLite and a lake in a folder, all real.
type world struct {
	t    testing.TB
	env  *bustest.Env
	bus  *bus.Bus
	cat  *sqlite.DB
	lake *lake.Lake
}

func newWorld(t testing.TB, change ...func(*bus.Config)) *world {
	t.Helper()
	w := &world{t: t, env: bustest.NewEnv(t)}
	dir := t.TempDir()
	var err error
	if w.cat, err = sqlite.Open(t.Context(), filepath.Join(dir, "catalog.sqlite"), w.env.Log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.cat.Close() })
	uri, err := lake.FolderURI(filepath.Join(dir, "lake"))
	if err != nil {
		t.Fatal(err)
	}
	if w.lake, err = lake.Open(t.Context(), uri, lake.Options{CacheDir: filepath.Join(dir, "cache")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.lake.Close() })
	w.bus = w.openBus(change...)
	return w
}

func (w *world) openBus(change ...func(*bus.Config)) *bus.Bus {
	w.t.Helper()
	cfg := bus.DefaultConfig()
	for _, f := range change {
		f(&cfg)
	}
	b, err := bus.Open(w.t.Context(), w.env.Connect(w.t), archive.Generations{Catalog: w.cat}, w.lake, cfg, w.env.Log)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { b.Close() })
	return b
}

// patient never archives without a flush, so that a test decides.
func patient() archive.Config {
	c := archive.DefaultConfig()
	c.PackAge, c.LazyAge, c.RetryMin, c.Ownership.RetryMin = time.Hour, time.Hour, time.Millisecond, time.Millisecond
	return c
}

// running is an archive at work.
type running struct {
	*archive.Archive
	cancel context.CancelFunc
	done   chan struct{}
}

// stop ends the archive and waits for it.
func (r *running) stop() {
	r.cancel()
	<-r.done
}

func (w *world) start(cfg archive.Config, owner string, hook func(archive.Step) error) *running {
	w.t.Helper()
	a, err := archive.New(cfg, w.bus, w.cat, w.lake, owner, slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	if hook != nil {
		a.SetHook(hook)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Archive: a, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		if err := a.Run(ctx); err != nil {
			w.t.Errorf("run: %v", err)
		}
	}()
	w.t.Cleanup(r.stop)
	return r
}

var (
	eager = bus.Shard{Class: bus.Eager}
	raw   = bus.Shard{Class: bus.Raw}
)

// flush has the owner archive everything up to the head; it waits for an owner.
func (w *world) flush(s bus.Shard) bus.FlushReply {
	w.t.Helper()
	var reply bus.FlushReply
	w.eventually(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		var err error
		reply, err = w.bus.Flush(ctx, s, bus.FlushRequest{Target: bus.TargetArchive})
		if err == nil && reply.Err != "" {
			err = errors.New(reply.Err)
		}
		return err
	})
	return reply
}

// eventually polls until f returns nil.
func (w *world) eventually(f func() error) {
	w.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (w *world) publish(class bus.Class, records ...*bus.Record) {
	w.t.Helper()
	for _, r := range records {
		w.eventually(func() error { // as a client does after a 503
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			return w.bus.Publish(ctx, class, r)
		})
	}
}

// publishAll publishes at once, so that records share frames.
func (w *world) publishAll(class bus.Class, records []*bus.Record) {
	w.t.Helper()
	var wg sync.WaitGroup
	for part := range 8 {
		wg.Go(func() {
			for i := part; i < len(records); i += 8 {
				w.publish(class, records[i])
			}
		})
	}
	wg.Wait()
}

const insertUs = 1_700_000_000_000_000

func id(kind byte, n int) (i telemetry.ID) {
	i[0], i[13], i[14], i[15] = kind, byte(n>>16), byte(n>>8), byte(n)
	return i
}

func processRecord(n int) *bus.Record {
	p := telemetry.Process{ID: id('p', n), Exe: fmt.Sprint("exe", n), TSCFrequency: 1e9, StartTime: insertUs*1000 + 1, Properties: []telemetry.Property{{Key: "k", Value: "v"}}}
	return &bus.Record{Kind: bus.KindProcess, InsertTimeUs: insertUs, ProcessID: p.ID, Body: wire.AppendProcess(nil, &p)}
}

func streamRecord(n, process int) *bus.Record {
	deps, objs := wire.LogTypes()
	s := telemetry.Stream{ID: id('s', n), ProcessID: id('p', process), Dependencies: deps, Objects: objs, Tags: []string{"log"}}
	return &bus.Record{Kind: bus.KindStream, InsertTimeUs: insertUs, ProcessID: s.ProcessID, StreamID: s.ID, Body: wire.AppendStream(nil, &s)}
}

// blockRecord is block n of a stream, with a payload of size bytes that depend on n.
func blockRecord(n, stream, process, size int) *bus.Record {
	b := telemetry.Block{
		ID: id('b', n), StreamID: id('s', stream), ProcessID: id('p', process),
		BeginTime: insertUs*1000 + int64(n)*1000, EndTime: insertUs*1000 + int64(n)*1000 + 999, BeginTicks: int64(n), EndTicks: int64(n) + 1, ObjectOffset: int64(n), NbObjects: 1,
	}
	payload := make([]byte, size)
	for i := range payload {
		payload[i] = byte(n + i*7)
	}
	return &bus.Record{
		Kind: bus.KindBlock, Tag: telemetry.TagLog, InsertTimeUs: insertUs + int64(n), ProcessID: b.ProcessID, StreamID: b.StreamID, BlockID: b.ID,
		BeginTime: b.BeginTime, EndTime: b.EndTime, Body: wire.AppendBlock(nil, &b, nil, payload),
	}
}

func blocks(from, to, size int) []*bus.Record {
	var all []*bus.Record
	for n := from; n < to; n++ {
		all = append(all, blockRecord(n, n%5, n%3, size))
	}
	return all
}

// archived returns the archived blocks by id, after it has checked that each is there once and that its place in the lake
// holds the body that was posted.
func (w *world) archived(posted []*bus.Record) map[telemetry.ID]catalog.BlockRow {
	w.t.Helper()
	rows, _, err := w.cat.BlocksSince(context.Background(), nil, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	found := map[telemetry.ID]catalog.BlockRow{}
	for _, r := range rows {
		if _, twice := found[r.ID]; twice {
			w.t.Errorf("block %s is archived twice", r.ID)
		}
		found[r.ID] = r
	}
	for _, p := range posted {
		row, ok := found[p.BlockID]
		if !ok {
			w.t.Errorf("block %s is not archived", p.BlockID)
			continue
		}
		body, err := w.lake.GetRange(context.Background(), row.PackKey, row.PackOffset, row.PackLength)
		if err != nil || string(body) != string(p.Body) {
			w.t.Errorf("block %s at %s %d+%d is not what was posted: %v", p.BlockID, row.PackKey, row.PackOffset, row.PackLength, err)
		}
	}
	return found
}

// checkPacks checks that the packs of a shard follow each other without overlap, up to the checkpoint, and that each can
// be read.
func (w *world) checkPacks(s bus.Shard, gen int32) {
	w.t.Helper()
	ctx := context.Background()
	shard := catalog.ShardID{Class: byte(s.Class), Gen: gen, Shard: s.Shard}
	packs, err := w.cat.PacksAfter(ctx, shard, 0, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	last := uint64(0)
	for i, p := range packs {
		if i > 0 && p.FirstSeq != last+1 || p.LastSeq < p.FirstSeq {
			w.t.Errorf("pack %d..%d follows %d", p.FirstSeq, p.LastSeq, last)
		}
		last = p.LastSeq
		frames, err := w.lake.ReadPack(ctx, p.Key)
		if err != nil || frames[0].Seq != p.FirstSeq || frames[len(frames)-1].Seq != p.LastSeq {
			w.t.Errorf("pack %s: %v", p.Key, err)
		}
	}
	c, err := w.cat.Checkpoint(ctx, catalog.ConsumerArchive, shard)
	if err != nil || len(packs) > 0 && c.Seq != last {
		w.t.Errorf("checkpoint %+v after packs to %d, %v", c, last, err)
	}
}

func (w *world) skips(s bus.Shard) []catalog.Skip {
	w.t.Helper()
	k, err := w.cat.Skips(context.Background(), catalog.ShardID{Class: byte(s.Class), Shard: s.Shard}, 0, 1<<62)
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}
