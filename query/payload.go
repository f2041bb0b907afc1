package query

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/micromegas-go/micromegas/query/functions"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake/locate"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// payloadName is get_payload(process, stream, block): the payload of a block in its canonical form.
const payloadName = "get_payload"

// Bounds of get_payload.
const (
	payloadReads   = 10               // bodies that are read at once
	payloadBytes   = 256 << 20        // of the bodies of one chunk of rows
	payloadTimeout = 30 * time.Second // of one chunk of rows: an interrupted statement waits for it
	payloadPlaces  = 256 << 10        // blocks whose places are remembered, some 120 bytes each; of one stream there may be more
)

// PayloadFunction is the function get_payload for an engine: it reads the lake while a statement runs.
func PayloadFunction(c Catalog, f Files) functions.Waiting {
	p := &payloads{locator: locate.New(patientCatalog{c}, honestFiles{f}), streams: map[telemetry.ID]*blockPlaces{}}
	signature := functions.Scalar{Name: payloadName, Params: []functions.Type{functions.Text, functions.Text, functions.Text}, Result: functions.Blob}
	return functions.Waiting{Scalar: signature, All: p.all}
}

// payloads finds blocks by their ids. Where a block lies is known by its stream and begin time, so the places of all blocks of a stream
// are looked up together, and kept for the next rows: a statement asks for one block after the other.
type payloads struct {
	locator *locate.Locator

	mu      sync.Mutex
	streams map[telemetry.ID]*blockPlaces
	places  int // of all streams
}

// blockPlaces are where the blocks of a stream lie.
type blockPlaces struct {
	read time.Time
	rows map[telemetry.ID]blockPlace
}

type blockPlace struct {
	process     telemetry.ID
	key         string
	off, length int64
}

// all answers a chunk of rows: all of them, or none.
func (p *payloads) all(args []functions.Args, out []functions.Out) error {
	ctx, cancel := context.WithTimeout(context.Background(), payloadTimeout)
	defer cancel()
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(payloadReads)
	var total atomic.Int64
	for i := range args {
		a := &args[i]
		process, err := telemetry.ParseID(a.Text[0])
		if err != nil {
			return errors.Join(g.Wait(), fmt.Errorf("%s: '%s' is not a valid process id", payloadName, a.Text[0]))
		}
		g.Go(func() error {
			failed := func(err error) error {
				return fmt.Errorf("%serror downloading payload: block %s: %w", functions.IOPrefix, a.Text[2], err)
			}
			place, err := p.find(ctx, process, a.Text[1], a.Text[2], began)
			if err != nil {
				return failed(err)
			}
			if total.Add(place.length) > payloadBytes { // before anything of it is in memory
				return fmt.Errorf("limit: %s would take more than %d Mi bytes for one batch of rows", payloadName, payloadBytes>>20)
			}
			payload, err := p.payload(ctx, place)
			if err != nil {
				return failed(err)
			}
			out[i].Text = string(payload)
			return nil
		})
	}
	return g.Wait()
}

// find returns where a block lies that was there at a time.
func (p *payloads) find(ctx context.Context, process telemetry.ID, streamText, blockText string, at time.Time) (blockPlace, error) {
	stream, err := telemetry.ParseID(streamText)
	if err != nil {
		return blockPlace{}, err
	}
	block, err := telemetry.ParseID(blockText)
	if err != nil {
		return blockPlace{}, err
	}
	place, err := p.place(ctx, stream, block, at)
	if err == nil && place.process != process {
		err = errNoBlock
	}
	return place, err
}

// payload reads one payload.
func (p *payloads) payload(ctx context.Context, place blockPlace) ([]byte, error) {
	body, err := p.locator.Body(ctx, &catalog.BlockRow{PackKey: place.key, PackOffset: place.off, PackLength: place.length})
	if err != nil {
		return nil, err
	}
	v, err := wire.DecodeBlock(body)
	if err != nil {
		return nil, err
	}
	return wire.AppendPayload(nil, v.Dependencies, v.Objects), nil
}

var errNoBlock = errors.New("the process has no such block in the stream")

// place returns where a block lies. One that is not known is looked for anew if that was not done since a time.
func (p *payloads) place(ctx context.Context, stream, block telemetry.ID, at time.Time) (blockPlace, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.streams[stream]
	if known != nil {
		if place, ok := known.rows[block]; ok {
			return place, nil
		}
	}
	if known == nil || known.read.Before(at) {
		fresh, err := p.read(ctx, stream)
		if err != nil {
			return blockPlace{}, err
		}
		p.keep(stream, fresh)
		known = fresh
	}
	place, ok := known.rows[block]
	if !ok {
		return place, errNoBlock
	}
	return place, nil
}

// keep remembers the places of a stream, and forgets those of the streams that were read first while there are too many.
func (p *payloads) keep(stream telemetry.ID, fresh *blockPlaces) {
	p.forget(stream)
	for p.places+len(fresh.rows) > payloadPlaces && len(p.streams) > 0 {
		var first telemetry.ID
		var read time.Time
		for id, places := range p.streams {
			if read.IsZero() || places.read.Before(read) {
				first, read = id, places.read
			}
		}
		p.forget(first)
	}
	p.streams[stream] = fresh
	p.places += len(fresh.rows)
}

func (p *payloads) forget(stream telemetry.ID) {
	if places := p.streams[stream]; places != nil {
		p.places -= len(places.rows)
		delete(p.streams, stream)
	}
}

// read looks the blocks of a stream up.
func (p *payloads) read(ctx context.Context, stream telemetry.ID) (*blockPlaces, error) {
	out := &blockPlaces{read: time.Now(), rows: map[telemetry.ID]blockPlace{}}
	all := catalog.AllBlocks()
	rows, err := p.locator.Meeting(ctx, stream, all.Begin, all.End)
	if err != nil {
		return nil, fmt.Errorf("list the blocks of stream %s: %w", stream, err)
	}
	packs := map[string]string{} // many blocks lie in one
	for i := range rows {
		key, ok := packs[rows[i].PackKey]
		if !ok {
			key = rows[i].PackKey
			packs[key] = key
		}
		out.rows[rows[i].ID] = blockPlace{rows[i].ProcessID, key, rows[i].PackOffset, rows[i].PackLength}
	}
	return out, nil
}
