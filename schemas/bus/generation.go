package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// How a generation is found, opened and closed.
//
// The store's newest generation of a shard says when its stream was created and where its sequences begin; the archive's
// checkpoint says how far they got. The stream on the server continues that generation when it was created at that
// moment and reaches at least as far. Otherwise its folder was deleted, replaced, or brought back from a backup, and a
// new generation begins above everything that the old one may have used. For example:
//
//	store: generation 0, created at T, archived up to 70
//	stream: created at T, sequences 51..90      → continues generation 0
//	stream: none                                → made with first sequence 1<<32 + 1; generation 1
//	stream: created at U, sequences (1<<32)+1.. → made by a process that died before it could tell the store; generation 1
//	stream: created at T, sequences 11..60      → a backup: all of it is archived; generation 1, purged up to 1<<32 + 1
//
// Two processes may do this at once: the store refuses a second, different generation of the same number, and the loser
// looks again.

// generationStep is the distance between the first sequences of generations. A stream that was lost may have held frames
// above the archive's checkpoint that nobody knows of; 4 billion frames are more than a stream can hold.
const generationStep = 1 << 32

// ensureTries bounds the rounds of ensure, which only repeats when another process acted between two of its steps.
const ensureTries = 10

// streamState is what the server says about a stream.
type streamState struct {
	Created           int64 // nanoseconds
	FirstSeq, LastSeq uint64
	Msgs, Bytes       int64
}

// streamState asks the server.
func (b *Bus) streamState(ctx context.Context, s *shard) (streamState, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	stream, err := b.js.Stream(ctx, s.name)
	if err != nil {
		return streamState{}, fmt.Errorf("stream %s: %w", s.name, err)
	}
	return stateOf(stream.CachedInfo()), nil
}

func stateOf(info *jetstream.StreamInfo) streamState {
	return streamState{
		Created: info.Created.UnixNano(), FirstSeq: max(info.State.FirstSeq, 1), LastSeq: info.State.LastSeq,
		Msgs: int64(info.State.Msgs), Bytes: int64(info.State.Bytes),
	}
}

// catalogMetadata is where a stream says whose it is.
const catalogMetadata = "micromegas-catalog"

// streamConfig is how a shard's stream must be.
func (b *Bus) streamConfig(s *shard, firstSeq uint64) jetstream.StreamConfig {
	var metadata map[string]string
	if b.cfg.Catalog != "" {
		metadata = map[string]string{catalogMetadata: b.cfg.Catalog}
	}
	return jetstream.StreamConfig{
		Name:       s.name,
		Subjects:   []string{s.subject},
		Storage:    jetstream.FileStorage,
		Retention:  jetstream.LimitsPolicy,
		Discard:    jetstream.DiscardNew,
		MaxBytes:   b.cfg.MaxBytes / int64(len(b.shards)),
		Replicas:   b.cfg.Replicas,
		DenyDelete: true, // frames leave from the head only
		FirstSeq:   firstSeq,
		Metadata:   metadata,
		// The server reads the window's frames again when it starts, so it is no longer than a publisher retries.
		Duplicates: max(2*b.cfg.PublishTimeout, 200*time.Millisecond),
	}
}

// plan is what ensure does about a stream that exists.
type plan struct {
	generation Generation // to be opened, or the newest one again
	open       bool
	purgeTo    uint64 // 0 = no purge; else the stream must begin there
	foreign    bool   // the stream's frames overlap with the old generation's sequences
}

// planGeneration decides whether a stream in state st continues the newest generation, of which archived is the
// archive's checkpoint. See the head of this file.
func planGeneration(name Shard, newest *Generation, archived uint64, st streamState) plan {
	next := Generation{Shard: name, Stream: name.stream(), Created: st.Created, FirstSeq: st.FirstSeq}
	if newest == nil {
		return plan{generation: next, open: true}
	}
	used := max(newest.FirstSeq-1, archived)
	same := newest.Created == st.Created
	switch {
	case same && st.LastSeq >= used:
		return plan{generation: *newest}
	case same && archived < newest.FirstSeq: // opened above an older life of the stream, which was not purged yet
		return plan{generation: *newest, purgeTo: newest.FirstSeq}
	}
	next.Gen = newest.Gen + 1
	if !same && st.FirstSeq > used {
		return plan{generation: next, open: true}
	}
	if !same && st.Msgs > 0 { // frames that nobody archived: they are read where they are
		return plan{generation: next, open: true, foreign: true}
	}
	next.FirstSeq = firstSeqAbove(max(used, st.LastSeq))
	return plan{generation: next, open: true, purgeTo: next.FirstSeq}
}

// firstSeqAbove returns the first sequence of a generation after one that is known to have used seq.
func firstSeqAbove(seq uint64) uint64 { return (seq/generationStep+1)*generationStep + 1 }

// ensure makes the shard's stream exist, as configured, under an open generation.
func (b *Bus) ensure(ctx context.Context, s *shard) error {
	s.ensuring.Lock()
	defer s.ensuring.Unlock()
	var err error
	for range ensureTries {
		var done bool
		if done, err = b.ensureOnce(ctx, s); done || ctx.Err() != nil {
			return err
		}
	}
	return fmt.Errorf("no agreement on a generation: %w", err)
}

