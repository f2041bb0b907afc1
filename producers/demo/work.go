package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
)

const targetWork = "demo/work"

const (
	workers    = 2
	batchEvery = 2 * time.Second
	statsEvery = time.Second // of the process
)

var (
	jobSpan      = sdk.NewSpan("job", sdk.Target(targetWork))
	decodeSpan   = sdk.NewSpan("decode", sdk.Target(targetWork))
	simulateSpan = sdk.NewSpan("simulate world", sdk.Target(targetWork))
	physicsSpan  = sdk.NewSpan("physics", sdk.Target(targetWork))
	pathSpan     = sdk.NewSpan("find paths", sdk.Target(targetWork))
	encodeSpan   = sdk.NewSpan("encode", sdk.Target(targetWork))

	jobLost   = sdk.NewLog(sdk.Warn, "worker %d: job %d was given back, its player left", sdk.Target(targetWork))
	jobs      = sdk.NewCounter("jobs", "count", sdk.Target(targetWork))
	jobUnits  = sdk.NewInt("job_units", "count", sdk.Target(targetWork))
	jobKinds  = []string{"match", "replay", "bot"}
	jobsProps = kindProps()

	batchSpan  = sdk.NewSpan("batch", sdk.Target(targetWork))
	upsertSpan = sdk.NewSpan("upsert", sdk.Target(targetWork))
	batchDone  = sdk.NewLog(sdk.Info, "batch %d: %d items stored", sdk.Target(targetWork))
	batchFails = sdk.NewLog(sdk.Error, "batch %d: %d of %d items refused, trying them again with the next one", sdk.Target(targetWork))
	batchItems = sdk.NewInt("batch_items", "count", sdk.Target(targetWork))

	heap       = sdk.NewInt("heap", "bytes", sdk.Target("demo"))
	goroutines = sdk.NewInt("goroutines", "count", sdk.Target("demo"))
)

func kindProps() (all []*sdk.Properties) {
	for _, k := range jobKinds {
		all = append(all, sdk.Props("kind", k))
	}
	return all
}

// playWorker does jobs, one after the other. A track belongs to the goroutine that uses it.
func playWorker(ctx context.Context, seed uint64, n int) {
	track := sdk.NewTrack(fmt.Sprintf("worker %d", n+1))
	defer track.Close()
	random := rand.New(rand.NewPCG(seed, randomWorkers+uint64(n)))
	for job := 1; pause(ctx, between(random, 20*time.Millisecond, 200*time.Millisecond)); job++ {
		kind := random.IntN(len(jobKinds))
		units := 1 + random.IntN(6)
		doJob(ctx, track, random, jobsProps[kind], units)
		jobs.Add(1)
		jobUnits.With(jobsProps[kind]).Record(int64(units))
		if random.IntN(100) == 0 {
			jobLost.Log(sdk.Int(n+1), sdk.Int(job))
		}
	}
}

// doJob draws as many numbers whether ctx goes on or not.
func doJob(ctx context.Context, track *sdk.Track, random *rand.Rand, props *sdk.Properties, units int) {
	span := jobSpan.Begin(track)
	defer span.End()
	span.Set(props)
	step := func(s *sdk.Span, low, high time.Duration) {
		defer s.Begin(track).End()
		pause(ctx, between(random, low, high))
	}
	step(decodeSpan, 200*time.Microsecond, time.Millisecond)
	func() {
		defer simulateSpan.Begin(track).End()
		for range units {
			step(physicsSpan, 500*time.Microsecond, 3*time.Millisecond)
			step(pathSpan, 200*time.Microsecond, 6*time.Millisecond)
		}
	}()
	step(encodeSpan, 200*time.Microsecond, 2*time.Millisecond)
}

// playBatches stores what has come together, in the background.
func playBatches(ctx context.Context, seed uint64) {
	random := rand.New(rand.NewPCG(seed, randomBatches))
	for batch := 1; pause(ctx, batchEvery); batch++ {
		doBatch(ctx, random, batch)
	}
}

func doBatch(ctx context.Context, random *rand.Rand, batch int) {
	ctx, span := batchSpan.Start(ctx)
	defer span.End()
	items := 50 + random.IntN(400)
	for range 1 + items/100 {
		_, part := upsertSpan.Start(ctx)
		pause(ctx, between(random, 5*time.Millisecond, 40*time.Millisecond))
		part.End()
	}
	batchItems.Record(int64(items))
	if random.IntN(10) == 0 {
		batchFails.LogIn(ctx, sdk.Int(batch), sdk.Int(1+random.IntN(items)), sdk.Int(items))
		return
	}
	batchDone.LogIn(ctx, sdk.Int(batch), sdk.Int(items))
}

// playProcess tells how this process is.
func playProcess(ctx context.Context, _ uint64) {
	for {
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		heap.Record(int64(mem.HeapAlloc))
		goroutines.Record(int64(runtime.NumGoroutine()))
		if !pause(ctx, statsEvery) {
			return
		}
	}
}
