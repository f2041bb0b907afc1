// Package querytest runs a query service over a real catalog, lake, engine and FlightSQL server in a test's folder. The data is
// made by hand: blocks go to the catalog as archive would put them, rows to Parquet files as materializers would.
package querytest

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/query"
	"github.com/micromegas-go/micromegas/query/client"
	"github.com/micromegas-go/micromegas/query/engine"
	"github.com/micromegas-go/micromegas/query/flight"
	"github.com/micromegas-go/micromegas/query/functions"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/identity"
	"github.com/micromegas-go/micromegas/schemas/lake"
)

// Env is a query service with everything it stands on.
type Env struct {
	Catalog catalog.Catalog
	Lake    *lake.Lake
	Engine  *engine.Engine
	Service *query.Service
	Address string // of the FlightSQL server

	shard catalog.ShardID
	seq   uint64
}

// Options change what is not ordinary.
type Options struct {
	Home   *Home         // where catalog and bucket are; nil = SQLite and a folder of the test
	Bus    query.Flusher // who is asked to commit; nil = nobody
	Traces query.Traces  // the index of traces; nil = there is none
	Keys   *identity.Keys
	Config func(*query.Config)
	Engine func(*engine.Config)
	Log    *slog.Logger

	Service func(*query.Service) // changes the service before the first query
}

// Start makes an Env that ends with the test.
func Start(t testing.TB, opts Options) *Env {
	t.Helper()
	dir := t.TempDir()
	log := opts.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	home := opts.Home
	if home == nil {
		home = LocalHome(t, dir)
	}
	e := &Env{shard: catalog.ShardID{Class: 'e', Gen: 1}, Catalog: home.OpenCatalog(t)}
	t.Cleanup(func() { check(t, e.Catalog.Close()) })
	e.Lake = home.OpenLake(t)
	t.Cleanup(func() { check(t, e.Lake.Close()) })
	if err := e.Catalog.OpenGeneration(t.Context(), catalog.Generation{ShardID: e.shard, Stream: "blocks-eager-0", Created: 1, FirstSeq: 1}); err != nil {
		t.Fatal(err)
	}
	e.startQuery(t, filepath.Join(dir, "query"), opts, log)
	return e
}

func (e *Env) startQuery(t testing.TB, dir string, opts Options, log *slog.Logger) {
	t.Helper()
	ec := engine.DefaultConfig()
	ec.TempDir = filepath.Join(dir, "temp")
	ec.AllowedDirs = []string{e.Lake.CacheDir(), dir}
	if root := e.Lake.Root(); root != "" {
		ec.AllowedDirs = append(ec.AllowedDirs, root)
	}
	ec.Waiting = []functions.Waiting{query.PayloadFunction(e.Catalog, e.Lake)}
	if opts.Engine != nil {
		opts.Engine(&ec)
	}
	var err error
	if e.Engine, err = engine.Open(ec, log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, e.Engine.Close()) })
	qc := query.DefaultConfig()
	qc.CacheDir = dir
	if opts.Config != nil {
		opts.Config(&qc)
	}
	e.Service, err = query.New(qc, query.Parts{Catalog: e.Catalog, Files: e.Lake, Bus: opts.Bus, Traces: opts.Traces, Engine: e.Engine, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, e.Service.Close()) })
	if opts.Service != nil {
		opts.Service(e.Service)
	}
	s, err := flight.New(flight.DefaultConfig(), e.Service, opts.Keys, log)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e.Address = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		check(t, s.Shutdown(ctx))
		check(t, <-served)
	})
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// Dial returns a client that ends with the test.
func (e *Env) Dial(t testing.TB, token string) *client.Client {
	t.Helper()
	c, err := client.Dial("grpc://"+e.Address, client.Options{BearerToken: token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, c.Close()) })
	return c
}
