// Package bustest starts real buses for tests: an embedded server in a temporary folder, and what the bus takes from the
// catalog and the lake, in memory.
package bustest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/bus/embedded"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Env is a server, or an account of a cluster, and what buses on it share. Its parts end with the test.
type Env struct {
	Dir         string           // the embedded server's store folder
	Server      *embedded.Server // nil: the bus is elsewhere
	URLs        string           // where
	Generations *Generations
	Objects     *Objects
	Packs       *Packs
	Log         *slog.Logger
}

// NewEnv starts a server.
func NewEnv(t testing.TB) *Env {
	t.Helper()
	e := newEnv()
	e.Dir = t.TempDir()
	server, err := embedded.Start(embedded.Options{StoreDir: e.Dir})
	if err != nil {
		t.Fatalf("start embedded server: %v", err)
	}
	t.Cleanup(server.Shutdown)
	e.Server = server
	return e
}

func newEnv() *Env {
	return &Env{Generations: NewGenerations(), Objects: NewObjects(), Packs: NewPacks(), Log: slog.New(slog.DiscardHandler)}
}

// Connect returns a connection that ends with the test.
func (e *Env) Connect(t testing.TB) *nats.Conn {
	t.Helper()
	nc, err := e.connect(t.Context())
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func (e *Env) connect(ctx context.Context) (*nats.Conn, error) {
	if e.Server != nil {
		return e.Server.Connect()
	}
	return bus.Connect(ctx, bus.ConnectOptions{URLs: e.URLs, Log: e.Log})
}

// Open opens a Bus that ends with the test, with the default configuration as changed by change.
func (e *Env) Open(t testing.TB, change ...func(*bus.Config)) *bus.Bus {
	t.Helper()
	b, err := e.TryOpen(t, change...)
	if err != nil {
		t.Fatalf("open bus: %v", err)
	}
	return b
}

// TryOpen is Open for tests that expect it to fail.
func (e *Env) TryOpen(t testing.TB, change ...func(*bus.Config)) (*bus.Bus, error) {
	t.Helper()
	cfg := bus.DefaultConfig()
	for _, f := range change {
		f(&cfg)
	}
	b, err := bus.Open(t.Context(), e.Connect(t), e.Generations, e.Objects, cfg, e.Log)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close bus: %v", err)
		}
	})
	return b, nil
}

// Start returns a Bus over a server of its own.
func Start(t testing.TB, change ...func(*bus.Config)) *bus.Bus {
	t.Helper()
	return NewEnv(t).Open(t, change...)
}

// Block returns a block's record with a body of size pseudo-random bytes that depend on the block only.
func Block(process telemetry.ID, n, size int) *bus.Record {
	r := &bus.Record{
		Kind: bus.KindBlock, Tag: telemetry.TagLog, InsertTimeUs: int64(n) + 1,
		ProcessID: process, BeginTime: int64(n) * 1000, EndTime: int64(n)*1000 + 999,
		Body: make([]byte, size),
	}
	x := uint64(n)*0x9e3779b97f4a7c15 + 1
	for i := range r.Body {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		r.Body[i] = byte(x)
	}
	copy(r.BlockID[:], fmt.Sprintf("block %010d", n))
	copy(r.StreamID[:], process[:])
	r.StreamID[0] ^= 1
	return r
}

// Generations is a bus.GenerationStore in memory.
type Generations struct {
	mu       sync.Mutex
	opened   map[bus.Shard]map[int32]bus.Generation
	archived map[bus.Position]uint64 // key: Seq 0
	left     int                     // generations that may be opened; negative: any number
}

var _ bus.GenerationStore = (*Generations)(nil)

// NewGenerations returns an empty store.
func NewGenerations() *Generations {
	return &Generations{opened: map[bus.Shard]map[int32]bus.Generation{}, archived: map[bus.Position]uint64{}, left: -1}
}

// FailAfter makes every OpenGeneration after n more fail; a negative n ends that.
func (g *Generations) FailAfter(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left = n
}

// Generations implements bus.GenerationStore.
func (g *Generations) Generations(context.Context) ([]bus.Generation, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []bus.Generation
	for _, of := range g.opened {
		all = slices.AppendSeq(all, maps.Values(of))
	}
	return all, nil
}

// OpenGeneration implements bus.GenerationStore.
func (g *Generations) OpenGeneration(_ context.Context, n bus.Generation) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	of := g.opened[n.Shard]
	if of == nil {
		of = map[int32]bus.Generation{}
		g.opened[n.Shard] = of
	}
	if old, ok := of[n.Gen]; ok && old != n {
		return fmt.Errorf("generation %d of %s is open already, as %+v", n.Gen, n.Shard, old)
	}
	if g.left == 0 {
		return errors.New("the store is away")
	}
	g.left--
	of[n.Gen] = n
	return nil
}

// ArchiveSeq implements bus.GenerationStore.
func (g *Generations) ArchiveSeq(_ context.Context, s bus.Shard, gen int32) (uint64, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.archived[bus.Position{Shard: s, Gen: gen}], nil
}

// SetArchived says that everything up to p is archived.
func (g *Generations) SetArchived(p bus.Position) {
	g.mu.Lock()
	defer g.mu.Unlock()
	seq := p.Seq
	p.Seq = 0
	g.archived[p] = seq
}

// Objects is a bus.ObjectStore in memory.
type Objects struct {
	mu   sync.Mutex
	data map[string][]byte
}

var _ bus.ObjectStore = (*Objects)(nil)

// NewObjects returns an empty store.
func NewObjects() *Objects { return &Objects{data: map[string][]byte{}} }

// Put implements bus.ObjectStore.
func (o *Objects) Put(_ context.Context, key string, data []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.data[key] = slices.Clone(data)
	return nil
}

// Get implements bus.ObjectStore.
func (o *Objects) Get(_ context.Context, key string) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	data, ok := o.data[key]
	if !ok {
		return nil, fmt.Errorf("object %s: not found", key)
	}
	return slices.Clone(data), nil
}

// Keys returns the keys of all objects, sorted.
func (o *Objects) Keys() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Sorted(maps.Keys(o.data))
}

// Packs is a bus.PackSource in memory.
type Packs struct {
	mu    sync.Mutex
	packs [][]bus.Frame
}

var _ bus.PackSource = (*Packs)(nil)

// NewPacks returns an empty source.
func NewPacks() *Packs { return &Packs{} }

// Add stores a pack of frames, which are of one generation and in order.
func (p *Packs) Add(frames ...bus.Frame) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.packs = append(p.packs, frames)
}

// NextFrames implements bus.PackSource.
func (p *Packs) NextFrames(_ context.Context, after bus.Position) ([]bus.Frame, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var best []bus.Frame
	for _, pack := range p.packs {
		last := pack[len(pack)-1]
		if last.Shard == after.Shard && last.Gen == after.Gen && last.Seq > after.Seq && (best == nil || last.Seq < best[0].Seq) {
			best = pack
		}
	}
	return best, nil
}
