package deploy_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// hostile is a producer that posts what no sound client would, beside one whose rows must all be there.
type hostile struct {
	t *testing.T
	p *process
	w *writer // the process and stream whose ids are used
}

// send posts one body and fails unless the status is one of those given.
func (h *hostile) send(name, route string, body []byte, want ...int) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 30*time.Second)
	defer cancel()
	code, err := h.p.Post(ctx, route, body)
	if err != nil {
		if len(want) > 0 && want[0] == http.StatusRequestEntityTooLarge {
			return // the server stops reading, and a client that insists on sending sees the connection go
		}
		h.t.Errorf("%s: %v", name, err)
		return
	}
	if !slices.Contains(want, code) {
		h.t.Errorf("%s: status %d, want %v", name, code, want)
	}
}

// block is a block of the writer's stream with n objects.
func (h *hostile) block(n int32) telemetry.Block {
	b := telemetry.Block{
		ID: telemetry.NewID(), StreamID: h.w.stream.ID, ProcessID: h.w.process.ID, NbObjects: n,
		BeginTicks: 1, EndTicks: 1e9, BeginTime: h.w.process.StartTime, EndTime: h.w.process.StartTime + 1e9,
	}
	return b
}

// oneLog is the buffers of a block of one entry.
func oneLog(ticks int64, msg string) *deploytest.Emitter {
	var e deploytest.Emitter
	e.Log(ticks, 4, "hostile", msg)
	return &e
}

// register posts a stream of the writer's process that others have not seen.
func (h *hostile) register(change func(*telemetry.Stream)) telemetry.ID {
	h.t.Helper()
	s := h.w.stream
	s.ID = telemetry.NewID()
	change(&s)
	h.send("a further stream", "insert_stream", wire.AppendStream(nil, &s), http.StatusOK)
	return s.ID
}

// refused posts envelopes that are not sound.
func (h *hostile) refused() {
	sound := oneLog(1, "x").Body(h.block(1))
	id := h.w.stream.ID.String()
	replace := func(old, now string) []byte { return bytes.Replace(sound, []byte(old), []byte(now), 1) }
	for name, body := range map[string][]byte{
		"nothing":               {},
		"a text":                []byte("hello"),
		"JSON":                  []byte(`{"block_id":"x"}`),
		"deep arrays":           bytes.Repeat([]byte{0x81}, 1<<20),
		"deep maps":             bytes.Repeat([]byte{0xa1, 0x61, 'a'}, 1<<20),
		"endless arrays":        bytes.Repeat([]byte{0x9f}, 1<<20),
		"tags of tags":          bytes.Repeat([]byte{0xc1}, 1<<20),
		"a map of 2^62 entries": append([]byte{0xbb, 0x40, 0, 0, 0, 0, 0, 0, 0}, sound[1:]...),
		"a text of 2^63 bytes":  {0xa1, 0x7b, 0x80, 0, 0, 0, 0, 0, 0, 0},
		"half a block":          sound[:len(sound)/2],
		"no UUID":               replace(id, strings.Repeat("z", len(id))),
		"an id with a NUL":      replace(id, "\x00"+id[1:]),
		"another key":           replace("block_id", "blok_id_"),
		"a key that is no text": replace("block_id", "\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8"),
	} {
		for _, route := range []string{"insert_block", "insert_stream", "insert_process"} {
			h.send(name+" as "+route, route, body, http.StatusBadRequest)
		}
	}
	for name, change := range map[string]func(*telemetry.Block){
		"minus one object": func(b *telemetry.Block) { b.NbObjects = -1 },
	} {
		b := h.block(1)
		change(&b)
		h.send(name, "insert_block", oneLog(1, "x").Body(b), http.StatusBadRequest)
	}
	h.send("101 MiB", "insert_block", make([]byte, 101<<20), http.StatusRequestEntityTooLarge)
	h.send("no such route", "insert_everything", sound, http.StatusNotFound)
}

