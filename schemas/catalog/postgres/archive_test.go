package postgres

import (
	"bytes"
	"fmt"
	"testing"
	"unicode/utf8"

	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

func registration(id telemetry.ID) catalog.ProcessReg {
	return catalog.ProcessReg{Process: telemetry.Process{ID: id, Exe: "exe"}, InsertTime: 1e9}
}

func streamRegistration(id, process telemetry.ID) catalog.StreamReg {
	return catalog.StreamReg{
		Stream:           telemetry.Stream{ID: id, ProcessID: process, Tags: []string{"log"}, Format: telemetry.FormatTransit},
		DependenciesCBOR: []byte("dependencies"), ObjectsCBOR: []byte("objects"), InsertTime: 1e9,
	}
}

// Texts that PostgreSQL cannot hold must not stop the archive.
func TestHostileTextsAreKeptAsFarAsPossible(t *testing.T) {
	db := open(t, database(t))
	const bad = "a\x00b\xffc"
	h := newHouse(1, 1)
	c := h.commit(1)
	p, s := registration(h.processes[0]), streamRegistration(h.streams[0], h.processes[0])
	p.Exe, p.Username, p.Realname, p.Computer, p.Distro, p.CPUBrand = bad, bad, bad, bad, bad, bad
	p.Properties = []telemetry.Property{{Key: bad, Value: bad}}
	s.Format, s.Tags, s.Properties = bad, []string{bad, "log"}, p.Properties
	c.Processes, c.Streams = []catalog.ProcessReg{p}, []catalog.StreamReg{s}
	if err := db.CommitArchive(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	processes, err := db.Processes(t.Context(), nil)
	if err != nil || len(processes) != 1 {
		t.Fatal(processes, err)
	}
	if got, want := processes[0].Exe, "a\uFFFDb\uFFFDc"; got != want {
		t.Errorf("exe %q, want %q", got, want)
	}
	if got, want := processes[0].Properties, "a\x00b\uFFFDc"; len(got) != 1 || got[0].Key != want || got[0].Value != want {
		t.Errorf("properties %q", got)
	}
	streams, err := db.Streams(t.Context(), nil)
	if err != nil || len(streams) != 1 || !utf8.ValidString(streams[0].Format) || len(streams[0].Tags) != 2 {
		t.Fatal(streams, err)
	}
	parked := catalog.Parked{Shard: h.shard, Seq: 1, Reason: bad, Dead: true}
	if _, err := db.CommitView(t.Context(), &catalog.ViewCommit{Consumer: "views", ParkedAdded: []catalog.Parked{parked}}); err != nil {
		t.Fatal(err)
	}
	if found, err := db.KeysReferenced(t.Context(), []string{bad, "packs/0"}); err != nil || found[0] || !found[1] {
		t.Errorf("%v, %v", found, err)
	}
}

// A layout of a megabyte goes to the server once, however many streams register with it, and comes back once.
func TestLayoutsTravelOnce(t *testing.T) {
	url := database(t)
	db := open(t, url)
	h := newHouse(5, 1)
	large := bytes.Repeat([]byte("layout "), 1<<17)
	for i, id := range h.streams {
		c := h.commit(0)
		s := streamRegistration(id, h.processes[0])
		s.ObjectsCBOR = large
		c.Streams = []catalog.StreamReg{s}
		if a := newArchiving(db, c); len(a.layouts) > 0 != (i == 0) {
			t.Errorf("registration %d sends %d layouts", i, len(a.layouts))
		}
		if err := db.CommitArchive(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 2 {
		streams, err := db.Streams(t.Context(), nil)
		if err != nil || len(streams) != 5 {
			t.Fatal(len(streams), err)
		}
		for i := range streams {
			if !bytes.Equal(streams[i].ObjectsCBOR, large) {
				t.Errorf("layout of %d bytes", len(streams[i].ObjectsCBOR))
			}
		}
		if n == 0 { // the second time nobody may ask for it
			exec(t, raw(t, url), "ALTER TABLE layouts RENAME COLUMN body TO hidden")
		}
	}
}

// What this process remembers of the database is not what its correctness rests on: a server may have come back without it.
func TestLostRowsAreWrittenAgain(t *testing.T) {
	url := database(t)
	db := open(t, url)
	h := newHouse(3, 1)
	s := streamRegistration(h.streams[0], h.processes[0])
	first := h.commit(10)
	first.Streams = []catalog.StreamReg{s}
	if err := db.CommitArchive(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if _, err := db.CommitView(t.Context(), viewCommit(0, 1)); err != nil {
		t.Fatal(err)
	}
	exec(t, raw(t, url), "TRUNCATE streams, processes, layouts, views, blocks, packs, partitions")
	second := h.commit(10)
	s.ID = telemetry.NewID()
	second.Streams = []catalog.StreamReg{s}
	if err := db.CommitArchive(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	if _, err := db.CommitView(t.Context(), viewCommit(1, 1)); err != nil {
		t.Fatal(err)
	}
	stats, err := db.Stats(t.Context())
	if err != nil || stats.Blocks != 10 || stats.Streams != 4 || stats.Partitions != 1 {
		t.Errorf("%+v, %v", stats, err)
	}
}

func TestManyShardsAndStepsReadInOrder(t *testing.T) {
	db := open(t, database(t))
	const shards, commits = 3, packsInStep + 10
	for s := range shards {
		h := newHouse(2, 1)
		h.shard.Shard = int32(s)
		for range commits {
			if err := db.CommitArchive(t.Context(), h.commit(2)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, limit := range []int{0, 7, 1000} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			var at map[catalog.ShardID]uint64
			n := 0
			for {
				rows, to, err := db.BlocksSince(t.Context(), at, limit)
				if err != nil {
					t.Fatal(err)
				}
				if len(rows) == 0 {
					break
				}
				if limit > 0 && (len(rows) < limit && n+len(rows) < shards*commits*2 || len(rows) > limit+1) {
					t.Fatalf("%d rows with limit %d", len(rows), limit)
				}
				n += len(rows)
				at = to
			}
			if n != shards*commits*2 || len(at) != shards || at[catalog.ShardID{Class: 'e'}] != commits {
				t.Errorf("%d rows up to %v", n, at)
			}
		})
	}
}

// Of the blocks that an earlier version archived the last time stands for that of the last ticks, until a block with more ticks comes.
func TestLastTicksOfEarlierBlocks(t *testing.T) {
	url := database(t)
	db := open(t, url)
	archive := func(n byte, ticks, end int64) {
		t.Helper()
		b := telemetry.Block{ID: telemetry.ID{n}, StreamID: telemetry.ID{1}, ProcessID: telemetry.ID{1}, EndTicks: ticks, EndTime: end}
		err := db.CommitArchive(t.Context(), &catalog.ArchiveCommit{
			Shard: catalog.ShardID{Class: 'e'}, From: uint64(n), To: uint64(n) + 1, Pack: &catalog.Pack{Key: "packs/" + string('0'+n)}, Blocks: []catalog.BlockReg{{Block: b}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	want := func(ticks, time int64) {
		t.Helper()
		rows, err := db.Processes(t.Context(), nil)
		if err != nil || len(rows) != 1 || rows[0].LastTicks != ticks || rows[0].LastTicksTime != time {
			t.Fatalf("processes %+v, %v, want ticks %d of %d", rows, err, ticks, time)
		}
	}
	archive(0, 50, 5000)
	archive(1, 20, 9000)
	want(50, 5000)
	exec(t, raw(t, url), "ALTER TABLE process_seen DROP COLUMN last_ticks_time")
	exec(t, raw(t, url), "UPDATE catalog_version SET version = 6")
	db = open(t, url)
	want(50, 9000)
	archive(2, 30, 3000)
	want(50, 9000)
	archive(3, 60, 6000)
	want(60, 6000)
}
