package justintime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/sdk"
)

// Bus is the part of bus.Bus that the service uses.
type Bus interface {
	Shards() []bus.Shard
	ShardOf(class bus.Class, processID telemetry.ID) bus.Shard
	Flush(ctx context.Context, s bus.Shard, req bus.FlushRequest) (bus.FlushReply, error)
	ServeMaterialize(h bus.MaterializeHandler) (stop func(), err error)
}

// Catalog is the part of catalog.Catalog that the service uses.
type Catalog interface {
	Now(ctx context.Context) (int64, error)
	Processes(ctx context.Context, ids []telemetry.ID) ([]catalog.ProcessRow, error)
	Streams(ctx context.Context, ids []telemetry.ID) ([]catalog.StreamRow, error)
	ProcessStreams(ctx context.Context, processes []telemetry.ID) ([]catalog.StreamRow, error)
	InstancePartitions(ctx context.Context, view string, instance int64) ([]catalog.Partition, error)
	CommitNo(ctx context.Context) (int64, error)
	CommitView(ctx context.Context, c *catalog.ViewCommit) (commitNo int64, err error)
	AcquireLease(ctx context.Context, name, owner string, ttl time.Duration) (catalog.Lease, error)
	KeepLeases(ctx context.Context, held []catalog.Lease, ttl time.Duration) (all []catalog.Lease, now int64, err error)
	ReleaseLease(ctx context.Context, l catalog.Lease) error
	ForgetLeases(ctx context.Context, prefix string, before int64) error
}

// Blocks finds archived blocks and reads them; locate.Locator does.
type Blocks interface {
	Meeting(ctx context.Context, stream telemetry.ID, begin, end int64) ([]catalog.BlockRow, error)
	Begun(ctx context.Context, stream telemetry.ID, from, to int64) ([]catalog.BlockRow, error)
	Before(ctx context.Context, stream telemetry.ID, t int64, n int) ([]catalog.BlockRow, error)
	Body(ctx context.Context, b *catalog.BlockRow) ([]byte, error)
}

// Objects is where files go.
type Objects interface {
	Put(ctx context.Context, key string, data []byte) error
}

// Parts are the handles that a Service works with. Owner is the name of this process alone.
type Parts struct {
	Bus     Bus
	Catalog Catalog
	Blocks  Blocks
	Objects Objects
	Owner   string
	Log     *slog.Logger
}

// Service answers requests for views. It is safe for concurrent use.
type Service struct {
	cfg   Config
	parts Parts
	log   *slog.Logger
	views map[string]*View

	builds   *semaphore.Weighted
	fetches  *semaphore.Weighted
	bytes    *semaphore.Weighted
	decoding *semaphore.Weighted
	decoders decoderPool

	mu    sync.Mutex
	locks map[string]*instanceLock

	stats counters

	// hook is called between any two steps of a build, with the name of the place; an error is a crash there.
	hook func(at string) error
}

// New returns a service of views.
func New(cfg Config, parts Parts, views []View) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Service{
		cfg: cfg, parts: parts, log: parts.Log, views: map[string]*View{}, locks: map[string]*instanceLock{},
		builds: semaphore.NewWeighted(int64(cfg.Builds)), fetches: semaphore.NewWeighted(int64(cfg.Fetches)),
		bytes: semaphore.NewWeighted(cfg.DecodedBytes), decoding: semaphore.NewWeighted(int64(cfg.Decoders)),
		decoders: decoderPool{limits: cfg.Limits, max: cfg.MaxDecoders},
	}
	for i := range views {
		s.views[views[i].Table.Name] = &views[i]
	}
	return s, nil
}

// Run answers requests until ctx ends; those under way are then cut off, and their askers get a retryable error.
func (s *Service) Run(ctx context.Context) error {
	stop, err := s.parts.Bus.ServeMaterialize(s.Materialize)
	if err != nil {
		return fmt.Errorf("serve just-in-time views: %w", err)
	}
	defer stop()
	timer := time.NewTicker(s.cfg.ForgetLeases / 6)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			s.forgetLeases(ctx)
		}
	}
}

// Stats is what a service did since its start.
type Stats struct {
	Requests        int64 `json:"requests"`         // answered
	Failed          int64 `json:"failed"`           // of these with an error
	Building        int64 `json:"building"`         // instances now
	Partitions      int64 `json:"partitions"`       // built
	FreshPartitions int64 `json:"fresh_partitions"` // found built
	Blocks          int64 `json:"blocks"`           // decoded
	Objects         int64 `json:"objects"`          // their events
	Rows            int64 `json:"rows"`             // written
	Quarantined     int64 `json:"quarantined"`      // blocks that were left out, each time that it was
}

type counters struct {
	requests, failed, building, partitions, blocks, objects, rows, quarantined, fresh atomic.Int64
}

