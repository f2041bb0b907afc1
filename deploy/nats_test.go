package deploy_test

import (
	"testing"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
	"github.com/micromegas-go/micromegas/schemas/bus/embedded"
)

// TestBusElsewhere serves over a NATS server that is not its own, by the same handles.
func TestBusElsewhere(t *testing.T) {
	server, err := embedded.Start(embedded.Options{StoreDir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	dir := deploytest.NewDataDir(t)
	w := newWriter(3)
	for range 2 { // the second time on what the first left
		p := startServe(t, dir, "--nats", server.ClientURL())
		if err := w.register(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		id, body := w.block()
		if code, err := p.Post(t.Context(), "insert_block", body); err != nil || code != 200 {
			t.Fatalf("post: status %d, %v\n%s", code, err, p.LogTail())
		}
		w.acked = append(w.acked, id)
		checkAcked(t, p, w)
		p.Stop()
	}
}
