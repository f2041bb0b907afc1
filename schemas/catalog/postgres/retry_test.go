package postgres

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog"
)

// deadlocks counts those that the server has broken.
func deadlocks(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(server.Log())
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "deadlock detected")
}

// The server breaks a deadlock at the commit's cost; the commit is sent again. Which of the two it makes fail is a matter of time,
// so it may take a few deadlocks.
func TestDeadlockIsRetried(t *testing.T) {
	connString := database(t)
	db, h := open(t, connString), newHouse(2, 1)
	if err := db.CommitArchive(t.Context(), h.commit(2)); err != nil {
		t.Fatal(err)
	}
	other, watch := raw(t, connString), raw(t, connString)
	before, tries := deadlocks(t), 0
	for paid := false; !paid; tries++ {
		exec(t, other, "BEGIN")
		exec(t, other, "SELECT FROM process_seen FOR UPDATE")
		result := make(chan error, 1)
		go func() { result <- db.CommitArchive(t.Context(), h.commit(2)) }()
		untilWaiting(t, watch, 1)
		_, err := other.Exec(t.Context(), "SELECT FROM checkpoints FOR UPDATE")
		paid = err == nil
		exec(t, other, "ROLLBACK")
		if err := <-result; err != nil {
			t.Fatal(err)
		}
	}
	// Both sides may find one and the same deadlock.
	if n := deadlocks(t) - before; n < tries {
		t.Errorf("%d deadlocks in %d tries", n, tries)
	}
	if s, err := db.Stats(t.Context()); err != nil || s.Packs != int64(tries+1) || s.Blocks != 2*s.Packs {
		t.Errorf("%+v, %v", s, err)
	}
}

// A database whose sessions are stricter by default answers races with errors; they are retried.
func TestSerializationFailuresAreRetried(t *testing.T) {
	for _, level := range []string{"repeatable read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			db := open(t, with(t, database(t), param("default_transaction_isolation", level)))
			const committers, commits = 3, 15
			var wg sync.WaitGroup
			for client := range committers {
				wg.Go(func() {
					for n := range commits {
						c := viewCommit(0, 1)
						c.Added[0].Key = fmt.Sprintf("views/%d/%d", client, n)
						for {
							_, err := db.CommitView(t.Context(), c)
							if err == nil {
								break
							}
							if errors.Is(err, catalog.ErrOutcomeUnknown) { // any other error may be repeated
								t.Error(err)
								return
							}
						}
					}
				})
			}
			wg.Wait()
			if no, err := db.CommitNo(t.Context()); err != nil || no != committers*commits {
				t.Errorf("commit number %d, %v", no, err)
			}
		})
	}
}

// A client that stopped inside a transaction does not hold its locks for good.
func TestStuckSessionIsEnded(t *testing.T) {
	connString := database(t)
	db, h := open(t, connString), newHouse(2, 1)
	if err := db.CommitArchive(t.Context(), h.commit(2)); err != nil {
		t.Fatal(err)
	}
	stranger := raw(t, connString) // another program's session is left alone
	exec(t, stranger, "BEGIN")
	stuck := raw(t, with(t, connString, param("application_name", "micromegas")))
	exec(t, stuck, "BEGIN")
	exec(t, stuck, "SELECT FROM checkpoints FOR UPDATE")
	db.patience = 100 * time.Millisecond
	if err := db.CommitArchive(t.Context(), h.commit(2)); err != nil {
		t.Fatal(err)
	}
	if _, err := stuck.Exec(t.Context(), "COMMIT"); err == nil {
		t.Error("the stuck session is still there")
	}
	exec(t, stranger, "COMMIT")
}

// Two archives whose shards share processes, and register them at the same moment in opposite orders, do not lock each other out.
func TestSharedProcessesDoNotDeadlock(t *testing.T) {
	connString := database(t)
	a, b := open(t, connString), open(t, connString)
	ha := newHouse(60, 60)
	hb := &house{streams: ha.streams, processes: ha.processes, shard: catalog.ShardID{Class: 'r'}, begin: ha.begin, n: 31}
	before := deadlocks(t)
	var wg sync.WaitGroup
	for _, one := range []struct {
		db *DB
		h  *house
	}{{a, ha}, {b, hb}} {
		wg.Go(func() {
			for n := range 40 {
				c := one.h.commit(30)
				for i := range one.h.processes {
					at := i
					if one.db == b {
						at = len(one.h.processes) - 1 - i
					}
					if at%40 == n {
						c.Processes = append(c.Processes, registration(one.h.processes[at]))
						c.Streams = append(c.Streams, streamRegistration(one.h.streams[at], one.h.processes[at]))
					}
				}
				if err := one.db.CommitArchive(t.Context(), c); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := deadlocks(t) - before; n != 0 {
		t.Errorf("%d deadlocks", n)
	}
}

// What this process believes to be the server's time is wrong after a sleep of its machine. A commit notices.
func TestWrongEstimateOfTheClockIsCorrected(t *testing.T) {
	db, h := open(t, database(t)), newHouse(2, 1)
	for _, off := range []time.Duration{-100 * 24 * time.Hour, 5 * time.Hour} {
		db.clock.set(time.Now().Add(off).UnixNano())
		if err := db.CommitArchive(t.Context(), h.commit(2)); err != nil {
			t.Fatal(err)
		}
		if d := time.Duration(db.clock.now() - time.Now().UnixNano()).Abs(); d > time.Minute {
			t.Errorf("off by %s after %s", d, off)
		}
	}
}

func TestErrorsAreJudged(t *testing.T) {
	db := open(t, database(t))
	f := func(code string, want error) {
		t.Helper()
		err := db.write(t.Context(), func(b *batch) { b.exec("refuse", "SELECT catalog_refuse($1, 'why')", code) })
		if want == nil && (err == nil || errors.Is(err, catalog.ErrOutcomeUnknown)) || want != nil && !errors.Is(err, want) {
			t.Errorf("code %s: %v, want %v", code, err, want)
		}
	}
	f(codeConflict, catalog.ErrConflict)
	f(codeArchiveBehind, catalog.ErrArchiveBehind)
	f(codeStale, catalog.ErrStale)
	f(codeReadOnly, ErrReadOnly)
	f(codeUnique, nil)
	f(codeSerialize, nil)
	f("53100", nil) // disk full
	f("XX000", nil)
}
