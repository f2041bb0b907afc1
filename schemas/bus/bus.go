package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// apiTimeout bounds one request to JetStream's API. A stream's information takes ~0.1 ms in process.
const apiTimeout = 2 * time.Second

// Bus publishes, reads and trims the shards' streams over one connection. It is safe for concurrent use.
type Bus struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	store   GenerationStore
	objects ObjectStore // nil = no claim check: oversize bodies are refused
	cfg     Config
	log     *slog.Logger

	shards  []*shard
	byShard map[Shard]*shard
	dead    deadLetters

	replicas atomic.Int32 // copies of a stream that is made; set by prepare
	tooFew   atomic.Bool  // there shall be more when there are more servers

	ctx     context.Context // ends the goroutines below; Close cancels it
	cancel  context.CancelFunc
	workers sync.WaitGroup
	link    atomic.Pointer[link]
	events  chan nats.Status
	recheck chan struct{} // holds a token while the streams are to be checked
	outage  outage

	inCluster   atomic.Bool // see clustered
	claimAge    time.Duration
	materialize materializeTimes
}

// link is one uninterrupted stay of the connection: its context ends when the connection is cut, so that whoever waits
// for an answer over it stops waiting.
type link struct {
	ctx context.Context
	cut context.CancelFunc
}

// shard is the state of one stream.
type shard struct {
	Shard
	subject string
	name    string // of the stream

	ensuring    chan struct{} // holds a token during ensure, whose rounds must not overlap
	mu          sync.Mutex
	generations []Generation // oldest first, never empty after Open
	given       uint64       // the last sequence that the newest one is known to have given to a frame

	committer committer
	heads     heads
	reigns    reigns
	copies    atomic.Bool // the stream had several when it was looked at last
	trimmer   trimmer

	frames, records, failures atomic.Int64
}

// Open makes the streams that are missing, checks those that exist, and opens a new generation where a stream does not
// continue what the store remembers. objects may be nil: then bodies that fit no frame are refused. The Bus must be closed
// with Close; nc stays the caller's.
func Open(ctx context.Context, nc *nats.Conn, store GenerationStore, objects ObjectStore, cfg Config, log *slog.Logger) (*Bus, error) {
	if payload := nc.MaxPayload(); payload > 0 {
		cfg.MaxFrame = min(cfg.MaxFrame, int(payload)-payloadSlack)
	}
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("open bus: %w", err)
	}
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(apiTimeout))
	if err != nil {
		return nil, fmt.Errorf("open bus: %w", err)
	}
	b := &Bus{nc: nc, js: js, store: patientStore{store}, objects: objects, cfg: cfg, log: log, byShard: map[Shard]*shard{}, recheck: make(chan struct{}, 1), claimAge: claimAge, materialize: defaultMaterializeTimes()}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.newLink()
	for _, class := range classes {
		for i := range cfg.ShardsPerClass {
			s := b.newShard(Shard{Class: class, Shard: int32(i)})
			b.shards = append(b.shards, s)
			b.byShard[s.Shard] = s
		}
	}
	if err := b.prepareWithin(ctx); err != nil {
		b.cancel()
		return nil, fmt.Errorf("open bus: %w", err)
	}
	b.start()
	return b, nil
}

func (b *Bus) newShard(name Shard) *shard {
	s := &shard{Shard: name, subject: name.subject(), name: name.stream(), ensuring: make(chan struct{}, 1)}
	s.committer.init(b.cfg)
	s.heads.init()
	return s
}

func (b *Bus) start() {
	b.events = b.nc.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.CLOSED)
	b.workers.Go(b.watchConnection)
	b.workers.Go(b.recheckStreams)
	for _, s := range b.shards {
		b.workers.Go(func() { b.commit(s) })
		b.workers.Go(func() { b.askHeads(s) })
	}
}

// Close stops the Bus: frames on their way are finished, waiting records are answered with ErrClosed. Readers and flush
// handlers must have been stopped before.
func (b *Bus) Close() error {
	b.cancel()
	b.nc.RemoveStatusListener(b.events)
	b.workers.Wait()
	b.link.Load().cut()
	return nil
}

// newLink notes that the connection is there (or is hoped for).
func (b *Bus) newLink() {
	ctx, cut := context.WithCancel(context.Background())
	b.link.Store(&link{ctx, cut})
}

// watchConnection cuts the link when the connection is lost, and checks the streams when it is back: the server may have
// lost its folder meanwhile.
func (b *Bus) watchConnection() {
	for {
		select {
		case <-b.ctx.Done():
			return
		case status, open := <-b.events:
			if !open {
				return
			}
			old := b.link.Load()
			b.newLink()
			old.cut()
			if status == nats.CONNECTED {
				b.recheckSoon()
			}
		}
	}
}

// Pauses between tries while the server is away.
const (
	retryMin = 10 * time.Millisecond
	retryMax = 500 * time.Millisecond
)

// pause waits d, or until ctx or the Bus ends, and returns the next pause's length.
func (b *Bus) pause(ctx context.Context, d time.Duration) time.Duration {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-b.ctx.Done():
	}
	return min(2*d, retryMax)
}

// Shards returns every shard of every class.
func (b *Bus) Shards() []Shard {
	names := make([]Shard, len(b.shards))
	for i, s := range b.shards {
		names[i] = s.Shard
	}
	return names
}

// ShardOf returns the shard that holds a process's records of a class.
func (b *Bus) ShardOf(class Class, processID telemetry.ID) Shard {
	return Shard{Class: class, Shard: int32(hashID(processID) % uint64(b.cfg.ShardsPerClass))}
}

// hashID is FNV-1a, part of the format: it says where a process's records are.
func hashID(id telemetry.ID) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range id {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

var errUnknownShard = errors.New("unknown shard")

// lookup returns the shard's state.
func (b *Bus) lookup(name Shard) (*shard, error) {
	s := b.byShard[name]
	if s == nil {
		return nil, fmt.Errorf("%w %s", errUnknownShard, name)
	}
	return s, nil
}

// Current returns the shard's open generation: the one that frames are published to. It is zero for an unknown shard.
func (b *Bus) Current(name Shard) Generation {
	s := b.byShard[name]
	if s == nil {
		return Generation{}
	}
	return s.current()
}

func (s *shard) current() Generation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.generations[len(s.generations)-1]
}

// Generations returns all generations of a shard, oldest first.
func (b *Bus) Generations(name Shard) []Generation {
	s := b.byShard[name]
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Generation(nil), s.generations...)
}

// ShardStats is one shard's state and this process's part in it.
type ShardStats struct {
	Shard
	Gen               int32
	Bytes, Messages   int64 // held by the stream
	FirstSeq, LastSeq uint64
	Frames, Records   int64 // acknowledged to this process
	Failures          int64 // frames that this process could not publish
	Waiting           int   // records that wait for this process's committer
}

// Stats returns the state of every shard, as the servers say; in a cluster it may be what was a moment ago (see Head).
func (b *Bus) Stats(ctx context.Context) ([]ShardStats, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	stats := make([]ShardStats, 0, len(b.shards))
	for _, s := range b.shards {
		st, err := b.askUntil(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("state of shard %s: %w", s.Shard, err)
		}
		stats = append(stats, ShardStats{
			Shard: s.Shard, Gen: s.current().Gen,
			Bytes: st.Bytes, Messages: st.Msgs, FirstSeq: st.FirstSeq, LastSeq: st.LastSeq,
			Frames: s.frames.Load(), Records: s.records.Load(), Failures: s.failures.Load(),
			Waiting: len(s.committer.queue),
		})
	}
	return stats, nil
}