// ensureOnce is one round; done is false when another process may have acted meanwhile and looking again helps.
func (b *Bus) ensureOnce(ctx context.Context, s *shard) (done bool, err error) {
	known, err := b.generationsOf(ctx, s.Shard)
	if err != nil {
		return true, err
	}
	var newest *Generation
	var archived uint64
	if len(known) > 0 {
		newest = &known[len(known)-1]
		if archived, err = b.store.ArchiveSeq(ctx, s.Shard, newest.Gen); err != nil {
			return true, fmt.Errorf("read archive checkpoint of generation %d: %w", newest.Gen, err)
		}
	}
	st, err := b.ensureStream(ctx, s, newest, archived)
	if err != nil {
		return !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse), err
	}
	p := planGeneration(s.Shard, newest, archived, st)
	if p.open {
		if err := b.store.OpenGeneration(ctx, p.generation); err != nil {
			return false, fmt.Errorf("open generation %d: %w", p.generation.Gen, err)
		}
		b.reportGeneration(s, newest, p)
		known = append(known, p.generation)
	}
	if p.purgeTo > 0 {
		if err := b.purge(ctx, s, p.purgeTo); err != nil {
			return true, err
		}
	}
	s.mu.Lock()
	s.generations = known
	s.mu.Unlock()
	return true, nil
}

func (b *Bus) reportGeneration(s *shard, newest *Generation, p plan) {
	log := b.log.With("shard", s.String(), "generation", p.generation.Gen, "first_seq", p.generation.FirstSeq)
	switch {
	case newest == nil:
		log.Info("first generation opened")
	case p.foreign:
		log.Warn("new generation opened over frames of unknown origin: is this the right server for this catalog?")
	default:
		log.Warn("new generation opened: the stream does not continue the old one", "old_generation", newest.Gen)
	}
}

// generationsOf returns the store's generations of a shard, oldest first.
func (b *Bus) generationsOf(ctx context.Context, name Shard) ([]Generation, error) {
	all, err := b.store.Generations(ctx)
	if err != nil {
		return nil, fmt.Errorf("read generations: %w", err)
	}
	var own []Generation
	for _, g := range all {
		if g.Shard == name {
			own = append(own, g)
		}
	}
	slices.SortFunc(own, func(a, b Generation) int { return int(a.Gen) - int(b.Gen) })
	return own, nil
}

// ensureStream returns the stream's state, after making it (above the newest generation's sequences) when it is missing
// and bringing its configuration up to date.
func (b *Bus) ensureStream(ctx context.Context, s *shard, newest *Generation, archived uint64) (streamState, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*apiTimeout)
	defer cancel()
	stream, err := b.js.Stream(ctx, s.name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		first := uint64(1)
		if newest != nil {
			first = firstSeqAbove(max(newest.FirstSeq-1, archived))
		}
		stream, err = b.js.CreateStream(ctx, b.streamConfig(s, first))
		if err != nil {
			return streamState{}, fmt.Errorf("create stream %s: %w", s.name, err)
		}
	}
	if err != nil {
		return streamState{}, fmt.Errorf("stream %s: %w", s.name, err)
	}
	info := stream.CachedInfo()
	want := b.streamConfig(s, info.Config.FirstSeq)
	if err := checkStream(info.Config, want); err != nil {
		return streamState{}, err
	}
	bound := info.Config.Metadata[catalogMetadata]
	if b.cfg.Catalog != "" && bound != "" && bound != b.cfg.Catalog {
		return streamState{}, fmt.Errorf("stream %s belongs to another catalog: two data folders cannot share a bus, each would trim what the other has not archived", s.name)
	}
	if got := info.Config; got.MaxBytes != want.MaxBytes || got.Replicas != want.Replicas || got.Duplicates != want.Duplicates || bound != b.cfg.Catalog && b.cfg.Catalog != "" {
		got.Metadata = want.Metadata
		got.MaxBytes, got.Replicas, got.Duplicates = want.MaxBytes, want.Replicas, want.Duplicates
		if _, err := b.js.UpdateStream(ctx, got); err != nil {
			return streamState{}, fmt.Errorf("update stream %s: %w", s.name, err)
		}
	}
	return stateOf(info), nil
}

// checkStream refuses a stream that could lose frames.
func checkStream(got, want jetstream.StreamConfig) error {
	if got.Storage != want.Storage || got.Retention != want.Retention || got.Discard != want.Discard ||
		!slices.Equal(got.Subjects, want.Subjects) || got.MaxAge != 0 || got.MaxMsgs > 0 || got.NoAck {
		return fmt.Errorf("stream %s exists with another configuration: it would not keep what was acknowledged; remove it or use another server", got.Name)
	}
	return nil
}

// purge makes the stream begin at firstSeq.
func (b *Bus) purge(ctx context.Context, s *shard, firstSeq uint64) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	stream, err := b.js.Stream(ctx, s.name)
	if err != nil {
		return fmt.Errorf("purge stream %s: %w", s.name, err)
	}
	if err := stream.Purge(ctx, jetstream.WithPurgeSequence(firstSeq)); err != nil {
		return fmt.Errorf("purge stream %s below %d: %w", s.name, firstSeq, err)
	}
	return nil
}
