// Package loadgen makes load: request bodies of production size from captured blocks of an unmodified client, repeated under
// fresh ids and shifted in time, and a poster that sends them and says what was acknowledged, and how fast. Benchmarks and fault tests use
// it, in a child process where the server's CPU time is measured.
//
// The bodies are what a client of the native protocol would send: three streams a process (log, metrics, cpu), blocks one after the
// other, ids that only their process uses, ticks and times that go on. The nth block of a stream is the same for all processes but for
// its ids, so that it is compressed once and then costs a copy of some 40 KB and 108 bytes of ids.
package loadgen

import (
	"bytes"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// captured holds the requests of one process: its registration, those of its three streams, and three consecutive blocks of each:
// ~3,120 log entries, 4,500 measures and 3,900 span edges a block.
//
//go:embed load/*.cbor
var captured embed.FS

const (
	capturedStreams = 3
	capturedBlocks  = 3   // of each stream
	highFrom        = 128 // processes that share a block before it is worth compressing as hard as the client did
	keepRounds      = 2   // rounds of blocks kept besides the newest
	maxBuffer       = 16 << 20
)

// Paths of the native protocol.
const (
	ProcessPath = "/ingestion/insert_process"
	StreamPath  = "/ingestion/insert_stream"
	BlockPath   = "/ingestion/insert_block"
)

// Config chooses a load. The zero value is one process with all three streams, as captured.
type Config struct {
	Processes int
	// Mix is the order in which each round of blocks is made, a family as often as wanted: default log, metrics, cpu.
	Mix []telemetry.Tag
	// Start is when the processes started, ns; 0 = as captured. Event times go on from there.
	Start int64
	// Every spaces the blocks of a stream: 0 = back to back, as captured (~0.2 s each).
	Every time.Duration
	// Varying gives each formatted message a suffix of its own and each float measure other low bits, for figures about storage: a few
	// blocks repeated compress like nothing real. It costs a rewrite and a compression a block.
	Varying bool
	// Seed makes the ids of processes and streams, and what varies, repeatable; 0 = random. Ids of blocks are always fresh.
	Seed uint64
	// Run is a property of each process, by which what came of this load is found again; "" = none.
	Run string
}

// RunProperty is the key of Config.Run.
const RunProperty = "loadgen_run"

// Validate returns every mistake at once.
func (c Config) Validate() error {
	var errs []error
	if c.Processes < 0 {
		errs = append(errs, errors.New("number of processes is negative"))
	}
	if c.Every < 0 {
		errs = append(errs, errors.New("spacing of blocks is negative"))
	}
	for _, tag := range c.Mix {
		if tag != telemetry.TagLog && tag != telemetry.TagMetrics && tag != telemetry.TagCPU {
			errs = append(errs, fmt.Errorf("no captured blocks of family %s", tag))
		}
	}
	return errors.Join(errs...)
}

// Request is a body ready to be posted.
type Request struct {
	Path    string
	Body    []byte
	Process int             // its index
	Tag     telemetry.Tag   // of the stream; unknown for processes
	Block   telemetry.Block // of blocks
}

// Load yields requests. It is safe for concurrent use.
type Load struct {
	cfg       Config
	process   telemetry.Process
	streams   map[telemetry.Tag]*stream
	processes []processIDs
	perStream map[telemetry.Tag]int // times a family is in the mix
	next      atomic.Int64

	mu     sync.Mutex
	bodies map[bodyKey]*body
}

// stream is a captured stream.
type stream struct {
	telemetry.Stream
	blocks      [capturedBlocks]capturedBlock
	cycleTicks  int64 // from the begin of one repetition to that of the next
	cycleTime   int64
	cycleEvents int64
	types       []rewriteType
}

type capturedBlock struct {
	telemetry.Block
	deps, objs []byte // compressed
	raw        []byte // objs, decompressed
}

type processIDs struct {
	id      telemetry.ID
	streams map[telemetry.Tag]telemetry.ID
}

// bodyKey names the nth block of a family's streams.
type bodyKey struct {
	tag telemetry.Tag
	n   int64
}

// body is an insert_block body that all processes share but for the ids.
type body struct {
	once                         sync.Once
	bytes                        []byte
	block                        telemetry.Block
	blockAt, streamAt, processAt int
}

// New reads the captured requests and prepares the load.
func New(cfg Config) (*Load, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("loadgen config: %w", err)
	}
	if cfg.Processes == 0 {
		cfg.Processes = 1
	}
	if len(cfg.Mix) == 0 {
		cfg.Mix = []telemetry.Tag{telemetry.TagLog, telemetry.TagMetrics, telemetry.TagCPU}
	}
	l := &Load{
		cfg: cfg, streams: map[telemetry.Tag]*stream{}, perStream: map[telemetry.Tag]int{}, bodies: map[bodyKey]*body{},
	}
	if err := l.read(); err != nil {
		return nil, fmt.Errorf("read captured load: %w", err)
	}
	for _, tag := range cfg.Mix {
		l.perStream[tag]++
	}
	l.makeIDs()
	return l, nil
}

