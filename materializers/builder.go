package materializers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// builder makes rows and files of blocks of one shard: of fresh ones for its owner, of a range of the backlog for a worker. It
// is used by one goroutine.
type builder struct {
	m     *Materializers
	log   *slog.Logger
	shard bus.Shard
	gen   int32 // of the blocks that are being read

	registry *registry
	batch    *batch
	files    []*viewFiles // by view

	at      string                // begins the names of the steps
	writers int                   // files of so many views are made at once
	yield   func(context.Context) // called where others may go first; nil = nowhere
}

func newBuilder(m *Materializers) (builder, error) {
	b := builder{m: m, log: m.log, registry: newRegistry(m.catalog, m.cfg), batch: newBatch(m.views), writers: len(m.views)}
	for i := range m.views {
		f, err := newViewFiles(&m.views[i])
		if err != nil {
			return b, err
		}
		b.files = append(b.files, f)
	}
	return b, nil
}

// shardID names a generation of the shard for the catalog.
func (b *builder) shardID(gen int32) catalog.ShardID {
	return catalog.ShardID{Class: byte(b.shard.Class), Gen: gen, Shard: b.shard.Shard}
}

// load reads the body of an oversize block from the lake.
func (b *builder) load(ctx context.Context, record *bus.Record) error {
	if record.Claim == "" {
		return nil
	}
	body, err := b.m.bus.LoadBody(ctx, record)
	if err != nil {
		return fmt.Errorf("load body of block %s: %w", record.BlockID, err)
	}
	record.Body = body
	return nil
}

// lost reports whether an error says that bytes are gone or damaged for good: who tries again gets it again.
func lost(err error) bool {
	return errors.Is(err, lake.ErrNotFound) || errors.Is(err, lake.ErrCorrupt) || errors.Is(err, bus.ErrUnreadable)
}

// buryLost notes a copy as dead whose body is gone.
func (b *builder) buryLost(in *input, err error) { b.bury(in, "", "lost: "+reasonOf(err)) }

// build appends the rows of a block. It returns false when a registration is missing. Errors are trouble of the catalog, the batch
// cannot go on then; a block that cannot be built becomes dead.
func (b *builder) build(ctx context.Context, in *input) (bool, error) {
	known, err := b.registry.stream(ctx, in.record.StreamID)
	if err != nil || known == nil {
		return false, err
	}
	view := slices.IndexFunc(b.m.views, func(v View) bool { return v.Tag == known.tag })
	if view < 0 {
		if in.parked != nil {
			b.batch.segments = append(b.batch.segments, segment{place: in.place, view: -1, parked: in.parked})
		}
		return true, nil // a stream of another kind: archived, and that is all
	}
	process, err := b.registry.process(ctx, in.record.ProcessID)
	if err != nil || process == nil {
		return false, err
	}
	if err := b.appendRows(in, view, known, process); err != nil {
		b.bury(in, b.m.views[view].Table.Name, reasonOf(err))
	}
	return true, nil
}

// bury notes a block as dead.
func (b *builder) bury(in *input, view, reason string) {
	record := in.record
	record.Body = nil
	b.batch.dead = append(b.batch.dead, deadCopy{place: in.place, record: record, view: view, reason: reason, parked: in.parked})
}

// maxReasonBytes bounds the reason of a dead letter.
const maxReasonBytes = 500

// deadError is why a block is dead: a kind, by which dead letters are counted, and details.
type deadError struct {
	kind string
	err  error
}

func (e *deadError) Error() string { return e.kind + ": " + e.err.Error() }

// reasonOf returns the reason of a dead letter, with its kind before the first colon.
func reasonOf(err error) string {
	s := err.Error()
	var corrupt *wire.CorruptError
	switch {
	case errors.As(err, &corrupt):
		s = "corrupt: " + strings.TrimPrefix(s, "corrupt block "+corrupt.Block.String()+": ")
	case errors.Is(err, ErrTooManyRows):
		s = "too large: " + s
	}
	if len(s) > maxReasonBytes {
		s = strings.ToValidUTF8(s[:maxReasonBytes], "")
	}
	return s
}

// largeBlock is the compressed size of events from which a decoder is not kept: its buffers have grown.
const largeBlock = 2 << 20

