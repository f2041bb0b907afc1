package bus

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus/embedded"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// oneLife is a store of generations for a stream that has one.
type oneLife struct{ opened []Generation }

func (o *oneLife) Generations(context.Context) ([]Generation, error) { return o.opened, nil }

func (o *oneLife) OpenGeneration(_ context.Context, g Generation) error {
	o.opened = append(o.opened, g)
	return nil
}

func (o *oneLife) ArchiveSeq(context.Context, Shard, int32) (uint64, error) { return 0, nil }

// TestForgottenReaderRecovers deletes the server's record of a Reader whose caller waits in turns too short for
// heartbeats.
func TestForgottenReaderRecovers(t *testing.T) {
	server, err := embedded.Start(embedded.Options{StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	nc, err := server.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	b, err := Open(t.Context(), nc, &oneLife{}, nil, DefaultConfig(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	r, err := b.NewReader(t.Context(), Position{Shard: Shard{Class: Eager}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	read := func() (Frame, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		return r.Next(ctx)
	}
	if _, err := read(); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("empty stream: %v", err)
	}
	if err := b.js.DeleteConsumer(t.Context(), r.shard.name, r.consumer); err != nil {
		t.Fatal(err)
	}
	record := &Record{Kind: KindBlock, ProcessID: telemetry.ID{1}, Body: []byte("body")}
	if err := b.Publish(t.Context(), Eager, record); err != nil {
		t.Fatal(err)
	}
	r.heard = time.Now().Add(-2 * stallAfter)
	for range 200 {
		f, err := read()
		if err == nil {
			if f.Seq != 1 {
				t.Fatalf("frame %s", f.Position)
			}
			return
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		r.heard = time.Now().Add(-2 * stallAfter)
	}
	t.Fatal("the frame never came")
}