// read decodes the captured requests.
func (l *Load) read() error {
	entries, err := captured.ReadDir("load")
	if err != nil {
		return err
	}
	bodies := make([][]byte, len(entries))
	for i, e := range entries {
		if bodies[i], err = captured.ReadFile("load/" + e.Name()); err != nil {
			return err
		}
	}
	if len(bodies) != 1+capturedStreams*(1+capturedBlocks) {
		return fmt.Errorf("%d requests", len(bodies))
	}
	if l.process, err = wire.DecodeProcess(bodies[0]); err != nil {
		return err
	}
	byID := map[telemetry.ID]*stream{}
	for _, b := range bodies[1 : 1+capturedStreams] {
		s, err := wire.DecodeStream(b)
		if err != nil {
			return err
		}
		byID[s.ID] = &stream{Stream: s, types: rewriteTypes(s.Objects)}
		l.streams[telemetry.TagOf(s.Tags)] = byID[s.ID]
	}
	counts := map[telemetry.ID]int{}
	for _, b := range bodies[1+capturedStreams:] {
		block, err := wire.DecodeBlock(b)
		if err != nil {
			return err
		}
		raw, err := wire.Decompress(nil, block.Objects, maxBuffer)
		if err != nil {
			return err
		}
		n := counts[block.StreamID]
		byID[block.StreamID].blocks[n] = capturedBlock{Block: block.Block, deps: block.Dependencies, objs: block.Objects, raw: raw}
		counts[block.StreamID]++
	}
	for _, s := range byID {
		if err := l.spaceOut(s); err != nil {
			return err
		}
	}
	return nil
}

// spaceOut decides how far repetitions of a stream's blocks are apart.
func (l *Load) spaceOut(s *stream) error {
	first, last := s.blocks[0], s.blocks[capturedBlocks-1]
	s.cycleTicks = last.EndTicks - first.BeginTicks
	s.cycleTime = last.EndTime - first.BeginTime
	for _, b := range s.blocks {
		s.cycleEvents += int64(b.NbObjects)
	}
	if l.cfg.Every == 0 {
		return nil
	}
	wanted := int64(l.cfg.Every) * capturedBlocks
	if wanted < s.cycleTime {
		return fmt.Errorf("blocks are %v long: they cannot come every %v", time.Duration(s.cycleTime/capturedBlocks), l.cfg.Every)
	}
	clock, err := telemetry.NewClock(l.process, last.Block)
	if err != nil {
		return err
	}
	s.cycleTicks = int64(math.Round(float64(wanted) / (clock.DurationMs(1) * 1e6)))
	s.cycleTime = wanted
	return nil
}

func (l *Load) makeIDs() {
	newID := telemetry.NewID
	if l.cfg.Seed != 0 {
		r := rand.New(rand.NewPCG(l.cfg.Seed, 0))
		newID = func() (id telemetry.ID) {
			binary.LittleEndian.PutUint64(id[:8], r.Uint64())
			binary.LittleEndian.PutUint64(id[8:], r.Uint64())
			id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
			return id
		}
	}
	l.processes = make([]processIDs, l.cfg.Processes)
	for i := range l.processes {
		p := processIDs{id: newID(), streams: map[telemetry.Tag]telemetry.ID{}}
		for _, tag := range []telemetry.Tag{telemetry.TagLog, telemetry.TagMetrics, telemetry.TagCPU} {
			p.streams[tag] = newID()
		}
		l.processes[i] = p
	}
}

// Processes returns how many processes the load has.
func (l *Load) Processes() int { return len(l.processes) }

// ProcessID returns the id of the process at index p.
func (l *Load) ProcessID(p int) telemetry.ID { return l.processes[p].id }

// StreamID returns the id of the stream of a family of the process at index p.
func (l *Load) StreamID(p int, tag telemetry.Tag) telemetry.ID { return l.processes[p].streams[tag] }

// startShift is how much later than captured everything happens.
func (l *Load) startShift() int64 {
	if l.cfg.Start == 0 {
		return 0
	}
	return l.cfg.Start - l.process.StartTime
}