// appendRows decodes a block into its view's rows, or leaves them as they were.
func (b *builder) appendRows(in *input, view int, known *stream, process *Process) (err error) {
	rows := b.batch.rows[view]
	before := rows.Len()
	defer func() {
		if r := recover(); r != nil { // a mistake of ours: one block must not stop the others
			err = &deadError{"panic", fmt.Errorf("%v", r)}
			b.log.Error("block decoder panicked", "block_id", in.record.BlockID.String(), "panic", r)
		}
		rows.Forget()
		if err != nil {
			rows.Truncate(before)
		}
	}()
	if known.format != telemetry.FormatTransit {
		return &deadError{"format", fmt.Errorf("%q is not known", known.format)}
	}
	body, err := wire.DecodeBlock(in.record.Body)
	if err != nil {
		return &deadError{"envelope", err}
	}
	clock, err := telemetry.NewClock(process.Process, body.Block)
	if err != nil {
		return &deadError{"clock", err}
	}
	decoder, err := b.registry.decoder(known)
	if err != nil {
		return &deadError{"layout", err}
	}
	if len(body.Dependencies)+len(body.Objects) > largeBlock {
		defer b.registry.dropDecoder(known)
	}
	insertTime := in.record.InsertTimeUs * 1000
	counts, err := b.m.views[view].Append(rows, &Source{
		Process: process, StreamID: in.record.StreamID.String(), BlockID: in.record.BlockID.String(), InsertTime: insertTime,
		Block: &body, Decoder: decoder, Clock: clock, MaxRows: b.m.cfg.MaxBlockRows,
	})
	if err != nil {
		return err
	}
	b.m.stats.count(counts)
	s := segment{place: in.place, view: view, begin: before, end: rows.Len(), insertTime: insertTime, process: in.record.ProcessID, parked: in.parked}
	if times := rows.Columns[ColumnTime].Ints[s.begin:s.end]; len(times) > 0 {
		s.minTime, s.maxTime = slices.Min(times), slices.Max(times)
	}
	if s.begin < s.end || s.parked != nil {
		b.batch.segments = append(b.batch.segments, s)
	}
	return nil
}

// writeFiles makes and puts the files of all views.
func (b *builder) writeFiles(ctx context.Context) ([]built, error) {
	if err := b.m.step(b.at + "before put"); err != nil {
		return nil, err
	}
	byView := make([][]built, len(b.files))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(b.writers)
	for view, f := range b.files {
		if b.batch.rows[view].Len() == 0 {
			continue
		}
		g.Go(func() (err error) {
			if b.yield != nil {
				b.yield(gctx)
			}
			if byView[view], err = f.make(b.batch.rows[view], view, b.batch.segments, b.m.cfg); err != nil {
				return err
			}
			return putFiles(gctx, b.m.objects, byView[view])
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := b.m.step(b.at + "after put"); err != nil {
		return nil, err
	}
	var files []built
	for _, more := range byView {
		files = append(files, more...)
	}
	return files, nil
}

// maxLetters bounds the dead letters of one commit, each of which waits for its own fsync: rows of others wait for them.
const maxLetters = 1000

// tellDead sends the dead letters of the batch, as far as maxLetters goes; the catalog's rows name all dead copies. A crash before the commit sends them again; the bus knows them by their place.
func (b *builder) tellDead(ctx context.Context) error {
	if n := len(b.batch.dead) - maxLetters; n > 0 {
		b.log.Warn("too many dead blocks for a letter each; the catalog names all", "without_letter", n)
	}
	for i := range b.batch.dead[:min(len(b.batch.dead), maxLetters)] {
		d := &b.batch.dead[i]
		if d.told {
			continue
		}
		gen := b.gen
		if d.parked != nil {
			gen = d.parked.Shard.Gen
		}
		err := b.m.bus.DeadLetter(ctx, bus.DeadLetter{
			Copy:    bus.Copy{Position: bus.Position{Shard: b.shard, Gen: gen, Seq: d.seq}, Rec: d.rec},
			BlockID: d.record.BlockID, StreamID: d.record.StreamID, ProcessID: d.record.ProcessID, View: d.view, Reason: d.reason,
		})
		if err != nil {
			return fmt.Errorf("send dead letter of block %s: %w", d.record.BlockID, err)
		}
		d.told = true
		b.log.Warn("block is dead", "block_id", d.record.BlockID.String(), "stream_id", d.record.StreamID.String(), "view", d.view, "reason", d.reason)
	}
	return nil
}

// rest adds to a commit what was not built: copies to be parked, first those that wait in the order of the batch, then the dead.
func (b *builder) rest(c *catalog.ViewCommit) {
	shard, now := b.shardID(b.gen), time.Now().UnixNano()
	for i := range b.batch.waiting {
		w := &b.batch.waiting[i]
		c.ParkedAdded = append(c.ParkedAdded, catalog.Parked{
			Shard: shard, Seq: w.seq, Rec: w.rec, StreamID: w.record.StreamID, ProcessID: w.record.ProcessID, Since: now,
		})
	}
	for i := range b.batch.dead {
		d := &b.batch.dead[i]
		p := catalog.Parked{
			Shard: shard, Seq: d.seq, Rec: d.rec, StreamID: d.record.StreamID, ProcessID: d.record.ProcessID, Since: now,
		}
		if d.parked != nil {
			p = d.parked.Parked
		}
		p.Dead, p.Reason = true, d.reason
		c.ParkedAdded = append(c.ParkedAdded, p)
	}
}
