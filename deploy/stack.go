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
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/micromegas-go/micromegas/gateway"
	"github.com/micromegas-go/micromegas/materializers"
	"github.com/micromegas-go/micromegas/query"
	"github.com/micromegas-go/micromegas/query/engine"
	"github.com/micromegas-go/micromegas/query/flight"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/bus/embedded"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/sqlite"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/workers/archive"
)

// Stack is one process of the pipeline: the handles that all stages share, and the stages of its roles. Start makes
// it, right to left: what answers is up before what receives. Stop drains it, left to right.
type Stack struct {
	cfg     Config
	log     *slog.Logger
	started time.Time

	nats    *embedded.Server // nil: the bus runs elsewhere
	conn    *nats.Conn
	catalog catalog.Catalog
	lake    *lake.Lake
	bus     *bus.Bus
	engine  *engine.Engine
	space   func() error // why there is too little space to accept more; nil = enough

	gateway       *gateway.Gateway
	archive       *archive.Archive
	materializers *materializers.Materializers
	query         *query.Service
	flight        *flight.Server

	httpServer     *http.Server
	httpListener   net.Listener
	flightListener net.Listener

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
// stack is ready then. On an error nothing is left running.
func Start(ctx context.Context, cfg Config, log *slog.Logger) (*Stack, error) {
	s := &Stack{cfg: cfg, log: log, started: time.Now(), failed: make(chan error, 8)}
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		{"data folder", s.openFolder},
		{"catalog", s.openCatalog},
		{"lake", s.openLake},
		{"bus", s.openBus},
		{"query", s.startQuery},
		{"materializers", s.startMaterializers},
		{"workers", s.startWorkers},
		{"gateway", s.startHTTP},
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

func (s *Stack) openFolder(context.Context) error {
	dir, err := filepath.Abs(s.cfg.DataDir)
	if err != nil {
		return err
	}
	s.cfg.DataDir = dir
	unlock, err := lockFolder(dir)
	if err != nil {
		return err
	}
	s.onClose(func() error { unlock(); return nil })
	s.space = gateway.FreeSpace(dir, nil)
	return nil
}

func (s *Stack) openCatalog(ctx context.Context) error {
	db, err := sqlite.Open(ctx, s.path("catalog.db"), s.log)
	if err != nil {
		return err
	}
	s.onClose(db.Close)
	s.catalog = db
	return nil
}

func (s *Stack) openLake(ctx context.Context) error {
	uri, err := s.cfg.lakeURI()
	if err != nil {
		return err
	}
	l, err := lake.Open(ctx, uri, lake.Options{CacheDir: s.path(filepath.Join("cache", "lake"))})
	if err != nil {
		return err
	}
	s.onClose(l.Close)
	s.lake = l
	if err := l.Bind(ctx, s.catalog); errors.Is(err, lake.ErrForeign) {
		return configError{err.Error(), "name the bucket that was used with this data folder, or start with an empty folder and an empty bucket"}
	} else if err != nil {
		return err
	}
	if strings.HasPrefix(uri, "mem:") {
		s.log.Warn("the lake is in memory: what is acknowledged is lost when this process ends, and the data folder cannot be served again")
	}
	return nil
}

func (s *Stack) openBus(ctx context.Context) error {
	if err := s.connectBus(); err != nil {
		return err
	}
	bc := bus.DefaultConfig()
	var err error
	if bc.Catalog, _, err = s.catalog.Setting(ctx, lake.SettingID); err != nil {
		return err
	}
	b, err := bus.Open(ctx, s.conn, archive.Generations{Catalog: s.catalog}, s.lake, bc, s.log)
	if err != nil {
		return err
	}
	s.onClose(b.Close)
	s.bus = b
	if s.nats != nil {
		if err := s.nats.SyncFolders(); err != nil { // of the streams that were made now
			return err
		}
		s.goPart("bus guard", s.guardBus)
	}
	return nil
}

func (s *Stack) connectBus() error {
	if s.cfg.NATSURLs != "" {
		conn, err := nats.Connect(s.cfg.NATSURLs, nats.Name("micromegas"), nats.MaxReconnects(-1))
		if err != nil {
			return fmt.Errorf("connect to %s: %w", redactURLs(s.cfg.NATSURLs), err)
		}
		s.conn = conn
		s.onClose(func() error { conn.Close(); return nil })
		return nil
	}
	srv, err := embedded.Start(embedded.Options{StoreDir: s.path("bus"), Listen: s.cfg.NATSListen, Log: s.log})
	if err != nil {
		return err
	}
	s.onClose(func() error { srv.Shutdown(); return nil })
	conn, err := srv.Connect()
	if err != nil {
		return fmt.Errorf("connect in process: %w", err)
	}
	s.onClose(func() error { conn.Close(); return nil })
	s.nats, s.conn = srv, conn
	return nil
}

// redactURLs removes user names and passwords from a list of URLs.
func redactURLs(list string) string {
	urls := strings.Split(list, ",")
	for i, u := range urls {
		if at := strings.LastIndexByte(u, '@'); at >= 0 {
			scheme, _, _ := strings.Cut(u, "://")
			urls[i] = scheme + "://***" + u[at:]
		}
	}
	return strings.Join(urls, ",")
}

// busGuardInterval is how often the embedded server is looked at: a full disk must be over within 10 s of there being
// space again, and a look costs microseconds.
const busGuardInterval = 500 * time.Millisecond

// guardBus restarts the embedded server after a store error. JetStream refuses every write after the first that failed,
// also when there is space again; a restart recovers what is on disk and loses nothing that was acknowledged.
func (s *Stack) guardBus(ctx context.Context) error {
	tick := time.NewTicker(busGuardInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		broken := s.nats.Healthy()
		if broken == nil || s.space() != nil {
			continue // a restart on a full disk would only fail again
		}
		s.log.Warn("bus restarted after a store error", "error", broken)
		if err := s.nats.Restart(); err != nil {
			s.log.Error("bus restart failed", "error", err)
		}
	}
}

func (s *Stack) startQuery(context.Context) error {
	if !s.cfg.hasRole(RoleQuery) {
		return nil
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
	e, err := engine.Open(ec, s.log)
	if err != nil {
		return err
	}
	s.onClose(e.Close)
	s.engine = e

	qc := query.DefaultConfig()
	qc.CacheDir = cacheDir
	qc.Timeout = s.cfg.QueryTimeout
	s.query, err = query.New(qc, query.Parts{Catalog: s.catalog, Files: s.lake, Bus: s.bus, Engine: e, Log: s.log})
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
	m, err := materializers.New(materializers.DefaultConfig(), s.bus, s.catalog, s.lake, s.owner(), builtinViews(), s.log)
	if err != nil {
		return err
	}
	s.materializers = m
	s.goPart("materializers", m.Run)
	return nil
}

func (s *Stack) startWorkers(context.Context) error {
	if !s.cfg.hasRole(RoleWorkers) {
		return nil
	}
	a, err := archive.New(archive.DefaultConfig(), s.bus, s.catalog, s.lake, s.owner(), s.log)
	if err != nil {
		return err
	}
	s.archive = a
	s.goPart("collector", s.collect)
	s.goPart("archive", a.Run)
	return nil
}

// owner is the name under which this process holds leases. It is the same after a restart, so that a process that was
// killed need not wait for its own leases to expire; the lock of the data folder keeps it unique on the machine.
func (s *Stack) owner() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return host + ":" + s.cfg.DataDir
}

// collectInterval is how often unreferenced objects are looked for; they only cost space.
const collectInterval = 10 * time.Minute

// collect removes what no catalog row names any more and no running query reads.
func (s *Stack) collect(ctx context.Context) error {
	tick := time.NewTicker(collectInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		result, err := s.lake.GC(ctx, s.catalog, s.gcOptions(ctx))
		if err != nil && ctx.Err() == nil {
			s.log.Warn("garbage collection stopped early", "error", err)
			continue
		}
		s.log.Debug("garbage collected", "result", fmt.Sprintf("%+v", result))
	}
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
	s.stopPart(ctx, "archive")
	s.stopPart(ctx, "materializers")
	if s.flight != nil {
		s.cancelPart("flight")
		if err := s.flight.Shutdown(ctx); err != nil {
			s.log.Warn("queries did not finish in time", "error", err)
		}
		s.stopPart(ctx, "flight")
	}
	s.stopPart(ctx, "bus guard")
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

// retiredSlack is added to the longest query before a retired partition's object goes: clocks, and queries that end late.
const retiredSlack = 5 * time.Minute

// gcOptions tells the collector what is still in use.
func (s *Stack) gcOptions(ctx context.Context) lake.GCOptions {
	lagging := s.archiveLags(ctx)
	opts := lake.GCOptions{
		RetiredAge: s.cfg.QueryTimeout + retiredSlack,
		ClaimOnBus: func(lake.Object) bool { return lagging },
	}
	if s.query != nil {
		opts.OldestRead = s.query.OldestCommit
	}
	return opts
}

// archiveLags says whether a record on the bus may not be archived yet. The collector asks before it lists: an
// unreferenced oversize body of more than an hour then belongs to a publication that failed.
func (s *Stack) archiveLags(ctx context.Context) bool {
	done, err := s.catalog.ArchivePositions(ctx)
	if err != nil {
		return true
	}
	for _, shard := range s.bus.Shards() {
		head, err := s.bus.Head(ctx, shard)
		if err != nil {
			return true
		}
		if done[catalog.ShardID{Class: byte(shard.Class), Gen: head.Gen, Shard: shard.Shard}] < head.Seq {
			return true
		}
	}
	return false
}
