package query

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/google/uuid"

	"github.com/micromegas-go/micromegas/query/calltree"
	"github.com/micromegas-go/micromegas/query/dialect"
	"github.com/micromegas-go/micromegas/query/engine"
	"github.com/micromegas-go/micromegas/sdk"
)

// Service answers statements. It is safe for concurrent use.
type Service struct {
	cfg        Config
	parts      Parts
	log        *slog.Logger
	names      *names
	statements *dialect.Cache
	index      *partitionIndex
	snapshots  *snapshots
	pins       pins
	parses     chan struct{} // one token for each block that is decoded
	counts     counts

	// relations makes what a statement names relations of its connection, as statements to execute there. It is
	// (*run).relations, which reads the lake; tests of the rest of the way put other rows there.
	relations func(context.Context, *run) (views, warnings []string, err error)
}

var _ Querier = (*Service)(nil)

// New makes a service. It reads nothing yet: the first query that names a table does.
func New(cfg Config, parts Parts) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	folder, err := openCacheFolder(cfg.CacheDir)
	if err != nil {
		return nil, err
	}
	parts.Catalog, parts.Files = patientCatalog{parts.Catalog}, honestFiles{parts.Files}
	n := newNames()
	index := newPartitionIndex(parts.Catalog)
	return &Service{
		cfg:        cfg,
		parts:      parts,
		log:        parts.Log,
		names:      n,
		statements: dialect.NewCache(parts.Engine, n, cfg.Statements),
		index:      index,
		parses:     make(chan struct{}, maxParses),
		snapshots:  newSnapshots(parts.Catalog, index, folder, parts.Log),
		relations:  func(ctx context.Context, r *run) ([]string, []string, error) { return r.relations(ctx) },
	}, nil
}

// Close removes the service's files. No query may run or come any more.
func (s *Service) Close() error {
	s.snapshots.close()
	return nil
}

// OldestCommit returns the least commit number that a running query reads at, or false when none runs. What was retired
// after it must not be collected.
func (s *Service) OldestCommit() (int64, bool) { return s.pins.oldest() }

// Query answers a statement. The Answer must be closed.
func (s *Service) Query(ctx context.Context, req Request) (*Answer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.Timeout, errTooLong)
	run := s.newRun(req, cancel)
	a, err := run.start(ctx)
	if err != nil {
		err = run.fail(ctx, err)
		run.end(err)
		return nil, err
	}
	return a, nil
}

// Prepare returns the schema that Query's answer would have. Nothing is executed and no owner is asked.
func (s *Service) Prepare(ctx context.Context, req Request) (*arrow.Schema, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.Timeout, errTooLong)
	run := s.newRun(req, cancel)
	run.dry = true
	schema, err := run.prepare(ctx)
	if err != nil {
		err = run.fail(ctx, err)
	}
	run.end(err)
	return schema, err
}

func (s *Service) newRun(req Request, cancel context.CancelFunc) *run {
	s.counts.began()
	id := uuid.NewString()
	return &run{s: s, req: req, id: id, began: time.Now(), cancel: cancel, building: newBuilding(req.Progress, s.log, id)}
}

// errTooLong is why a query's context ended.
var errTooLong = errors.New("query ran too long")

// errNoPlace is what a query gets that waited in vain for others to end.
var errNoPlace = &Error{
	Code:    codeExhausted,
	Message: "Resources exhausted: other queries took all places until this one's time was over",
	Help:    "try again later, or cancel queries that are not needed any more",
}

// run is one query under way.
type run struct {
	s       *Service
	req     Request
	id      string
	began   time.Time
	cancel  context.CancelFunc
	dry     bool // only the schema is wanted
	phase   string
	st      *dialect.Statement
	conn    *engine.Conn
	release []func() // what the query holds until it ends
	rows    int64
	ended   bool

	warnings []string                  // what may be missing from the answer
	notes    []string                  // what the client should know of an answer that is complete
	granted  map[wish]*granted         // by materialize, so far
	building *building                 // what materialize waits for
	trees    map[string]*calltree.Tree // of functions over calls, by their arguments
	traced   tracer                    // what the answer shows without the engine; nil = nothing
	span     *sdk.ContextSpan          // open until the query ends
}

var (
	querySpan     = sdk.NewSpan("query")
	relationsSpan = sdk.NewSpan("relations")
	freshenSpan   = sdk.NewSpan("freshen")

	materializeSpan = sdk.NewSpan("materialize for query")
)

