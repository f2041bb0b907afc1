package justintime

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/micromegas-go/micromegas/materializers"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// job is a block on its way from a pack to a builder.
type job struct {
	block   Block
	decoded any
	err     error // a *QuarantineError, or trouble that ends the build
	held    int64 // bytes of the budget, until the builder has it
	done    chan struct{}
}

// decode reads and decodes blocks, several at once, and gives them to f in order. The blocks that are ahead of f are bounded by their number,
// and by what they can become.
func (s *Service) decode(ctx context.Context, p *plan, blocks []catalog.BlockRow, f func(*job) error) error {
	clock := telemetry.Clock{}
	if p.view.Clock == ProcessClock {
		var err error
		if clock, err = p.clock(); err != nil {
			return err
		}
	}
	queue := make(chan *job, s.cfg.Fetches+s.cfg.Decoders)
	defer func() { // of those that f has not seen
		for j := range queue {
			s.bytes.Release(j.held)
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() {
		defer close(queue)
		for i := range blocks {
			j := &job{block: Block{BlockRow: &blocks[i], Clock: clock}, done: make(chan struct{})}
			if err := s.admit(ctx, j); err != nil {
				return
			}
			running.Go(func() {
				defer close(j.done)
				j.decoded, j.err = s.decodeOne(ctx, p, &j.block)
			})
			select {
			case queue <- j:
			case <-ctx.Done():
				s.bytes.Release(j.held)
				return
			}
		}
	})
	for j := range queue {
		<-j.done
		err := f(j)
		s.bytes.Release(j.held)
		if err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// admit waits for room for what a block can become. Blocks as they are wait for nothing: they have some 25 kB and are a fourth compressed.
func (s *Service) admit(ctx context.Context, j *job) error {
	j.held = min(j.block.PackLength*wire.MaxExpansion, s.cfg.DecodedBytes)
	return s.bytes.Acquire(ctx, j.held)
}

// decodeOne reads and decodes one block.
func (s *Service) decodeOne(ctx context.Context, p *plan, b *Block) (any, error) {
	if err := s.fetches.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	body, err := s.parts.Blocks.Body(ctx, b.BlockRow)
	s.fetches.Release(1)
	if err != nil {
		if errors.Is(err, lake.ErrNotFound) || errors.Is(err, lake.ErrCorrupt) {
			return nil, &QuarantineError{Block: b.ID, Reason: "lost: " + err.Error()}
		}
		return nil, fmt.Errorf("read block %s: %w", b.ID, err)
	}
	if err := s.decoding.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer s.decoding.Release(1)
	if p.view.Clock == BlockClock {
		if b.Clock, err = telemetry.NewClock(p.in.process.Process, b.Block); err != nil {
			return nil, &QuarantineError{Block: b.ID, Reason: err.Error()}
		}
	}
	block, err := wire.DecodeBlock(body)
	if err != nil {
		return nil, &QuarantineError{Block: b.ID, Reason: "corrupt: " + err.Error()}
	}
	row := p.in.streams[b.StreamID]
	d, err := s.decoders.take(row)
	if err != nil {
		return nil, &QuarantineError{Block: b.ID, Reason: "layout of its stream: " + err.Error()}
	}
	decoded, counts, err := p.view.Decode(&materializers.Source{
		Process: p.in.Process, StreamID: p.in.Streams[b.StreamID].Text, BlockID: b.ID.String(), InsertTime: b.InsertTime,
		Block: &block, Decoder: d, Clock: b.Clock, MaxRows: s.cfg.MaxBlockRows,
	})
	if len(block.Objects) < largeBlock {
		s.decoders.give(row, d)
	}
	s.stats.blocks.Add(1)
	s.stats.objects.Add(int64(b.NbObjects))
	if err == nil && counts.Rows > int(b.NbObjects) { // slices are divided by what blocks say
		err = fmt.Errorf("it says that it has %d events, and has %d", b.NbObjects, counts.Rows)
	}
	if err != nil {
		return nil, &QuarantineError{Block: b.ID, Reason: err.Error()}
	}
	return decoded, nil
}

// largeBlock is the compressed size of events from which a decoder is not kept: its buffers have grown.
const largeBlock = 2 << 20

// decoderPool keeps decoders of the layouts that were used last.
type decoderPool struct {
	limits wire.Limits
	max    int

	mu   sync.Mutex
	free map[[2]int64][]*wire.Decoder
	kept int
}

func layoutOf(row *catalog.StreamRow) [2]int64 { return [2]int64{row.DependenciesNo, row.ObjectsNo} }

// take returns a decoder of a stream's layout, for one goroutine.
func (p *decoderPool) take(row *catalog.StreamRow) (*wire.Decoder, error) {
	key := layoutOf(row)
	p.mu.Lock()
	if list := p.free[key]; len(list) > 0 {
		d := list[len(list)-1]
		p.free[key] = list[:len(list)-1]
		p.kept--
		p.mu.Unlock()
		return d, nil
	}
	p.mu.Unlock()
	deps, err := decodeTypes(row.DependenciesCBOR)
	if err != nil {
		return nil, err
	}
	objs, err := decodeTypes(row.ObjectsCBOR)
	if err != nil {
		return nil, err
	}
	return wire.NewDecoder(deps, objs, p.limits)
}

// give takes a decoder back, or drops it while there are enough.
func (p *decoderPool) give(row *catalog.StreamRow, d *wire.Decoder) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept >= p.max {
		p.free, p.kept = nil, 0
	}
	if p.free == nil {
		p.free = map[[2]int64][]*wire.Decoder{}
	}
	key := layoutOf(row)
	p.free[key] = append(p.free[key], d)
	p.kept++
}

func decodeTypes(cbor []byte) ([]telemetry.Type, error) {
	if len(cbor) == 0 {
		return nil, nil
	}
	return wire.DecodeTypes(append([]byte(nil), cbor...))
}