// Registrations returns the registrations of the process at index p and of its streams that are in the mix.
func (l *Load) Registrations(p int) []Request {
	ids := l.processes[p]
	process := l.process
	process.ID = ids.id
	process.StartTime += l.startShift()
	process.Computer = fmt.Sprintf("%s-%d", l.process.Computer, p)
	if l.cfg.Run != "" {
		process.Properties = append(slices.Clone(process.Properties), telemetry.Property{Key: RunProperty, Value: l.cfg.Run})
	}
	reqs := []Request{{Path: ProcessPath, Body: wire.AppendProcess(nil, &process), Process: p}}
	for _, tag := range []telemetry.Tag{telemetry.TagLog, telemetry.TagMetrics, telemetry.TagCPU} {
		if l.perStream[tag] == 0 {
			continue
		}
		s := l.streams[tag].Stream
		s.ID, s.ProcessID = ids.streams[tag], ids.id
		reqs = append(reqs, Request{Path: StreamPath, Body: wire.AppendStream(nil, &s), Process: p, Tag: tag})
	}
	return reqs
}

// Next returns the next block; its body is made in dst[:0].
func (l *Load) Next(dst []byte) (Request, error) { return l.At(l.next.Add(1)-1, dst) }

// At returns the block at index i of the load: round after round, in a round family after family as the mix says, and of each family
// all processes. Its body is made in dst[:0]. The same index yields the same block but for its id.
func (l *Load) At(i int64, dst []byte) (Request, error) {
	processes := int64(len(l.processes))
	p, i := i%processes, i/processes
	place, round := int(i%int64(len(l.cfg.Mix))), i/int64(len(l.cfg.Mix))
	tag := l.cfg.Mix[place]
	n := round * int64(l.perStream[tag])
	for _, t := range l.cfg.Mix[:place] {
		if t == tag {
			n++
		}
	}
	b, err := l.body(tag, n, p)
	if err != nil {
		return Request{}, fmt.Errorf("block %d of %s stream: %w", n, tag, err)
	}
	ids := l.processes[p]
	req := Request{Path: BlockPath, Body: append(dst[:0], b.bytes...), Process: int(p), Tag: tag, Block: b.block}
	req.Block.ID, req.Block.StreamID, req.Block.ProcessID = telemetry.NewID(), ids.streams[tag], ids.id
	req.Block.ID.AppendText(req.Body[b.blockAt:b.blockAt])
	req.Block.StreamID.AppendText(req.Body[b.streamAt:b.streamAt])
	req.Block.ProcessID.AppendText(req.Body[b.processAt:b.processAt])
	return req, nil
}

// body returns the nth block of a family's streams, which all processes share unless they vary.
func (l *Load) body(tag telemetry.Tag, n, process int64) (*body, error) {
	if l.cfg.Varying {
		b := &body{}
		return b, l.make(b, tag, n, rand.New(rand.NewPCG(l.cfg.Seed, uint64(process)<<40|uint64(n)<<4|uint64(tag))))
	}
	l.mu.Lock()
	key := bodyKey{tag, n}
	b := l.bodies[key]
	if b == nil {
		b = &body{}
		l.bodies[key] = b
		for old := range l.bodies {
			if old.tag == tag && old.n < n-int64(keepRounds*l.perStream[tag]) {
				delete(l.bodies, old)
			}
		}
	}
	l.mu.Unlock()
	var err error
	b.once.Do(func() { err = l.make(b, tag, n, nil) })
	if err == nil && b.bytes == nil {
		err = errors.New("could not be made")
	}
	return b, err
}

// make builds the nth block of a family's streams; vary is nil when nothing varies.
func (l *Load) make(b *body, tag telemetry.Tag, n int64, vary *rand.Rand) error {
	s := l.streams[tag]
	src := &s.blocks[n%capturedBlocks]
	cycle := n / capturedBlocks
	ticks, shift := cycle*s.cycleTicks, cycle*s.cycleTime+l.startShift()
	blk := src.Block
	blk.BeginTicks += ticks
	blk.EndTicks += ticks
	blk.BeginTime += shift
	blk.EndTime += shift
	blk.ObjectOffset = src.ObjectOffset - s.blocks[0].ObjectOffset + cycle*s.cycleEvents
	objs := src.objs
	if ticks != 0 || vary != nil {
		raw, err := rewrite(s.types, src.raw, ticks, vary)
		if err != nil {
			return err
		}
		if len(l.processes) >= highFrom || vary != nil { // figures about storage want the client's own ratio
			objs = wire.CompressHigh(nil, raw)
		} else {
			objs = wire.Compress(nil, raw)
		}
	}
	b.block = blk
	b.bytes = wire.AppendBlock(nil, &blk, src.deps, objs)
	find := func(id telemetry.ID) int { return bytes.Index(b.bytes, []byte(id.String())) }
	b.blockAt, b.streamAt, b.processAt = find(blk.ID), find(blk.StreamID), find(blk.ProcessID)
	return nil
}