// dead posts blocks whose envelope is sound and whose events are not. It returns how many.
func (h *hostile) dead() int {
	e := oneLog(1, "x")
	deps, objs := wire.Compress(nil, e.Deps), wire.Compress(nil, e.Objs)
	bomb := wire.CompressHigh(nil, make([]byte, 300<<20))
	nested := objs
	for range 8 {
		nested = wire.Compress(nil, nested)
	}
	lying := bytes.Clone(objs)
	lying[len(lying)/2] ^= 0xff
	blocks := map[string]func(b *telemetry.Block) []byte{
		"objects that are a bomb":      func(b *telemetry.Block) []byte { return wire.AppendBlock(nil, b, deps, bomb) },
		"dependencies that are a bomb": func(b *telemetry.Block) []byte { return wire.AppendBlock(nil, b, bomb, objs) },
		"compressed again and again":   func(b *telemetry.Block) []byte { return wire.AppendBlock(nil, b, deps, nested) },
		"no frame":                     func(b *telemetry.Block) []byte { return wire.AppendBlock(nil, b, deps, []byte("nothing of the kind")) },
		"empty buffers":                func(b *telemetry.Block) []byte { return wire.AppendBlock(nil, b, nil, nil) },
		"half a frame":                 func(b *telemetry.Block) []byte { return wire.AppendBlock(nil, b, deps, objs[:len(objs)/2]) },
		"a flipped byte":               func(b *telemetry.Block) []byte { return wire.AppendBlock(nil, b, deps, lying) },
		"buffers in the wrong order":   func(b *telemetry.Block) []byte { return wire.AppendBlock(nil, b, objs, deps) },
		"noise": func(b *telemetry.Block) []byte {
			noise := make([]byte, 64<<10)
			rand.Read(noise)
			return wire.AppendBlock(nil, b, wire.Compress(nil, noise), wire.Compress(nil, noise))
		},
	}
	for name, make := range blocks {
		b := h.block(1)
		h.send(name, "insert_block", make(&b), http.StatusOK)
	}
	return len(blocks)
}

