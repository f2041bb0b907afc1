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
//
// In a cluster a stream that is missing, or older than what is archived, may be a server's mistake: one that was deposed, or
// has not caught up. Such an observation counts when the answers are certain (see certain; that a stream is missing is said
// by the leader of the whole cluster, and another one can only be made by a majority), and have been the same several times
// over some seconds. Opening a generation too late costs seconds; opening one by mistake would hide frames for good.

// generationStep is the distance between the first sequences of generations. A stream that was lost may have held frames
// above the archive's checkpoint that nobody knows of; 4 billion frames are more than a stream can hold.
const generationStep = 1 << 32

const (
	// ensureTries bounds the rounds of ensure, which only repeats when another process acted between two of its steps.
	ensureTries = 10
	// doubtFor is how long, and doubtLooks how often, a cluster must say the same before a stream counts as lost.
	doubtFor   = 3 * time.Second
	doubtLooks = 5
)

// storeTimeout bounds one call to the store: whoever looks after a stream keeps others from it.
const storeTimeout = 5 * time.Second

// patientStore is a store that hangs no longer than storeTimeout.
type patientStore struct{ store GenerationStore }

func (p patientStore) Generations(ctx context.Context) ([]Generation, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return p.store.Generations(ctx)
}

func (p patientStore) OpenGeneration(ctx context.Context, g Generation) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return p.store.OpenGeneration(ctx, g)
}

func (p patientStore) ArchiveSeq(ctx context.Context, s Shard, gen int32) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return p.store.ArchiveSeq(ctx, s, gen)
}

// streamState is what the server says about a stream.
type streamState struct {
	Created           int64 // nanoseconds
	FirstSeq, LastSeq uint64
	Msgs, Bytes       int64

	// There are several copies: the answer may be late. Then reign is the leader's that gave it, and silence how long ago that
	// heard of a majority.
	replicated bool
	reign      reign
	silence    time.Duration
}

