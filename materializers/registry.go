package materializers

import (
	"container/list"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// stream is a registered stream as blocks need it.
type stream struct {
	tag    telemetry.Tag
	format string
	layout *layout
}

// layout is the layout of events of all streams that have the same, as those of one build of a program do.
type layout struct {
	key        layoutKey
	deps, objs []telemetry.Type
	bytes      int // encoded
	streams    int // that have it
}

// layoutKey identifies a layout.
type layoutKey [sha256.Size]byte

// registry knows processes and streams: what it has seen on the bus, and what the catalog has. It is used by one owner.
//
// What was seen on the bus above the checkpoint may not be in the catalog yet, so nothing is evicted but by trim, after a
// commit: archive has passed the checkpoint then.
type registry struct {
	catalog   Catalog
	cfg       Config
	processes *cache[telemetry.ID, *Process]
	streams   *cache[telemetry.ID, *stream]
	decoders  *cache[layoutKey, *wire.Decoder]
	// layouts are those of the streams above, layoutBytes their size together.
	layouts     map[layoutKey]*layout
	layoutBytes int
	// absent are ids that the catalog did not know. A registration that comes later passes on the bus, or is found when parked
	// copies are rechecked, which clears it.
	absent map[telemetry.ID]struct{}
}

func newRegistry(c Catalog, cfg Config) *registry {
	return &registry{
		catalog: c, cfg: cfg, processes: newCache[telemetry.ID, *Process](), streams: newCache[telemetry.ID, *stream](),
		decoders: newCache[layoutKey, *wire.Decoder](), layouts: map[layoutKey]*layout{}, absent: map[telemetry.ID]struct{}{},
	}
}

// addProcess remembers a registration, unless an earlier one is known: the first one counts.
func (r *registry) addProcess(p telemetry.Process) {
	if _, ok := r.processes.get(p.ID); ok {
		return
	}
	p.StartTime = catalog.TruncateToMicroseconds(p.StartTime) // as the catalog gives it back
	r.processes.put(p.ID, &Process{Process: p, Text: p.ID.String(), Properties: telemetry.PropertiesJSON(p.Properties)})
	delete(r.absent, p.ID)
}

// addStream remembers a registration, unless an earlier one is known.
func (r *registry) addStream(s telemetry.Stream) {
	if _, ok := r.streams.get(s.ID); ok {
		return
	}
	r.streams.put(s.ID, &stream{tag: telemetry.TagOf(s.Tags), format: s.Format, layout: r.shareLayout(s.Dependencies, s.Objects)})
	delete(r.absent, s.ID)
}

// shareLayout returns the one layout of these types, for one more stream.
func (r *registry) shareLayout(deps, objs []telemetry.Type) *layout {
	encoded := wire.AppendTypes(wire.AppendTypes(nil, deps), objs)
	key := layoutKey(sha256.Sum256(encoded))
	l, ok := r.layouts[key]
	if !ok {
		l = &layout{key: key, deps: deps, objs: objs, bytes: len(encoded)}
		r.layouts[key] = l
		r.layoutBytes += l.bytes
	}
	l.streams++
	return l
}

// trimStreams evicts streams while there are too many, or their layouts are too large together.
func (r *registry) trimStreams() {
	for r.streams.order.Len() > r.cfg.MaxStreams || r.layoutBytes > r.cfg.MaxLayoutBytes {
		oldest := r.streams.order.Back().Value.(entry[telemetry.ID, *stream])
		r.streams.remove(oldest.key)
		l := oldest.value.layout
		if l.streams--; l.streams == 0 {
			delete(r.layouts, l.key)
			r.layoutBytes -= l.bytes
		}
	}
}

// process returns a registered process, nil when it is not registered.
func (r *registry) process(ctx context.Context, id telemetry.ID) (*Process, error) {
	if p, ok := r.processes.get(id); ok {
		return p, nil
	}
	if _, ok := r.absent[id]; ok {
		return nil, nil
	}
	if err := r.fetchProcesses(ctx, []telemetry.ID{id}); err != nil {
		return nil, fmt.Errorf("look up process %s: %w", id, err)
	}
	p, ok := r.processes.get(id)
	if !ok {
		r.absent[id] = struct{}{}
	}
	return p, nil
}

// fetchProcesses takes over those of the processes that are registered in the catalog.
func (r *registry) fetchProcesses(ctx context.Context, ids []telemetry.ID) error {
	rows, err := r.catalog.Processes(ctx, ids)
	if err != nil {
		return err
	}
	for i := range rows {
		if rows[i].Registered != 0 {
			r.addProcess(rows[i].Process)
		}
	}
	return nil
}

// stream returns a registered stream, nil when it is not registered.
func (r *registry) stream(ctx context.Context, id telemetry.ID) (*stream, error) {
	if s, ok := r.streams.get(id); ok {
		return s, nil
	}
	if _, ok := r.absent[id]; ok {
		return nil, nil
	}
	if err := r.fetchStreams(ctx, []telemetry.ID{id}); err != nil {
		return nil, fmt.Errorf("look up stream %s: %w", id, err)
	}
	known, ok := r.streams.get(id)
	if !ok {
		r.absent[id] = struct{}{}
	}
	return known, nil
}

// fetchStreams takes over those of the streams that are registered in the catalog.
func (r *registry) fetchStreams(ctx context.Context, ids []telemetry.ID) error {
	rows, err := r.catalog.Streams(ctx, ids)
	if err != nil {
		return err
	}
	for i := range rows {
		if rows[i].Registered == 0 {
			continue
		}
		s := rows[i].Stream
		if s.Dependencies, err = decodeTypes(rows[i].DependenciesCBOR); err != nil {
			return fmt.Errorf("layout of stream %s: %w", s.ID, err)
		}
		if s.Objects, err = decodeTypes(rows[i].ObjectsCBOR); err != nil {
			return fmt.Errorf("layout of stream %s: %w", s.ID, err)
		}
		r.addStream(s)
	}
	return nil
}

// learn looks up the processes and streams that records register: the first registration counts, which may lie in a part of the
// bus that was not read here. What the catalog does not know was not registered before the checkpoint.
func (r *registry) learn(ctx context.Context, records []bus.Record) error {
	var processIDs, streamIDs []telemetry.ID
	for i := range records {
		record := &records[i]
		switch {
		case record.Err != nil:
		case record.Kind == bus.KindProcess:
			if _, ok := r.processes.get(record.ProcessID); !ok {
				processIDs = append(processIDs, record.ProcessID)
			}
		case record.Kind == bus.KindStream:
			if _, ok := r.streams.get(record.StreamID); !ok {
				streamIDs = append(streamIDs, record.StreamID)
			}
		}
	}
	if len(processIDs) > 0 {
		if err := r.fetchProcesses(ctx, processIDs); err != nil {
			return fmt.Errorf("look up processes: %w", err)
		}
	}
	if len(streamIDs) > 0 {
		if err := r.fetchStreams(ctx, streamIDs); err != nil {
			return fmt.Errorf("look up streams: %w", err)
		}
	}
	return nil
}

// knows reports whether the process or stream that a record registers is known already.
func (r *registry) knows(record *bus.Record) bool {
	if record.Kind == bus.KindProcess {
		_, ok := r.processes.get(record.ProcessID)
		return ok
	}
	_, ok := r.streams.get(record.StreamID)
	return ok
}

func decodeTypes(body []byte) ([]telemetry.Type, error) {
	if len(body) == 0 {
		return nil, nil
	}
	return wire.DecodeTypes(slices.Clone(body))
}

// decoder returns the decoder of a stream's layout.
func (r *registry) decoder(s *stream) (*wire.Decoder, error) {
	if d, ok := r.decoders.get(s.layout.key); ok {
		return d, nil
	}
	d, err := wire.NewDecoder(s.layout.deps, s.layout.objs, r.cfg.Limits)
	if err != nil {
		return nil, err
	}
	r.decoders.put(s.layout.key, d)
	r.decoders.trim(r.cfg.MaxDecoders)
	return d, nil
}

// dropDecoder forgets a decoder that a large block has blown up.
func (r *registry) dropDecoder(s *stream) { r.decoders.remove(s.layout.key) }

// trim evicts what is over the bounds. It must be called when all that was seen is in the catalog.
func (r *registry) trim() {
	r.processes.trim(r.cfg.MaxProcesses)
	r.trimStreams()
	if len(r.absent) > r.cfg.MaxStreams {
		clear(r.absent)
	}
}

// cache is a map that evicts what was not used for longest, when told to.
type cache[K comparable, V any] struct {
	entries map[K]*list.Element // of entry[K, V]
	order   *list.List          // most recently used first
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

func newCache[K comparable, V any]() *cache[K, V] {
	return &cache[K, V]{entries: map[K]*list.Element{}, order: list.New()}
}

func (c *cache[K, V]) get(key K) (V, bool) {
	e, ok := c.entries[key]
	if !ok {
		var none V
		return none, false
	}
	c.order.MoveToFront(e)
	return e.Value.(entry[K, V]).value, true
}

func (c *cache[K, V]) put(key K, value V) {
	c.remove(key)
	c.entries[key] = c.order.PushFront(entry[K, V]{key, value})
}

func (c *cache[K, V]) remove(key K) {
	if e, ok := c.entries[key]; ok {
		c.order.Remove(e)
		delete(c.entries, key)
	}
}

func (c *cache[K, V]) trim(limit int) {
	for c.order.Len() > limit {
		c.remove(c.order.Back().Value.(entry[K, V]).key)
	}
}
