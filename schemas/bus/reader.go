package bus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// readBatch bounds the frames that a Reader holds ahead, beside Config.ReadAhead in bytes.
	readBatch = 512
	// readerIdle is how long the server keeps the place of a Reader that does not ask.
	readerIdle = 2 * time.Minute
	// readExpiry and readHeartbeat keep a Reader that waits sure that the server still knows it.
	readExpiry    = 30 * time.Second
	readHeartbeat = 5 * time.Second
	// maxGaps is how often in a row the bus may go on above the next sequence while it claims to hold it. Once can be a
	// message lost on the way; twice is damage in its store, which packs may not have.
	maxGaps = 2
	// stallAfter is how long a Reader trusts silence before it asks whether the stream has more. A question costs 0.2 ms; a
	// stalled reader would cost every query behind it the rows that it waits for.
	stallAfter = time.Second
)

// Reader returns one generation's frames in order, each once and none skipped. It follows the bus; where the bus was
// trimmed, or the generation is closed, it reads packs. It keeps no progress: whoever reads knows how far it came.
// A Reader is for one goroutine.
type Reader struct {
	bus        *Bus
	shard      *shard
	packs      PackSource // nil = none
	generation Generation
	last       uint64 // sequence of the last frame returned

	archived []Frame                   // from a pack, to be returned next
	follow   jetstream.MessagesContext // nil while not attached to the bus
	consumer string
	unwatch  func() bool // stops waiting for the link's end
	gaps     int         // how often the bus went on above last+1, in a row
	heard    time.Time   // when the bus last gave something, or was found to have nothing
	pause    time.Duration
	closed   bool
}

// NewReader returns a Reader of the frames after a position. A position below the generation's first sequence means its
// beginning. packs may be nil; then frames that the bus does not hold any more are a hole. It must be closed with Close.
func (b *Bus) NewReader(ctx context.Context, after Position, packs PackSource) (*Reader, error) {
	s, err := b.lookup(after.Shard)
	if err != nil {
		return nil, fmt.Errorf("read shard: %w", err)
	}
	for _, g := range b.Generations(after.Shard) {
		if g.Gen == after.Gen {
			return &Reader{bus: b, shard: s, packs: packs, generation: g, last: max(after.Seq, g.FirstSeq-1), pause: retryMin}, nil
		}
	}
	return nil, fmt.Errorf("read shard %s: unknown generation %d", after.Shard, after.Gen)
}

// Next returns the next frame; it waits for one until ctx is done. io.EOF says that the generation is closed and that
// its packs hold nothing more: the next generation's frames follow. ErrHole says that frames are missing for good. While
// the server is away Next waits and tries again.
func (r *Reader) Next(ctx context.Context) (Frame, error) {
	for {
		if r.closed {
			return Frame{}, ErrClosed
		}
		if len(r.archived) > 0 {
			f := r.archived[0]
			r.archived = r.archived[1:]
			r.last = f.Seq
			return f, nil
		}
		if r.follow == nil {
			if err := r.findSource(ctx); err != nil {
				return Frame{}, err
			}
			continue
		}
		if f, ok, err := r.nextFromBus(ctx); ok || err != nil {
			return f, err
		}
	}
}

// nextFromBus returns the next frame from the bus. ok is false when the Reader must find its source again.
func (r *Reader) nextFromBus(ctx context.Context) (f Frame, ok bool, err error) {
	if time.Since(r.heard) > stallAfter && r.stalled(ctx) {
		r.detach()
		return Frame{}, false, nil
	}
	// It waits in turns: what it waits for may have been trimmed since it attached, and then nothing comes.
	turn, cancel := context.WithTimeout(ctx, stallAfter)
	defer cancel()
	msg, err := r.follow.Next(jetstream.NextContext(turn))
	if err != nil {
		if ctx.Err() != nil {
			return Frame{}, false, ctx.Err()
		}
		if turn.Err() != nil {
			return Frame{}, false, nil
		}
		r.detach()
		return Frame{}, false, nil
	}
	meta, err := msg.Metadata()
	if err != nil {
		return Frame{}, false, fmt.Errorf("read shard %s after %d: %w", r.shard.Shard, r.last, err)
	}
	switch seq := meta.Sequence.Stream; {
	case seq <= r.last:
		return Frame{}, false, nil
	case seq > r.last+1: // trimmed under us, or damaged
		r.gaps++
		r.bus.log.Warn("reader found a gap on the bus", "shard", r.shard.String(), "after", r.last, "next", seq, "times", r.gaps)
		r.detach()
		return Frame{}, false, nil
	}
	r.last++
	r.gaps, r.pause, r.heard = 0, retryMin, time.Now()
	r.shard.trimmer.note(r.last, len(msg.Data()))
	return Frame{Position: r.position(), Data: msg.Data()}, true, nil
}

