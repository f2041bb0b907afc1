package materializers_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/materializers"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// BenchmarkBacklog measures how fast a backlog of 9 million events drains while fresh events arrive at a steady rate, and how
// long flush requests take meanwhile and afterwards. Bus, archive, catalog, lake and the producer run in the same process. An
// iteration is one whole backlog: run it with -benchtime 1x.
func BenchmarkBacklog(b *testing.B) {
	for _, rate := range []int{0, 50_000, 150_000, 600_000} {
		b.Run(fmt.Sprint("arrival ", rate), func(b *testing.B) {
			for b.Loop() {
				benchBacklog(b, rate)
			}
		})
	}
}

func benchBacklog(b *testing.B, rate int) {
	const blocks = 2400
	e := newEnv(b)
	e.startArchive()
	p := newLoader(b, e)
	for range blocks {
		p.post(old())
	}
	e.archived()
	backlog := p.events
	cfg := materializers.DefaultConfig()
	cfg.FlushPause = 100 * time.Millisecond
	views := e.newMaterializers("views", cfg)
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var open atomic.Bool
	open.Store(true)
	var during, after []time.Duration
	if rate > 0 {
		wg.Go(func() { p.arrive(ctx, rate) })
	}
	begun, cpu := time.Now(), cpuTime()
	e.background(views.Run)
	wg.Go(func() {
		for ctx.Err() == nil {
			at := time.Now()
			was := open.Load()
			_, err := e.bus.Flush(ctx, eager, bus.FlushRequest{Target: bus.TargetViews})
			if took := time.Since(at); err == nil && was {
				during = append(during, took)
			} else if err == nil {
				after = append(after, took)
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	e.eventually("leaping", func() bool { return len(e.ranges()) > 0 || views.Stats().BacklogRows > 0 })
	e.eventually("draining", func() bool { return len(e.ranges()) == 0 })
	took, spent := time.Since(begun), cpuTime()-cpu
	open.Store(false)
	drained := views.Stats().BacklogRows
	pause := time.NewTimer(3 * time.Second) // for flushes without a backlog, to compare
	<-pause.C
	cancel()
	wg.Wait()
	slices.Sort(during)
	slices.Sort(after)
	b.ReportMetric(float64(drained)/took.Seconds(), "drained/s")
	b.ReportMetric(float64(drained)/spent.Seconds(), "drained/cpu-s")
	b.ReportMetric(float64(backlog), "events")
	if rate > 0 {
		b.ReportMetric(float64(drained)/took.Seconds()/float64(rate), "×arrival")
	}
	report := func(name string, all []time.Duration) {
		if len(all) > 0 {
			b.ReportMetric(all[len(all)/2].Seconds()*1000, name+"-p50-ms")
			b.ReportMetric(all[len(all)-1].Seconds()*1000, name+"-max-ms")
		}
	}
	report("flush", during)
	report("flush-after", after)
}

// loader posts the captured blocks under fresh ids.
type loader struct {
	e       *env
	process telemetry.Process
	streams map[telemetry.Tag]telemetry.Stream
	blocks  []loaderBlock
	n       int
	events  int
}

type loaderBlock struct {
	tag  telemetry.Tag
	body wire.BlockBody
}

func newLoader(b *testing.B, e *env) *loader {
	p := &loader{e: e, streams: map[telemetry.Tag]telemetry.Stream{}}
	m := newMaker(1)
	c := readCaptured(b)
	p.process = c.process.Process
	p.process.ID = telemetry.NewID()
	e.post(bus.KindProcess, 0, wire.AppendProcess(nil, &p.process), old())
	for tag, s := range map[telemetry.Tag]telemetry.Stream{telemetry.TagLog: m.logs, telemetry.TagMetrics: m.values} {
		s.ProcessID = p.process.ID
		s.Dependencies, s.Objects = c.layouts[tag].Dependencies, c.layouts[tag].Objects
		p.streams[tag] = s
		e.post(bus.KindStream, 0, wire.AppendStream(nil, &s), old())
		for _, data := range c.blocks[tag] {
			body, err := wire.DecodeBlock(data)
			if err != nil {
				b.Fatal(err)
			}
			p.blocks = append(p.blocks, loaderBlock{tag, body})
		}
	}
	return p
}

func (p *loader) post(insertTime int64) {
	one := &p.blocks[p.n%len(p.blocks)]
	p.n++
	block := one.body.Block
	block.ID, block.ProcessID, block.StreamID = telemetry.NewID(), p.process.ID, p.streams[one.tag].ID
	p.events += int(block.NbObjects)
	p.e.post(bus.KindBlock, one.tag, wire.AppendBlock(nil, &block, one.body.Dependencies, one.body.Objects), insertTime)
}

// arrive posts at a steady rate of events per second until ctx ends.
func (p *loader) arrive(ctx context.Context, rate int) {
	begun, first := time.Now(), p.events
	for ctx.Err() == nil {
		due := begun.Add(time.Duration(float64(p.events-first) / float64(rate) * float64(time.Second)))
		timer := time.NewTimer(time.Until(due))
		select {
		case <-timer.C:
			p.post(time.Now().UnixNano())
		case <-ctx.Done():
			timer.Stop()
		}
	}
}