// streamState asks the server. In a cluster the answer may be late: see certain.
func (b *Bus) streamState(ctx context.Context, s *shard) (streamState, error) {
	patience := apiTimeout
	if b.clustered() {
		patience = lookTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	stream, err := b.js.Stream(ctx, s.name)
	if err != nil {
		return streamState{}, fmt.Errorf("stream %s: %w", s.name, err)
	}
	st := stateOf(stream.CachedInfo())
	s.copies.Store(st.replicated)
	return st, nil
}

func stateOf(info *jetstream.StreamInfo) streamState {
	st := streamState{
		Created: info.Created.UnixNano(), FirstSeq: max(info.State.FirstSeq, 1), LastSeq: info.State.LastSeq,
		Msgs: int64(info.State.Msgs), Bytes: int64(info.State.Bytes),
	}
	if info.Config.Replicas > 1 {
		st.replicated = true
		st.reign, st.silence = reignOf(info)
	}
	return st
}

// catalogMetadata is where a stream says whose it is.
const catalogMetadata = "micromegas-catalog"

// streamConfig is how a shard's stream must be.
func (b *Bus) streamConfig(s *shard, firstSeq uint64, replicas int) jetstream.StreamConfig {
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
		Replicas:   replicas,
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

// verdict is what ensure found, and what it would do about it.
type verdict struct {
	known  []Generation // of the shard, oldest first
	newest *Generation  // nil = none is known
	// archived is the archive's checkpoint in the newest generation.
	archived uint64
	found    bool // the stream exists, in state st, as plan says
	st       streamState
	plan     plan
	first    uint64 // not found: where the stream shall begin
}

// harmless says that v means no loss: nothing is to be done, or the shard is new.
func (v *verdict) harmless() bool {
	return v.newest == nil || v.found && !v.plan.open && v.plan.purgeTo == 0
}

// doubt is how often the same verdict came, and since when.
type doubt struct {
	found bool
	plan  plan
	first uint64
	since time.Time
	looks int
}

// over says whether v is sure, having come once more.
func (d *doubt) over(v *verdict, now time.Time) bool {
	if d.looks == 0 || d.found != v.found || d.plan != v.plan || d.first != v.first {
		*d = doubt{found: v.found, plan: v.plan, first: v.first, since: now}
	}
	d.looks++
	return d.looks >= doubtLooks && now.Sub(d.since) >= doubtFor
}

// ensure makes the shard's stream exist, as configured, under an open generation.
func (b *Bus) ensure(ctx context.Context, s *shard) error {
	select {
	case s.ensuring <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.ensuring }()
	var (
		d   doubt
		err error
	)
	for tries := 0; tries < ensureTries; {
		var v verdict
		if v, err = b.judge(ctx, s); err != nil {
			return err
		}
		if b.clustered() && !v.harmless() && !d.over(&v, time.Now()) {
			b.pause(ctx, doubtFor/doubtLooks)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if b.ctx.Err() != nil {
				return ErrClosed
			}
			continue
		}
		var done bool
		if done, err = b.settle(ctx, s, &v); done || ctx.Err() != nil {
			return err
		}
		tries++
	}
	return fmt.Errorf("no agreement on a generation: %w", err)
}

// judge looks at the store and then at the stream: what is archived was on the stream before.
func (b *Bus) judge(ctx context.Context, s *shard) (verdict, error) {
	var v verdict
	var err error
	if v.known, err = b.generationsOf(ctx, s.Shard); err != nil {
		return v, err
	}
	if len(v.known) > 0 {
		v.newest = &v.known[len(v.known)-1]
		if v.archived, err = b.store.ArchiveSeq(ctx, s.Shard, v.newest.Gen); err != nil {
			return v, fmt.Errorf("read archive checkpoint of generation %d: %w", v.newest.Gen, err)
		}
	}
	asked, cancel := context.WithTimeout(ctx, 2*apiTimeout)
	defer cancel()
	v.st, err = b.certain(asked, s)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		v.first = 1
		if v.newest != nil {
			v.first = firstSeqAbove(max(v.newest.FirstSeq-1, v.archived))
		}
		return v, nil
	}
	if err != nil {
		return v, err
	}
	v.found, v.plan = true, planGeneration(s.Shard, v.newest, v.archived, v.st)
	return v, nil
}

// settle does what v asks for; done is false when another process may have acted meanwhile and looking again helps.
func (b *Bus) settle(ctx context.Context, s *shard, v *verdict) (done bool, err error) {
	st, err := b.ensureStream(ctx, s, v)
	if err != nil {
		return !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse), err
	}
	if v.found && st.Created != v.st.Created {
		return false, errors.New("the stream was replaced meanwhile")
	}
	if !v.found {
		v.plan = planGeneration(s.Shard, v.newest, v.archived, st)
	}
	if v.plan.open {
		if err := b.store.OpenGeneration(ctx, v.plan.generation); err != nil {
			return false, fmt.Errorf("open generation %d: %w", v.plan.generation.Gen, err)
		}
		b.reportGeneration(s, v.newest, v.plan)
		v.known = append(v.known, v.plan.generation)
	}
	if v.plan.purgeTo > 0 {
		if err := b.purge(ctx, s, v.plan.purgeTo); err != nil {
			return true, err
		}
	}
	s.continueWith(v)
	return true, nil
}

// continueWith takes over the generations of a verdict that was settled.
func (s *shard) continueWith(v *verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	newest, same := v.known[len(v.known)-1], false
	if n := len(s.generations); n > 0 {
		same = s.generations[n-1] == newest
	}
	if !same {
		s.given = newest.FirstSeq - 1
	}
	if !v.plan.open {
		s.given = max(s.given, v.archived)
	}
	s.generations = v.known
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

// ensureStream returns the stream's state, after making it when v says that it is missing, and bringing its configuration
// up to date.
func (b *Bus) ensureStream(ctx context.Context, s *shard, v *verdict) (streamState, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*apiTimeout)
	defer cancel()
	var stream jetstream.Stream
	var err error
	if v.found {
		stream, err = b.js.Stream(ctx, s.name)
	} else {
		stream, err = b.js.CreateStream(ctx, b.streamConfig(s, v.first, int(b.replicas.Load())))
	}
	if err != nil {
		return streamState{}, fmt.Errorf("stream %s: %w", s.name, err)
	}
	info := stream.CachedInfo()
	want := b.streamConfig(s, info.Config.FirstSeq, b.copies(info.Config.Replicas, int(b.replicas.Load())))
	if err := checkStream(info.Config, want); err != nil {
		return streamState{}, err
	}
	bound, err := b.boundTo(info.Config)
	if err != nil {
		return streamState{}, err
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

// boundTo returns the catalog that a stream says it belongs to, "" when it says none, and refuses another's.
func (b *Bus) boundTo(cfg jetstream.StreamConfig) (string, error) {
	bound := cfg.Metadata[catalogMetadata]
	if b.cfg.Catalog != "" && bound != "" && bound != b.cfg.Catalog {
		return "", fmt.Errorf("stream %s belongs to another catalog: two deployments cannot share a bus, each would trim what the other has not archived", cfg.Name)
	}
	return bound, nil
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
