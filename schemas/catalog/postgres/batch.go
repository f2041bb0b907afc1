package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

const (
	// maxAttempts bounds how often a batch is sent that the server rolled back, or that never reached it.
	maxAttempts = 6
	// retryMin is the mean pause before the second attempt; it doubles with each, so all pauses together are about 600 ms.
	retryMin = 20 * time.Millisecond
	// maxCall bounds any call whose context has no earlier deadline, so that a server that is silent blocks nobody for good.
	maxCall = 5 * time.Minute
	// maxCommit bounds a call that writes: after this time its caller has lost its lease anyway.
	maxCommit = 30 * time.Second
)

// setTimeouts bounds on the server what the client may not be there to bound: a statement, and its wait for a lock, in
// milliseconds. They end with the transaction.
const setTimeouts = "SELECT set_config('statement_timeout', $1, true), set_config('lock_timeout', $2, true)"

func (db *DB) newWrite() *batch {
	b := &batch{}
	b.exec("set timeouts", setTimeouts, strconv.FormatInt(maxCommit.Milliseconds(), 10), strconv.FormatInt(db.patience.Milliseconds(), 10))
	return b
}

// batch is a list of statements that reach the server in one message stream with one Sync at its end: they are one implicit
// transaction, which the server commits after the last one, or rolls back at the first that fails. It costs one round trip, and a
// client that stops after sending holds no lock for longer than the server works.
type batch struct {
	pgx.Batch
	steps []statement
}

type statement struct {
	what string
	read func(pgx.Rows) error // of each row; nil: rows are passed over
}

// exec adds a statement; what names it in errors.
func (b *batch) exec(what, sql string, args ...any) { b.query(what, sql, nil, args...) }

// query adds a statement whose rows go to read, one by one.
func (b *batch) query(what, sql string, read func(pgx.Rows) error, args ...any) {
	b.Queue(sql, args...)
	b.steps = append(b.steps, statement{what, read})
}

// take reads the statement's results.
func (s *statement) take(results pgx.BatchResults) error {
	rows, err := results.Query()
	if err != nil {
		return fmt.Errorf("%s: %w", s.what, err)
	}
	defer rows.Close()
	for rows.Next() {
		if s.read == nil {
			continue
		}
		if err := s.read(rows); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("%s: %w", s.what, err)
	}
	return nil
}

// send runs the batch once.
func (db *DB) send(ctx context.Context, b *batch) (err error) {
	conn, err := db.pool.Acquire(ctx)
	if err != nil {
		return &notSentError{err}
	}
	defer conn.Release()
	results := conn.SendBatch(ctx, &b.Batch)
	for i := range b.steps {
		if err = b.steps[i].take(results); err != nil {
			break
		}
	}
	if cerr := results.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("commit: %w", cerr)
	}
	return err
}

// notSentError is of a batch that no server has seen.
type notSentError struct{ error }

func (e *notSentError) Unwrap() error { return e.error }

// write runs a batch that changes something. build is called for each attempt, and must set anew what its statements read into.
// The error says whether the batch may stand (catalog.ErrOutcomeUnknown); every other one means that nothing of it happened.
func (db *DB) write(ctx context.Context, build func(*batch)) error {
	ctx, cancel := context.WithTimeout(ctx, maxCommit)
	defer cancel()
	return db.attempts(ctx, func() error {
		b := db.newWrite()
		build(b)
		return db.send(ctx, b)
	}, false)
}

// repeat is write for a batch that may run twice without harm: it is sent again also when its outcome is unknown.
func (db *DB) repeat(ctx context.Context, build func(*batch)) error {
	ctx, cancel := context.WithTimeout(ctx, maxCommit)
	defer cancel()
	return db.attempts(ctx, func() error {
		b := db.newWrite()
		build(b)
		return db.send(ctx, b)
	}, true)
}

// read runs a batch that changes nothing.
func (db *DB) read(ctx context.Context, build func(*batch)) error {
	ctx, cancel := context.WithTimeout(ctx, maxCall)
	defer cancel()
	return db.attempts(ctx, func() error {
		b := &batch{}
		build(b)
		return db.send(ctx, b)
	}, true)
}