// stalled says whether the stream holds frames that do not come: the server may have forgotten the Reader's place.
func (r *Reader) stalled(ctx context.Context) bool {
	st, err := r.bus.streamState(ctx, r.shard)
	if err != nil {
		return ctx.Err() == nil
	}
	r.heard = time.Now()
	return st.LastSeq > r.last || st.Created != r.generation.Created
}

func (r *Reader) position() Position {
	return Position{Shard: r.shard.Shard, Gen: r.generation.Gen, Seq: r.last}
}

// findSource attaches the Reader to the bus, or gets it archived frames. It returns nil after a failure that may pass,
// when it has waited for a moment.
func (r *Reader) findSource(ctx context.Context) error {
	if r.shard.current().Gen > r.generation.Gen {
		return r.readPack(ctx, io.EOF)
	}
	st, err := r.bus.streamState(ctx, r.shard)
	switch {
	case err != nil && !errors.Is(err, jetstream.ErrStreamNotFound):
		return r.retry(ctx, err)
	case err != nil || st.Created != r.generation.Created || st.LastSeq < r.last:
		return r.restore(ctx, st, err == nil)
	case st.FirstSeq > r.last+1 || r.gaps >= maxGaps:
		return r.readPack(ctx, fmt.Errorf("read shard %s after %d: the stream holds %d..%d and no pack goes on: %w",
			r.shard.Shard, r.last, st.FirstSeq, st.LastSeq, ErrHole))
	}
	return r.attach(ctx)
}

// restore is called when the stream is not the generation's any more, or ends before the Reader's position. Either it is
// the sign of a new generation, which closes this one, or the position was never on the bus.
func (r *Reader) restore(ctx context.Context, st streamState, found bool) error {
	if err := r.bus.ensure(ctx, r.shard); err != nil {
		return r.retry(ctx, err)
	}
	if r.shard.current().Gen == r.generation.Gen && found && st.LastSeq < r.last {
		return fmt.Errorf("read shard %s after %d: the stream ends at %d: %w", r.shard.Shard, r.last, st.LastSeq, ErrHole)
	}
	return nil
}

// readPack gets the next pack's frames, or returns the error that stands for there being none.
func (r *Reader) readPack(ctx context.Context, none error) error {
	if r.packs == nil {
		return none
	}
	frames, err := r.packs.NextFrames(ctx, r.position())
	if err != nil {
		return fmt.Errorf("read packs of shard %s after %d: %w", r.shard.Shard, r.last, err)
	}
	for len(frames) > 0 && frames[0].Seq <= r.last {
		frames = frames[1:]
	}
	if len(frames) == 0 {
		return none
	}
	for i, f := range frames {
		if f.Seq != r.last+1+uint64(i) || f.Gen != r.generation.Gen || f.Shard != r.shard.Shard {
			return fmt.Errorf("read packs of shard %s after %d: frame %s follows: %w", r.shard.Shard, r.last+uint64(i), f.Position, ErrHole)
		}
	}
	r.archived, r.gaps = frames, 0
	return nil
}

// attach follows the bus from the frame after last on.
func (r *Reader) attach(ctx context.Context) error {
	link := r.bus.link.Load()
	asked, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	consumer, err := r.bus.js.CreateConsumer(asked, r.shard.name, jetstream.ConsumerConfig{
		AckPolicy:         jetstream.AckNonePolicy,
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       r.last + 1,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: readerIdle,
	})
	if err != nil {
		return r.retry(ctx, err)
	}
	follow, err := consumer.Messages(jetstream.PullMaxMessagesWithBytesLimit(readBatch, r.bus.cfg.ReadAhead),
		jetstream.PullExpiry(readExpiry), jetstream.PullHeartbeat(readHeartbeat))
	if err != nil {
		return r.retry(ctx, err)
	}
	r.consumer, r.follow, r.heard = consumer.CachedInfo().Name, follow, time.Now()
	r.unwatch = context.AfterFunc(link.ctx, follow.Stop) // the server forgets its place; start over at once
	return nil
}

// detach leaves the bus.
func (r *Reader) detach() {
	if r.follow == nil {
		return
	}
	r.unwatch()
	r.follow.Stop()
	r.follow = nil
	if r.bus.nc.IsConnected() {
		ctx, cancel := context.WithTimeout(context.Background(), apiTimeout)
		defer cancel()
		_ = r.bus.js.DeleteConsumer(ctx, r.shard.name, r.consumer) // or the server drops it after readerIdle
	}
}

// retry waits for a moment after a failure that may pass. It returns an error only when ctx or the Bus is done.
func (r *Reader) retry(ctx context.Context, cause error) error {
	r.bus.log.Debug("reader tries again", "shard", r.shard.String(), "after", r.last, "error", cause)
	r.pause = r.bus.pause(ctx, r.pause)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if r.bus.ctx.Err() != nil {
		return ErrClosed
	}
	return nil
}

// Close releases the Reader. It must not be called during Next.
func (r *Reader) Close() error {
	r.detach()
	r.closed = true
	r.archived = nil
	return nil
}
