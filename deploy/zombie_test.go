package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/sqlite"
)

// leaseExpiry is how long a lease lives without a heartbeat.
const leaseExpiry = 3 * time.Second

// TestStoppedServerGoesOn stops the process under load for longer than its leases live, takes the leases meanwhile as
// another process would, and lets it go on: it may commit nothing under its old leases, and loses nothing.
func TestStoppedServerGoesOn(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for leases to expire; run without -short")
	}
	dir := deploytest.NewDataDir(t)
	p := startServe(t, dir)
	w := newWriter(5)
	if err := w.register(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.run(ctx, p, 4) }()
	defer func() { cancel(); <-done }()
	acked := func(more int) {
		t.Helper()
		goal := w.ackedCount() + more
		deploytest.Eventually(t, 30*time.Second, "acknowledged blocks", func() bool { return w.ackedCount() >= goal })
	}
	acked(100)
	if err := p.Cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	old := takeLeases(t, dir)
	if err := p.Cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	acked(100)
	cancel()
	<-done
	checkAcked(t, p, w)

	db := openCatalog(t, dir)
	for _, l := range old {
		deploytest.Eventually(t, 30*time.Second, "lease "+l.Name+" taken again", func() bool {
			for _, now := range leases(t, db) {
				if now.Name == l.Name && now.Epoch > l.Epoch+1 { // l.Epoch+1 was ours
					return true
				}
			}
			return false
		})
	}
	p.Stop()
}

// takeLeases waits until all leases have expired and takes them, for a moment. It returns them as they were.
func takeLeases(t *testing.T, dir string) []catalog.Lease {
	t.Helper()
	db := openCatalog(t, dir)
	old := leases(t, db)
	if len(old) == 0 {
		t.Fatal("no leases are held")
	}
	for _, l := range old {
		deploytest.Eventually(t, 2*leaseExpiry, "lease "+l.Name+" expired", func() bool {
			_, err := db.AcquireLease(t.Context(), l.Name, "heir", time.Second)
			if err != nil && !errors.Is(err, catalog.ErrHeld) {
				t.Fatal(err)
			}
			return err == nil
		})
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return old
}

func openCatalog(t *testing.T, dir string) *sqlite.DB {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, "catalog.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil && !errors.Is(err, catalog.ErrClosed) {
			t.Error(err)
		}
	})
	return db
}

func leases(t *testing.T, db *sqlite.DB) []catalog.Lease {
	t.Helper()
	all, err := db.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestKillAtStartAndDrain kills the process where it recovers, and where it drains after SIGTERM under load, at moments
// drawn at random.
func TestKillAtStartAndDrain(t *testing.T) {
	if testing.Short() {
		t.Skip("kills take half a minute; run without -short")
	}
	const rounds = 8
	dir := deploytest.NewDataDir(t)
	w := newWriter(10)
	longest := time.Second // a start, from the process to "ready"
	for i := range rounds {
		for range 3 {
			killAfter(t, exec.Command(deploytest.Binary(t), deploytest.ServeArgs(dir)...), rand.N(longest))
		}
		begin := time.Now()
		p := startServe(t, dir)
		longest = time.Since(begin)
		if err := w.register(t.Context(), p); err != nil {
			t.Fatalf("round %d: %v\n%s", i, err, p.LogTail())
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.run(ctx, p, 8) }()
		goal := w.ackedCount() + 50
		deploytest.Eventually(t, 30*time.Second, fmt.Sprintf("acknowledged blocks in round %d", i), func() bool { return w.ackedCount() >= goal })
		if err := p.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		select {
		case <-time.After(rand.N(100 * time.Millisecond)): // the moment of the kill is the matter of the test
		case <-p.Exited:
		}
		p.Kill()
		cancel()
		<-done
	}
	p := startServe(t, dir)
	checkAcked(t, p, w)
	t.Logf("%d blocks acknowledged; a start took %v", w.ackedCount(), longest.Round(time.Millisecond))
	p.Stop()
}

// killAfter starts cmd and kills it after d, whatever it has come to.
func killAfter(t *testing.T, cmd *exec.Cmd, d time.Duration) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	select {
	case <-time.After(d): // the moment of the kill is the matter of the test
		cmd.Process.Kill()
		<-exited
	case err := <-exited:
		t.Fatalf("serve ended by itself: %v", err)
	}
}
