package deploy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/micromegas-go/micromegas/gateway"
	"github.com/micromegas-go/micromegas/materializers"
	"github.com/micromegas-go/micromegas/materializers/justintime"
	"github.com/micromegas-go/micromegas/query"
	"github.com/micromegas-go/micromegas/query/engine"
	"github.com/micromegas-go/micromegas/query/flight"
	"github.com/micromegas-go/micromegas/query/functions"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/bus/embedded"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/ownership"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/lake/locate"
	"github.com/micromegas-go/micromegas/workers/archive"
	"github.com/micromegas-go/micromegas/workers/freezer"
)

// Stack is one process of the pipeline: the handles that all stages share, and the stages of its roles. Start makes
// it, right to left: what answers is up before what receives. Stop drains it, left to right.
type Stack struct {
	cfg     Config
	log     *slog.Logger // of all parts; recorded too, with Config.Telemetry
	plain   *slog.Logger // for what must not be
	started time.Time
	name    string // of this process, under which it holds leases

	nats    *embedded.Server // nil: the bus runs elsewhere
	conn    *nats.Conn
	catalog catalog.Catalog
	lake    *lake.Lake
	bus     *bus.Bus
	keeper  *ownership.Keeper
	engine  *engine.Engine
	space   func() error // why there is too little space to accept more; nil = enough

	gateway       *gateway.Gateway
	archive       *archive.Archive
	freezer       *freezer.Freezer
	materializers *materializers.Materializers
	justInTime    *justintime.Service
	query         *query.Service
	flight        *flight.Server

	httpServer     *http.Server
	httpListener   net.Listener
	flightListener net.Listener

	stopMetrics func() // of the runtime; nil: this process does not record itself

	counts counts
	ready  atomic.Bool
	failed chan error // the first part that ended by itself; buffered for all of them

	// Each running part and how to end it, in the order of the data path.
	parts  []*part
	closes []func() error // handles, in the order of their making
}

// part is a goroutine with a name.
type part struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
}

// Start opens the handles and starts the stages that cfg names. It returns when the addresses are listening; the
// stack is ready then. Parts that cannot be reached yet are waited for, within cfg.StartTimeout; one that refuses this
// process's credentials is not. On an error nothing is left running.
func Start(ctx context.Context, cfg Config, log *slog.Logger) (*Stack, error) {
	s := &Stack{cfg: cfg, log: recorded(log), plain: log, started: time.Now(), failed: make(chan error, 8)}
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		{"data folder", s.openFolder},
		{"catalog", s.patiently(s.openCatalog)},
		{"object store", s.patiently(s.openLake)},
		{"NATS", s.patiently(s.connectBus)},
		{"bus", s.patiently(s.openBus)},
		{"query", s.startQuery},
		{"materializers", s.startMaterializers},
		{"workers", s.startWorkers},
		{"gateway", s.startHTTP},
		{"telemetry", s.startTelemetry},
	}
	for _, step := range steps {
		if err := step.run(ctx); err != nil {
			s.Stop(context.WithoutCancel(ctx))
			return nil, fmt.Errorf("start %s: %w", step.name, err)
		}
	}
	s.ready.Store(true)
	return s, nil
}

// HTTPAddr returns the address of ingestion, /health, /ready and /status.
func (s *Stack) HTTPAddr() string { return s.httpListener.Addr().String() }

// FlightAddr returns the address of FlightSQL, or "" when this process does not answer queries.
func (s *Stack) FlightAddr() string {
	if s.flightListener == nil {
		return ""
	}
	return s.flightListener.Addr().String()
}

// Failed delivers the error of a part that ended by itself: the process should stop and be started again.
func (s *Stack) Failed() <-chan error { return s.failed }

func (s *Stack) onClose(f func() error) { s.closes = append(s.closes, f) }

func (s *Stack) path(name string) string { return filepath.Join(s.cfg.DataDir, name) }