// start does everything up to the first batch.
func (r *run) start(ctx context.Context) (*Answer, error) {
	ctx, r.span = querySpan.Start(ctx)
	r.span.SetText("sql", r.req.SQL)
	warnings, err := r.open(ctx)
	if err != nil {
		return nil, err
	}
	a := &Answer{QueryID: r.id, Warnings: warnings, done: ctx.Done(), over: func() error { return r.fail(ctx, ctx.Err()) }}
	if r.st.Kind == dialect.Describe {
		schema, err := r.describe(ctx)
		if err != nil {
			return nil, err
		}
		a.stream = r.wrap(ctx, describeResult(schema))
		return a, nil
	}
	if r.traced != nil {
		r.phase = phaseExecute
		a.stream = r.wrap(ctx, r.streamTrace(ctx, r.traced, r.st.Stream))
		return a, nil
	}
	sql, opts, err := r.execution(ctx)
	if err != nil {
		return nil, err
	}
	result, err := r.conn.Query(ctx, sql, opts)
	if err != nil {
		return nil, err
	}
	if r.st.Kind == dialect.Explain || r.st.Kind == dialect.ExplainAnalyze {
		result = explainResult(result)
	}
	r.phase = phaseExecute
	a.stream = r.wrap(ctx, result)
	return a, nil
}

// prepare returns the schema of the answer.
func (r *run) prepare(ctx context.Context) (*arrow.Schema, error) {
	if _, err := r.open(ctx); err != nil {
		return nil, err
	}
	switch r.st.Kind {
	case dialect.Describe:
		return describeSchema(), nil
	case dialect.Explain, dialect.ExplainAnalyze:
		return explainSchema(), nil
	}
	return r.describe(ctx)
}

// open rewrites the statement, brings its tables up to date and makes them relations of a connection.
func (r *run) open(ctx context.Context) (warnings []string, err error) {
	r.phase = phasePlan
	r.st, err = r.s.statements.Rewrite(ctx, r.req.SQL, dialect.Options{Admin: r.req.Admin, Eval: r.s.parts.Engine.Eval})
	if err != nil {
		return nil, err
	}
	r.phase = phasePhysical
	r.noteReversed(r.req.Range)
	views, warnings, err := r.s.relations(ctx, r)
	if err != nil {
		return nil, err
	}
	if len(warnings) > 0 && r.req.Strict {
		return nil, &Error{Code: codeUnavailable, Message: "External error: the answer may be incomplete: " + strings.Join(warnings, "; ")}
	}
	warnings = append(warnings, r.notes...)
	if r.conn, err = r.place(ctx); err != nil {
		return nil, err
	}
	for _, v := range views {
		if err := r.conn.Exec(ctx, v); err != nil {
			return nil, r.badRelation(ctx, v, err)
		}
	}
	r.phase = phasePlan
	return warnings, nil
}

// place waits for a place of the engine.
func (r *run) place(ctx context.Context) (*engine.Conn, error) {
	conn, err := r.s.parts.Engine.Conn(ctx)
	if err != nil && errors.Is(context.Cause(ctx), errTooLong) {
		return nil, errNoPlace
	}
	return conn, err
}

// filePaths matches the files that a relation of our own reads.
var filePaths = regexp.MustCompile(`'(/[^']+\.parquet)'`)

// badRelation explains why a relation of our own cannot be made: one of its files is gone or damaged, which is never the
// client's fault. It looks for the file, since not every message of the engine names it.
func (r *run) badRelation(ctx context.Context, sql string, err error) error {
	var fault *engine.Error
	if ctx.Err() != nil || !errors.As(err, &fault) || fault.Class == engine.Resource || fault.Class == engine.Interrupted {
		return fmt.Errorf("make a relation: %w", err)
	}
	name := ""
	for _, path := range filePaths.FindAllStringSubmatch(sql, -1) {
		if _, err := r.conn.Describe(ctx, "SELECT * FROM "+scan(path[1:]), engine.QueryOptions{}); err != nil {
			name = path[1] + ": "
			break
		}
	}
	return &Error{Code: codeInternal, Message: "External error: a file of the lake cannot be read: " + name + fault.Message, Err: err}
}

// fail turns an error into the one that the caller gets.
func (r *run) fail(ctx context.Context, err error) *Error {
	e := r.s.errorOf(ctx, err, r.st)
	if e.Phase == "" {
		e.Phase = r.phase
	}
	e.QueryID = r.id
	return e
}

// end frees everything, once, and writes the query down.
func (r *run) end(err error) {
	if r.ended {
		return
	}
	r.ended = true
	r.span.End()
	if r.conn != nil {
		if cerr := r.conn.Close(); cerr != nil {
			r.s.log.Warn("connection not closed", "query_id", r.id, "error", cerr)
		}
	}
	for _, f := range r.release {
		f()
	}
	r.cancel()
	r.s.record(r, err)
}

// hold keeps something until the query ends.
func (r *run) hold(release func()) { r.release = append(r.release, release) }