// snapshot is read whose statements all see the same moment.
func (db *DB) snapshot(ctx context.Context, build func(*batch)) error {
	return db.read(ctx, func(b *batch) {
		b.exec("begin", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
		build(b)
		b.exec("end", "COMMIT")
	})
}

// attempts calls once until it succeeds, fails for good, or has been called too often.
func (db *DB) attempts(ctx context.Context, once func() error, repeatable bool) error {
	if err := db.enter(); err != nil {
		return err
	}
	defer db.leave()
	if err := ctx.Err(); err != nil {
		return err
	}
	pause := retryMin
	for n := 1; ; n++ {
		err := once()
		if err == nil {
			return nil
		}
		v := judge(ctx, err)
		db.heal(v, err)
		again := v.nothing && v.passing || v.lost && repeatable
		if !again || n == maxAttempts {
			return v.err(err, repeatable)
		}
		if !wait(ctx, rand.N(2*pause)) {
			return fmt.Errorf("%w (%w)", v.err(err, repeatable), ctx.Err())
		}
		db.log.Debug("sent to the catalog again", "attempt", n, "err", err)
		pause *= 2
	}
}

// wait returns false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Codes of errors (SQLSTATE) that the catalog acts on. Those of class MM are raised by catalog_refuse.
const (
	codeConflict      = "MM001"
	codeArchiveBehind = "MM002"
	codeStale         = "MM003"
	codeFrozen        = "MM004"
	codeClock         = "MM005" // its message is the server's time
	codeLeaseLost     = "MM006"

	codeUnique      = "23505"
	codeNull        = "23502"
	codeCheck       = "23514"
	codeReadOnly    = "25006"
	codeSerialize   = "40001"
	codeDeadlock    = "40P01"
	codeLockTimeout = "55P03"
	codeNoPartition = "42P01" // a sweep dropped an empty day's at this moment
	codeNoStatement = "26000" // the pooler gave another session
)

// severityError is that of an error that ends the transaction. FATAL and PANIC end the session, and may come after the commit.
const severityError = "ERROR"

// verdict is what an error says about the batch and about the connections.
type verdict struct {
	nothing bool  // nothing of the batch happened
	passing bool  // it may well succeed when sent again
	lost    bool  // the connection failed, and the others may have too
	means   error // for the caller; nil: trouble of the store
}

func judge(ctx context.Context, err error) verdict {
	var pg *pgconn.PgError
	var unsent *notSentError
	switch {
	case ctx.Err() != nil: // the connection is closed for that alone, and the server is told to stop
		return verdict{nothing: errors.As(err, &unsent) || pgconn.SafeToRetry(err)}
	case errors.As(err, &unsent):
		return judgeUnsent(err)
	case errors.As(err, &pg) && pg.SeverityUnlocalized == severityError:
		v := judgeRefused(pg)
		v.nothing = true
		return v
	case pgconn.SafeToRetry(err):
		return verdict{nothing: true, passing: true, lost: true}
	default:
		return verdict{lost: true}
	}
}

// judgeUnsent is for a batch that got no connection: the server is down, or refuses.
func judgeUnsent(err error) verdict {
	v := verdict{nothing: true, passing: true}
	if start := startError(err); errors.Is(start, ErrPasswordRefused) || errors.Is(start, ErrDatabaseMissing) {
		v.passing, v.means = false, start
	}
	return v
}

// judgeRefused is for a batch that the server rolled back.
func judgeRefused(pg *pgconn.PgError) verdict {
	switch pg.Code {
	case codeConflict:
		return verdict{means: fmt.Errorf("%s: %w", pg.Message, catalog.ErrConflict)}
	case codeArchiveBehind:
		return verdict{means: fmt.Errorf("%s: %w", pg.Message, catalog.ErrArchiveBehind)}
	case codeStale:
		return verdict{means: fmt.Errorf("%s: %w", pg.Message, catalog.ErrStale)}
	case codeFrozen:
		return verdict{means: fmt.Errorf("%s: %w", pg.Message, catalog.ErrFrozen)}
	case codeLeaseLost:
		return verdict{means: fmt.Errorf("%s: %w", pg.Message, catalog.ErrLeaseLost)}
	case codeUnique:
		if pg.ConstraintName == instanceIndex {
			return verdict{means: fmt.Errorf("another partition is in the place: %w", catalog.ErrStale)}
		}
		if isBlocks(pg.TableName) {
			return verdict{means: catalog.ErrDuplicateBlocks}
		}
		return verdict{}
	case codeReadOnly: // another server may be the primary now
		return verdict{passing: true, lost: true, means: ErrReadOnly}
	case codeNull, codeCheck, codeNoPartition: // rows that were known are gone, or a day got or lost its partition at this moment
		return verdict{passing: true}
	case codeClock, codeSerialize, codeDeadlock, codeLockTimeout, codeNoStatement:
		return verdict{passing: true}
	}
	return verdict{}
}

// err is what the caller gets.
func (v verdict) err(err error, repeatable bool) error {
	switch {
	case v.means != nil:
		return v.means
	case v.nothing || repeatable:
		return err
	default:
		return fmt.Errorf("%w: %w", catalog.ErrOutcomeUnknown, err)
	}
}

// heal forgets what the error puts in doubt.
func (db *DB) heal(v verdict, err error) {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pg.Code {
		case codeNull, codeCheck:
			db.forget()
		case codeLockTimeout:
			db.evict()
		case codeClock:
			if now, err := strconv.ParseInt(pg.Message, 10, 64); err == nil {
				db.clock.set(now)
			}
		}
	}
	if v.lost {
		// Connections that are idle may lead to the same dead or demoted server; what was learned from it may not hold on
		// another one.
		db.pool.Reset()
		db.forget()
	}
}

func (db *DB) forget() {
	db.known.forget()
	db.days.forget()
}
