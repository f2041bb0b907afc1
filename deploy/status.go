package deploy

import (
	"context"
	"encoding/json"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/micromegas-go/micromegas/gateway"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// readyTimeout bounds the probes of /ready and /status.
const readyTimeout = 2 * time.Second

// serveHealth says that the process runs.
func (s *Stack) serveHealth(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }

// serveReady says whether the process can do the work of its roles; if not, which part it misses.
func (s *Stack) serveReady(w http.ResponseWriter, r *http.Request) {
	if !s.ready.Load() {
		http.Error(w, "starting or stopping", http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	if missing := s.missing(ctx); len(missing) > 0 {
		http.Error(w, "not ready: "+strings.Join(missing, ", "), http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusOK)
}

// missing asks, all at once, the parts that the roles need, and names those that do not answer. All need the bus. A gateway
// needs no more: it takes in what comes while the others are away.
func (s *Stack) missing(ctx context.Context) []string {
	probes := []struct {
		name  string
		probe func(context.Context) error
	}{{"bus", s.probeBus}}
	if len(s.cfg.Roles) > 1 || !s.cfg.hasRole(RoleGateway) {
		probes = append(probes, []struct {
			name  string
			probe func(context.Context) error
		}{{"catalog", s.catalog.Ping}, {"object store", s.lake.Ping}}...)
	}
	failed := make([]error, len(probes))
	var wg sync.WaitGroup
	for i, p := range probes {
		wg.Go(func() { failed[i] = p.probe(ctx) })
	}
	wg.Wait()
	var missing []string
	for i, err := range failed {
		if err != nil {
			s.log.Warn("not ready", "part", probes[i].name, "error", err)
			missing = append(missing, probes[i].name)
		}
	}
	return missing
}

// probeBus asks whether every shard has a leader.
func (s *Stack) probeBus(ctx context.Context) error {
	_, err := s.heads(ctx)
	return err
}

// heads asks for the last positions of all shards at once: in a cluster each takes some rounds between its servers.
func (s *Stack) heads(ctx context.Context) ([]bus.Position, error) {
	shards := s.bus.Shards()
	heads := make([]bus.Position, len(shards))
	g, ctx := errgroup.WithContext(ctx)
	for i, shard := range shards {
		g.Go(func() (err error) {
			heads[i], err = s.bus.Head(ctx, shard)
			return err
		})
	}
	return heads, g.Wait()
}

// status is the body of /status.
type status struct {
	Ready         bool             `json:"ready"`
	Process       string           `json:"process"` // its name among all that live
	UptimeSeconds float64          `json:"uptime_seconds"`
	Roles         []Role           `json:"roles"`
	Leases        leaseStatus      `json:"leases"`
	Disk          diskStatus       `json:"disk"`
	Memory        memoryStatus     `json:"memory"`
	Shards        []shardStatus    `json:"shards"`
	DeadLetters   map[string]int64 `json:"dead_letters"` // by reason, as this process sent them
	Catalog       any              `json:"catalog"`
	CatalogMs     float64          `json:"catalog_ms"`     // one round trip to the catalog
	Lake          any              `json:"lake,omitempty"` // requests and local copies, where the bucket is no folder
	Gateway       any              `json:"gateway,omitempty"`
	Archive       any              `json:"archive,omitempty"`
	Freezer       any              `json:"freezer,omitempty"`
	Materializers any              `json:"materializers,omitempty"`
	JustInTime    any              `json:"just_in_time,omitempty"` // views that are built when they are asked for
	Query         any              `json:"query,omitempty"`
	Errors        []string         `json:"errors,omitempty"` // what could not be asked
}

// leaseStatus is what falls to this process.
type leaseStatus struct {
	Held    map[string]int64 `json:"held"`    // name to epoch
	Members map[string]int   `json:"members"` // living processes by role, of the roles that this one has
	AgeMs   int64            `json:"age_ms"`  // since the catalog was last asked with success; -1: never
}

func (s *Stack) leaseStatus() leaseStatus {
	k := s.keeper.Status()
	age := int64(-1)
	if !k.Looked.IsZero() {
		age = time.Since(k.Looked).Milliseconds()
	}
	return leaseStatus{Held: k.Held, Members: k.Members, AgeMs: age}
}

type diskStatus struct {
	FreeBytes    uint64 `json:"free_bytes"`
	ReserveBytes uint64 `json:"reserve_bytes"` // below it ingestion answers 503
	Refusing     string `json:"refusing,omitempty"`
}

type memoryStatus struct {
	HeapBytes  uint64 `json:"heap_bytes"`
	SysBytes   uint64 `json:"sys_bytes"`
	Goroutines int    `json:"goroutines"`
}

// shardStatus is one stream of the bus and who follows it how far behind.
type shardStatus struct {
	Class       string `json:"class"`
	Shard       int32  `json:"shard"`
	Gen         int32  `json:"gen"`
	Bytes       int64  `json:"bytes"`
	FirstSeq    uint64 `json:"first_seq"`
	LastSeq     uint64 `json:"last_seq"`
	ArchiveLag  uint64 `json:"archive_lag"`         // frames
	ViewsLag    uint64 `json:"views_lag,omitempty"` // frames; eager shards only
	PublishErrs int64  `json:"publish_errors"`
}

func (s *Stack) serveStatus(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	body, err := json.MarshalIndent(s.status(ctx), "", "  ")
	if err != nil {
		s.log.Error("status not printed", "error", err)
		http.Error(w, "status cannot be printed", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(body, '\n'))
}

func (s *Stack) status(ctx context.Context) status {
	st := status{
		Ready:         s.ready.Load(),
		UptimeSeconds: time.Since(s.started).Seconds(),
		Process:       s.name,
		Roles:         s.cfg.Roles,
		Leases:        s.leaseStatus(),
		DeadLetters:   s.bus.DeadLetterCounts(),
	}
	note := func(err error) {
		if err != nil {
			st.Errors = append(st.Errors, err.Error())
		}
	}
	if err := s.space(); err != nil {
		st.Disk.Refusing = err.Error()
	}
	space, err := gateway.StatSpace(s.cfg.DataDir)
	note(err)
	st.Disk.FreeBytes, st.Disk.ReserveBytes = space.Free, space.Reserve()

	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	st.Memory = memoryStatus{HeapBytes: mem.HeapAlloc, SysBytes: mem.Sys, Goroutines: runtime.NumGoroutine()}

	st.Shards, err = s.shardStatus(ctx)
	note(err)
	if s.lake.Root() == "" {
		st.Lake = s.lake.Stats()
	}
	st.Catalog, err = s.counts.take(ctx, s.catalog)
	note(err)
	asked := time.Now()
	note(s.catalog.Ping(ctx))
	st.CatalogMs = float64(time.Since(asked).Microseconds()) / 1000
	if s.gateway != nil {
		st.Gateway = s.gateway.Stats()
	}
	if s.archive != nil {
		st.Archive = s.archive.Stats()
	}
	if s.freezer != nil {
		st.Freezer = s.freezer.Stats()
	}
	if s.materializers != nil {
		st.Materializers = s.materializers.Stats()
		st.JustInTime = s.justInTime.Stats()
	}
	if s.query != nil {
		st.Query = s.query.Stats()
	}
	return st
}

func (s *Stack) shardStatus(ctx context.Context) ([]shardStatus, error) {
	stats, err := s.bus.Stats(ctx)
	if err != nil {
		return nil, err
	}
	var rows []shardStatus
	for _, b := range stats {
		row := shardStatus{
			Class: className(byte(b.Class)), Shard: b.Shard.Shard, Gen: b.Gen, Bytes: b.Bytes,
			FirstSeq: b.FirstSeq, LastSeq: b.LastSeq, PublishErrs: b.Failures,
		}
		id := catalog.ShardID{Class: byte(b.Class), Gen: b.Gen, Shard: b.Shard.Shard}
		if row.ArchiveLag, err = s.lag(ctx, catalog.ConsumerArchive, id, b.LastSeq); err != nil {
			return rows, err
		}
		if row.Class == "eager" {
			if row.ViewsLag, err = s.lag(ctx, catalog.ConsumerViews, id, b.LastSeq); err != nil {
				return rows, err
			}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// lag returns how many frames consumer is behind last.
func (s *Stack) lag(ctx context.Context, consumer string, id catalog.ShardID, last uint64) (uint64, error) {
	c, err := s.catalog.Checkpoint(ctx, consumer, id)
	if err != nil || c.Seq >= last {
		return 0, err
	}
	return last - c.Seq, nil
}

func className(class byte) string {
	switch class {
	case 'e':
		return "eager"
	case 'r':
		return "raw"
	}
	return string(class)
}

// counts are the catalog's, which cost a walk over its tables: as much as a second where there are millions of rows.
type counts struct {
	mu    sync.Mutex
	last  catalog.Stats
	until time.Time // last is good enough
}

// countShare is how much of the time may be spent on counting, whoever looks at /status how often: one part of so many.
const countShare = 10

// take returns the catalog's counts, as they were a moment ago when counting them takes long.
func (c *counts) take(ctx context.Context, from catalog.Catalog) (catalog.Stats, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	begun := time.Now()
	if begun.Before(c.until) {
		return c.last, nil
	}
	now, err := from.Stats(ctx)
	if err != nil {
		return c.last, err
	}
	c.last, c.until = now, time.Now().Add(countShare*time.Since(begun))
	return now, nil
}