// Stats returns what the service did.
func (s *Service) Stats() Stats {
	c := &s.stats
	return Stats{
		Requests: c.requests.Load(), Failed: c.failed.Load(), Building: c.building.Load(), Partitions: c.partitions.Load(), Blocks: c.blocks.Load(),
		Objects: c.objects.Load(), Rows: c.rows.Load(), Quarantined: c.quarantined.Load(), FreshPartitions: c.fresh.Load(),
	}
}

var (
	requestSpan = sdk.NewSpan("materialize")
	buildSpan   = sdk.NewSpan("build just in time")
)

// Materialize brings an instance of a view up to date for a range, and says what to read. Progress may be nil. An error is a
// *bus.MaterializeError.
func (s *Service) Materialize(ctx context.Context, req bus.MaterializeRequest, progress func(bus.MaterializeProgress)) (bus.MaterializeReply, error) {
	ctx, span := requestSpan.Start(ctx)
	span.SetText("view", req.View)
	span.SetText("instance", req.Instance.String())
	defer span.End()
	if progress == nil {
		progress = func(bus.MaterializeProgress) {}
	}
	reply, err := s.materialize(ctx, req, progress)
	s.stats.requests.Add(1)
	if err == nil {
		return reply, nil
	}
	s.stats.failed.Add(1)
	if typed, ok := errors.AsType[*bus.MaterializeError](err); ok {
		return bus.MaterializeReply{}, typed
	}
	code := bus.Interrupted
	if hopeless(err) && ctx.Err() == nil {
		code = bus.Failed
	}
	if !overtaken(ctx, err) {
		s.log.Warn("view not built", "view", req.View, "instance", req.Instance.String(), "error", err)
	}
	return bus.MaterializeReply{}, &bus.MaterializeError{Code: code, Message: err.Error()}
}

// errBroken marks what fails with the same blocks every time.
var errBroken = errors.New("it cannot be built of these blocks")

func broken(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errBroken, err)
}

// hopeless reports whether the same request would fail again. All else is trouble of a store, or of this process.
func hopeless(err error) bool {
	return errors.Is(err, errBroken) || errors.Is(err, catalog.ErrInvalid) || errors.Is(err, telemetry.ErrNoFrequency) || errors.Is(err, lake.ErrCorrupt)
}

// overtaken reports whether an error is of the course of things: the asker is gone, or another process was faster.
func overtaken(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, catalog.ErrStale) || errors.Is(err, catalog.ErrLeaseLost) || errors.Is(err, catalog.ErrOutcomeUnknown) ||
		errors.Is(err, catalog.ErrObjectsTooOld) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

func (s *Service) materialize(ctx context.Context, req bus.MaterializeRequest, progress func(bus.MaterializeProgress)) (bus.MaterializeReply, error) {
	view := s.views[req.View]
	if view == nil {
		return bus.MaterializeReply{}, &bus.MaterializeError{Code: bus.UnknownView, Message: "no just-in-time view " + req.View}
	}
	in, err := s.instance(ctx, view, req.Instance)
	if err != nil {
		return bus.MaterializeReply{}, err
	}
	p, err := s.plan(ctx, view, in, req.Begin, req.End)
	if err != nil {
		return bus.MaterializeReply{}, err
	}
	if req.Dry || p.fresh() {
		return p.reply(ctx, s)
	}
	if n := p.staleBlocks(); req.MaxBlocks > 0 && n > req.MaxBlocks {
		return bus.MaterializeReply{}, &bus.MaterializeError{Code: bus.TooMuch, Message: fmt.Sprintf("%d blocks would have to be decoded, more than %d", n, req.MaxBlocks)}
	}
	return s.buildAlone(ctx, p, req, progress)
}

// buildAlone builds what is stale when nobody else builds the instance.
func (s *Service) buildAlone(ctx context.Context, p *plan, req bus.MaterializeRequest, progress func(bus.MaterializeProgress)) (bus.MaterializeReply, error) {
	lease, ctx, release, err := s.lock(ctx, p.leaseName(), func() { progress(bus.MaterializeProgress{Blocks: p.staleBlocks(), Waiting: true}) })
	if err != nil {
		return bus.MaterializeReply{}, err
	}
	defer release()
	s.stats.building.Add(1)
	defer s.stats.building.Add(-1)
	ctx, span := buildSpan.Start(ctx)
	defer span.End()
	in, err := s.known(ctx, p.view, req.Instance)
	if err != nil {
		return bus.MaterializeReply{}, err
	}
	if p, err = s.plan(ctx, p.view, in, req.Begin, req.End); err != nil { // another one may have built it meanwhile
		return bus.MaterializeReply{}, err
	}
	if err := s.build(ctx, p, lease, progress); err != nil {
		return bus.MaterializeReply{}, causeOf(ctx, err)
	}
	return p.reply(ctx, s)
}

// causeOf prefers why the work was ended to what that looked like.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// step marks a place between two steps.
func (s *Service) step(at string) error {
	if s.hook == nil {
		return nil
	}
	return s.hook(at)
}