func (s *Stack) startQuery(ctx context.Context) error {
	if !s.cfg.hasRole(RoleQuery) {
		return nil
	}
	if err := recordQueryTimeout(ctx, s.catalog, s.cfg.QueryTimeout); err != nil {
		return err
	}
	cacheDir := s.path(filepath.Join("cache", "query"))
	tempDir := s.path(filepath.Join("cache", "engine"))
	for _, dir := range []string{cacheDir, tempDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := emptyFolder(tempDir); err != nil { // a server that was killed left what its queries had spilled
		return err
	}
	ec := engine.DefaultConfig()
	ec.MemoryLimit = s.cfg.QueryMemory
	ec.Threads = s.cfg.QueryThreads
	ec.MaxConcurrent = s.cfg.QueryConcurrency
	ec.TempDir = tempDir
	ec.AllowedDirs = []string{cacheDir, s.lake.CacheDir()}
	if root := s.lake.Root(); root != "" {
		ec.AllowedDirs = append(ec.AllowedDirs, root)
	}
	ec.Waiting = []functions.Waiting{query.PayloadFunction(s.catalog, s.lake)}
	e, err := engine.Open(ec, s.log)
	if err != nil {
		return err
	}
	s.onClose(e.Close)
	s.engine = e

	qc := query.DefaultConfig()
	qc.CacheDir = cacheDir
	qc.Timeout = s.cfg.QueryTimeout
	s.query, err = query.New(qc, query.Parts{Catalog: s.catalog, Files: s.lake, Traces: s.catalog, Bus: s.bus, Engine: e, Log: s.log})
	if err != nil {
		return err
	}
	s.onClose(s.query.Close)
	keys, err := s.cfg.keys()
	if err != nil {
		return err
	}
	s.flight, err = flight.New(flight.DefaultConfig(), s.query, keys, s.log)
	if err != nil {
		return err
	}
	if s.flightListener, err = net.Listen("tcp", s.cfg.FlightAddr); err != nil {
		return fmt.Errorf("listen for FlightSQL: %w", err)
	}
	s.goPart("flight", func(context.Context) error { return s.flight.Serve(s.flightListener) })
	return nil
}

// emptyFolder removes everything in a folder.
func emptyFolder(dir string) error {
	left, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range left {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}

func (s *Stack) startMaterializers(context.Context) error {
	if !s.cfg.hasRole(RoleMaterializers) {
		return nil
	}
	mc := materializers.DefaultConfig()
	mc.Keeper = s.keeper
	m, err := materializers.New(mc, s.bus, s.catalog, s.lake, s.name, builtinViews(), s.log)
	if err != nil {
		return err
	}
	s.materializers = m
	s.justInTime, err = justintime.New(justintime.DefaultConfig(), justintime.Parts{
		Bus: s.bus, Catalog: s.catalog, Blocks: locate.New(s.catalog, s.lake), Objects: s.lake, Owner: s.name, Log: s.log,
	}, builtinJustInTime())
	if err != nil {
		return err
	}
	s.goPart("materializers", m.Run)
	s.goPart("just in time", s.justInTime.Run)
	return nil
}

func (s *Stack) startWorkers(context.Context) error {
	if !s.cfg.hasRole(RoleWorkers) {
		return nil
	}
	ac := archive.DefaultConfig()
	ac.Keeper = s.keeper
	a, err := archive.New(ac, s.bus, s.catalog, s.lake, s.name, s.log)
	if err != nil {
		return err
	}
	s.archive = a
	fc := freezer.DefaultConfig()
	fc.Keeper = s.keeper
	if s.freezer, err = freezer.New(fc, s.catalog, s.lake, s.log); err != nil {
		return err
	}
	s.goPart("collector", s.shareCollecting)
	s.goPart("freezer", s.freezer.Run)
	s.goPart("archive", a.Run)
	return nil
}

func (s *Stack) startHTTP(context.Context) error {
	keys, err := s.cfg.keys()
	if err != nil {
		return err
	}
	gc := gateway.DefaultConfig()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", s.serveHealth)
	mux.HandleFunc("GET /ready", s.serveReady)
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		if keys != nil {
			if _, err := keys.Check(r.Header.Get("Authorization")); err != nil {
				http.Error(w, err.Error(), http.StatusUnauthorized)
				return
			}
		}
		s.serveStatus(w, r)
	})
	if s.cfg.hasRole(RoleGateway) {
		s.gateway = gateway.New(gc, s.bus, s.catalog, keys, s.space, s.log)
		mux.Handle("/ingestion/", s.gateway.Handler(builtinProtocols()...))
	}
	listener, err := net.Listen("tcp", s.cfg.HTTPAddr)
	if err != nil {
		return fmt.Errorf("listen for HTTP: %w", err)
	}
	s.httpListener = gateway.LimitConnections(listener, gc.MaxConnections)
	s.httpServer = gateway.NewServer(gc, mux, s.log)
	s.goPart("http", func(context.Context) error {
		if err := s.httpServer.Serve(s.httpListener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return nil
}

// goPart runs f until stopPart; an end that was not asked for goes to Failed.
func (s *Stack) goPart(name string, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	p := &part{name: name, cancel: cancel, done: make(chan struct{})}
	s.parts = append(s.parts, p)
	go func() {
		defer close(p.done)
		err := f(ctx)
		if ctx.Err() != nil {
			if err != nil && !errors.Is(err, context.Canceled) {
				s.log.Warn("part ended with an error", "part", name, "error", err)
			}
			return
		}
		if err == nil {
			err = errors.New("ended")
		}
		s.failed <- fmt.Errorf("%s: %w", name, err)
	}()
}

// stopPart cancels the part called name, if it runs, and waits for it or for ctx.
func (s *Stack) stopPart(ctx context.Context, name string) {
	for _, p := range s.parts {
		if p.name != name {
			continue
		}
		p.cancel()
		select {
		case <-p.done:
		case <-ctx.Done():
			s.log.Warn("part did not end in time", "part", name)
		}
	}
}

// Stop drains left to right and closes the handles: requests finish, the archive ends its commit, the views commit or
// drop, queries end within the grace. A crash at any point only means that work is done again. It may be called twice.
func (s *Stack) Stop(ctx context.Context) {
	s.ready.Store(false)
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Grace)
	defer cancel()
	s.stopTelemetry(ctx)
	if s.httpServer != nil {
		s.cancelPart("http")
		if err := s.httpServer.Shutdown(ctx); err != nil {
			s.log.Warn("requests did not finish in time", "error", err)
			_ = s.httpServer.Close() // cuts the connections that are left
		}
		s.stopPart(ctx, "http")
	}
	if s.gateway != nil {
		if err := s.gateway.Drain(ctx); err != nil {
			s.log.Warn("publishes did not finish in time", "error", err)
		}
	}
	s.stopPart(ctx, "collector")
	s.stopPart(ctx, "freezer")
	s.stopPart(ctx, "archive")
	s.stopPart(ctx, "materializers")
	if s.flight != nil {
		s.cancelPart("flight")
		if err := s.flight.Shutdown(ctx); err != nil {
			s.log.Warn("queries did not finish in time", "error", err)
		}
		s.stopPart(ctx, "flight")
	}
	s.stopPart(ctx, "just in time") // after the queries that wait for it
	s.stopPart(ctx, "bus guard")
	s.stopPart(ctx, "bus lease")
	for _, closeHandle := range slices.Backward(s.closes) {
		if err := closeHandle(); err != nil {
			s.log.Warn("handle did not close well", "error", err)
		}
	}
	s.closes, s.parts = nil, nil
}

// cancelPart says that the part's end is wanted.
func (s *Stack) cancelPart(name string) {
	for _, p := range s.parts {
		if p.name == name {
			p.cancel()
		}
	}
}