// odd posts what is strange and sound. It returns the messages whose rows must be there once each.
func (h *hostile) odd() []string {
	var want []string
	post := func(name string, change func(*telemetry.Block, *deploytest.Emitter)) {
		var e deploytest.Emitter
		b := h.block(1)
		change(&b, &e)
		if e.Count == 0 {
			e.Log(1, 4, "hostile", name)
		}
		b.NbObjects = e.Count
		body := e.Body(b)
		for range 2 { // the second is a duplicate
			h.send(name, "insert_block", body, http.StatusOK)
		}
		want = append(want, name)
	}
	other := telemetry.Process{ID: telemetry.NewID(), Exe: "other", TSCFrequency: 1e9, StartTime: time.Now().UnixNano()}
	h.send("another process", "insert_process", wire.AppendProcess(nil, &other), http.StatusOK)
	post("at 1970", func(b *telemetry.Block, _ *deploytest.Emitter) { b.BeginTime, b.EndTime = 0, 1 })
	post("at 2100", func(b *telemetry.Block, _ *deploytest.Emitter) { b.BeginTime, b.EndTime = 4102444800e9, 4102444801e9 })
	post("at the end of time", func(b *telemetry.Block, _ *deploytest.Emitter) { b.BeginTime, b.EndTime = 1<<63-2000, 1<<63-1000 })
	post("end before begin", func(b *telemetry.Block, _ *deploytest.Emitter) { b.EndTime = b.BeginTime - 1e12 })
	post("ticks below zero", func(b *telemetry.Block, e *deploytest.Emitter) {
		b.BeginTicks, b.EndTicks = -1<<62, -1
		e.Log(-1<<63, 4, "hostile", "ticks below zero")
	})
	post("ticks at their end", func(b *telemetry.Block, e *deploytest.Emitter) {
		b.EndTicks = 1<<63 - 1
		e.Log(1<<63-1, 4, "hostile", "ticks at their end")
	})
	post("no ticks at all", func(b *telemetry.Block, _ *deploytest.Emitter) { b.BeginTicks, b.EndTicks = 0, 0 })
	post("offset at its end", func(b *telemetry.Block, _ *deploytest.Emitter) { b.ObjectOffset = 1<<63 - 1 })
	post("of another process", func(b *telemetry.Block, _ *deploytest.Emitter) { b.ProcessID = other.ID })
	post("10,000 property sets", func(_ *telemetry.Block, e *deploytest.Emitter) {
		e.Log(1, 4, "hostile", "10,000 property sets")
		for i := range 10_000 {
			e.Log(1, 4, "sets", "one of many", "key", strconv.Itoa(i))
		}
	})
	post("1 MiB of text", func(_ *telemetry.Block, e *deploytest.Emitter) {
		e.Log(1, 4, "hostile", "1 MiB of text")
		e.Log(1, 4, "long", strings.Repeat("x", 1<<20))
		e.Log(1, 4, "long", strings.Repeat("y", 3<<20))
		e.Log(1, 4, "nul\x00name", "nul\x00 and \xff\xfe")
	})
	post("a level of 4 thousand million", func(_ *telemetry.Block, e *deploytest.Emitter) {
		e.Log(1, 4, "hostile", "a level of 4 thousand million")
		e.Log(1, 1<<32-1, "level", "x")
	})

	untagged := h.block(1)
	untagged.StreamID = h.register(func(s *telemetry.Stream) { s.Tags = nil })
	h.send("without tags", "insert_block", oneLog(1, "of no view").Body(untagged), http.StatusOK)
	many := h.block(1<<31 - 1)
	h.send("two thousand million objects", "insert_block", oneLog(1, "two thousand million objects").Body(many), http.StatusOK)
	want = append(want, "two thousand million objects") // the buffer says how many there are

	// Registrations: again with other content, with layouts that contain themselves, with many types.
	again := h.w.process
	again.Exe = "somebody else"
	h.send("the process again", "insert_process", wire.AppendProcess(nil, &again), http.StatusOK)
	stream := h.w.stream
	stream.Objects, stream.Tags = nil, []string{"metrics"}
	h.send("the stream again", "insert_stream", wire.AppendStream(nil, &stream), http.StatusOK)
	h.register(func(s *telemetry.Stream) {
		s.Objects = []telemetry.Type{
			{Name: "A", Size: 8, Members: []telemetry.Member{{Name: "b", TypeName: "B", Size: 8}}},
			{Name: "B", Size: 8, Members: []telemetry.Member{{Name: "a", TypeName: "A", Size: 8}}},
		}
	})
	post("256 types", func(b *telemetry.Block, _ *deploytest.Emitter) {
		b.StreamID = h.register(func(s *telemetry.Stream) {
			for i := range 250 {
				s.Objects = append(s.Objects, telemetry.Type{Name: "T" + strconv.Itoa(i), Size: 1 << 31})
			}
		})
	})

	// No objects; and a stream that comes after its block.
	h.send("no objects", "insert_block", (&deploytest.Emitter{}).Body(h.block(0)), http.StatusOK)
	late := h.w.stream
	late.ID = telemetry.NewID()
	post("before its stream", func(b *telemetry.Block, _ *deploytest.Emitter) { b.StreamID = late.ID })
	h.send("the late stream", "insert_stream", wire.AppendStream(nil, &late), http.StatusOK)
	post("of no stream", func(b *telemetry.Block, _ *deploytest.Emitter) { b.StreamID = telemetry.NewID() })
	return want[:len(want)-1] // nobody registers that one
}

// large posts bodies of 99 MiB at once: the bus takes them by reference.
func (h *hostile) large() []string {
	noise := make([]byte, 99<<20)
	rand.Read(noise)
	var wg sync.WaitGroup
	var want []string
	for i := range 4 {
		name := "large " + strconv.Itoa(i)
		e := oneLog(1, name)
		b := h.block(1)
		// What follows the frame is ignored, and kept.
		body := wire.AppendBlock(nil, &b, wire.Compress(nil, e.Deps), append(wire.Compress(nil, e.Objs), noise...))
		want = append(want, name)
		wg.Go(func() {
			for range 50 { // 503 while others are in flight
				code, err := h.p.Post(h.t.Context(), "insert_block", body)
				if err == nil && code == http.StatusOK {
					return
				}
				if code != http.StatusServiceUnavailable {
					h.t.Errorf("%s: %d, %v", name, code, err)
					return
				}
				select {
				case <-time.After(200 * time.Millisecond):
				case <-h.t.Context().Done():
					return
				}
			}
			h.t.Errorf("%s: refused to the end", name)
		})
	}
	wg.Wait()
	return want
}

