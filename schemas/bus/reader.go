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
	// message lost on the way; twice is damage in its store, which packs may not have. Of several copies one may be damaged,
	// and each time another one may be read.
	maxGaps, maxGapsOfCopies = 2, 12
	// stallAfter is how long a Reader trusts silence before it asks whether the stream has more. A question costs 0.2 ms; a
	// stalled reader would cost every query behind it the rows that it waits for.
	stallAfter = time.Second
	// attachTimeout bounds one try to attach. In a cluster the server that shall serve the Reader is chosen by chance, also
	// one that does not answer; the next try chooses again, with twice the patience up to apiTimeout.
	attachTimeout = 500 * time.Millisecond
)

// errNoPack says that the packs do not go on; errNotLeft that archive may still write one.
var (
	errNoPack  = errors.New("no pack goes on")
	errNotLeft = errors.New("archive is not done with the generation, or does not run")
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
	patience time.Duration // of the next try to attach
	left     bool          // the generation is closed, and archive writes no more packs of it
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
			return &Reader{bus: b, shard: s, packs: packs, generation: g, last: max(after.Seq, g.FirstSeq-1), pause: retryMin, patience: attachTimeout}, nil
		}
	}
	return nil, fmt.Errorf("read shard %s: unknown generation %d", after.Shard, after.Gen)
}

// Next returns the next frame; it waits for one until ctx is done. io.EOF says that the generation is closed and that
// its packs hold nothing more, and never will: the next generation's frames follow. A Reader with packs waits for that until
// archive has gone on to a later generation, for it may have frames in hand that the bus has lost; without packs it ends
// with what the bus gave. ErrHole says that frames are missing for good. While the server is away Next waits and tries again.
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
	r.gaps, r.pause, r.patience, r.heard = 0, retryMin, attachTimeout, time.Now()
	r.shard.trimmer.note(r.last, len(msg.Data()))
	return Frame{Position: r.position(), Data: msg.Data()}, true, nil
}

// stalled says whether the stream holds frames that do not come: the server may have forgotten the Reader's place.
func (r *Reader) stalled(ctx context.Context) bool {
	st, err := r.bus.streamState(ctx, r.shard)
	if ctx.Err() != nil {
		return false
	}
	r.heard = time.Now()
	if err != nil { // nobody who could attach it elsewhere
		return errors.Is(err, jetstream.ErrStreamNotFound)
	}
	return st.LastSeq > r.last || st.Created != r.generation.Created
}

func (r *Reader) position() Position {
	return Position{Shard: r.shard.Shard, Gen: r.generation.Gen, Seq: r.last}
}

// findSource attaches the Reader to the bus, or gets it archived frames. It returns nil after a failure that may pass,
// when it has waited for a moment.
func (r *Reader) findSource(ctx context.Context) error {
	if r.shard.current().Gen > r.generation.Gen {
		return r.readClosed(ctx)
	}
	st, err := r.bus.streamState(ctx, r.shard)
	gaps := maxGaps
	if st.replicated {
		gaps = maxGapsOfCopies
	}
	switch {
	case err != nil && !errors.Is(err, jetstream.ErrStreamNotFound):
		r.bus.fared(err)
		return r.retry(ctx, err)
	case err != nil || st.Created != r.generation.Created || st.LastSeq < r.last:
		return r.restore(ctx)
	case st.FirstSeq > r.last+1 || r.gaps >= gaps:
		err := r.readPack(ctx)
		if errors.Is(err, errNoPack) {
			err = fmt.Errorf("read shard %s after %d: the stream holds %d..%d and %w: %w", r.shard.Shard, r.last, st.FirstSeq, st.LastSeq, err, ErrHole)
		}
		return err
	}
	return r.attach(ctx)
}

// restore is called when the stream seems not to be the generation's any more, or to end before the Reader's position. Either
// it is the sign of a new generation, which closes this one, or a server was late, or the position was never on the bus.
func (r *Reader) restore(ctx context.Context) error {
	if err := r.bus.ensure(ctx, r.shard); err != nil {
		return r.retry(ctx, err)
	}
	if r.shard.current().Gen != r.generation.Gen {
		return nil
	}
	asked, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	st, err := r.bus.certain(asked, r.shard)
	if err != nil {
		return r.retry(ctx, err)
	}
	if st.LastSeq < r.last {
		return fmt.Errorf("read shard %s after %d: the stream ends at %d: %w", r.shard.Shard, r.last, st.LastSeq, ErrHole)
	}
	return nil
}

// readClosed gets the next pack's frames of a generation that is closed; io.EOF when there will be none.
func (r *Reader) readClosed(ctx context.Context) error {
	if r.packs == nil {
		return io.EOF
	}
	err := r.readPack(ctx)
	if !errors.Is(err, errNoPack) {
		return err
	}
	if r.left {
		return io.EOF
	}
	if r.left, err = r.bus.archiveLeft(ctx, r.generation); !r.left {
		return r.retry(ctx, errors.Join(errNotLeft, err))
	}
	return nil // a pack may have come meanwhile: look once more
}

// archiveLeft says whether archive has gone on to a later generation than g, so that no pack of g will come: because its
// checkpoint moved there, or because its owner says so. The owner that read ahead in g writes what it read before it goes on,
// and whoever owns the shard after it finds nothing of g on the bus.
func (b *Bus) archiveLeft(ctx context.Context, g Generation) (bool, error) {
	var next *Generation
	for _, later := range b.Generations(g.Shard) {
		if later.Gen <= g.Gen {
			continue
		}
		seq, err := b.store.ArchiveSeq(ctx, g.Shard, later.Gen)
		if err != nil || seq > 0 {
			return err == nil, err
		}
		if next == nil {
			next = &later
		}
	}
	if next == nil {
		return false, nil
	}
	reply, err := b.Flush(ctx, g.Shard, FlushRequest{Target: TargetArchive, Gen: next.Gen, UpTo: next.FirstSeq - 1})
	return err == nil && reply.Gen > g.Gen, err
}

// readPack gets the next pack's frames. errNoPack: there is none.
func (r *Reader) readPack(ctx context.Context) error {
	if r.packs == nil {
		return errNoPack
	}
	frames, err := r.packs.NextFrames(ctx, r.position())
	if err != nil {
		return fmt.Errorf("read packs of shard %s after %d: %w", r.shard.Shard, r.last, err)
	}
	for len(frames) > 0 && frames[0].Seq <= r.last {
		frames = frames[1:]
	}
	if len(frames) == 0 {
		return errNoPack
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
	patience := apiTimeout
	if r.bus.clustered() {
		patience = r.patience
	}
	asked, cancel := context.WithTimeout(ctx, patience)
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
		r.bus.fared(err)
		r.patience = min(2*r.patience, apiTimeout)
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
	if !r.bus.nc.IsConnected() {
		return
	}
	forget := func(name string) {
		ctx, cancel := context.WithTimeout(context.Background(), apiTimeout)
		defer cancel()
		_ = r.bus.js.DeleteConsumer(ctx, r.shard.name, name) // or the server drops it after readerIdle
	}
	name := r.consumer
	if r.bus.clustered() { // the server that keeps it may be the one that does not answer
		r.bus.workers.Go(func() { forget(name) })
	} else {
		forget(name)
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