// residentMiB returns the resident memory of the server, 0 where that cannot be known.
func (p *process) residentMiB() int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.Cmd.Process.Pid))
	if err != nil {
		return 0
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		p.T.Error(err)
	}
	return pages * os.Getpagesize() >> 20
}

// hostileRise is what hostile input may add to the server's memory: bodies in flight, their copies on the way to the
// lake, and two buffers of 256 MiB.
const hostileRise = 1536 // MiB

// TestHostileInputHarmsNobody posts everything above beside a sound producer.
func TestHostileInputHarmsNobody(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; run without -short")
	}
	p := startServe(t, deploytest.NewDataDir(t))
	w := newWriter(20)
	if err := w.register(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	sound := make(chan struct{})
	go func() { defer close(sound); w.run(ctx, p, 2) }()
	before, peak := p.residentMiB(), make(chan int, 1)
	go func() {
		most := 0
		for ctx.Err() == nil {
			most = max(most, p.residentMiB())
			time.Sleep(20 * time.Millisecond)
		}
		peak <- most
	}()

	h := &hostile{t: t, p: p, w: newWriter(1)}
	if err := h.w.register(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	h.refused()
	dead := h.dead()
	want := h.odd()
	want = append(want, h.large()...)
	acked := w.ackedCount()
	deploytest.Eventually(t, 20*time.Second, "the sound producer goes on", func() bool { return w.ackedCount() > acked })
	stop()
	<-sound
	if most := <-peak; most-before > hostileRise {
		t.Errorf("memory rose from %d to %d MiB", before, most)
	} else {
		t.Logf("memory rose from %d to %d MiB; %d sound blocks meanwhile", before, most, w.ackedCount())
	}

	got := map[string]string{}
	for _, r := range p.mustQuery("SELECT msg, count(*) FROM log_entries WHERE target = 'hostile' GROUP BY msg") {
		msg, n, _ := strings.Cut(r, "|")
		got[msg] = n
	}
	for _, msg := range want {
		if got[msg] != "1" {
			t.Errorf("%q is there %s times, want once", msg, got[msg])
		}
		delete(got, msg)
	}
	if len(got) > 0 {
		t.Errorf("further rows: %v", got)
	}
	if n := p.count("SELECT count(*) FROM log_entries WHERE target = 'sets'"); n != 10_000 {
		t.Errorf("%d rows with property sets of their own", n)
	}
	if rows := p.mustQuery("SELECT max(octet_length(msg)) FROM log_entries WHERE target = 'long'"); rows[0] != itoa(1<<20) {
		t.Errorf("the longest message has %s bytes", rows[0])
	}
	if rows := p.mustQuery("SELECT exe FROM processes WHERE process_id = '" + h.w.process.ID.String() + "'"); len(rows) != 1 || rows[0] != "writer" {
		t.Errorf("the second registration counts: %q", rows)
	}
	if n := p.count(`SELECT count(*) FROM blocks WHERE "streams.tags" = []`); n != 1 {
		t.Errorf("%d blocks without tags are listed", n)
	}
	checkAcked(t, p, w)
	letters, err := json.Marshal(p.Status()["dead_letters"])
	if err != nil {
		t.Fatal(err)
	}
	if n := deadLetters(p); n != dead {
		t.Errorf("%d dead letters, want %d: %s", n, dead, letters)
	}
	p.Stop()
}

// deadLetters adds up the counts of /status.
func deadLetters(p *process) int {
	counts, _ := p.Status()["dead_letters"].(map[string]any)
	sum := 0.0
	for _, n := range counts {
		f, _ := n.(float64)
		sum += f
	}
	return int(sum)
}
