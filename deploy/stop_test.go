package deploy_test

import (
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
	"github.com/micromegas-go/micromegas/query/client"
)

// TestStopWaitsForWhatIsBuilt stops a server in the middle of a query that waits for spans to be built: the query has its rows.
func TestStopWaitsForWhatIsBuilt(t *testing.T) {
	p := startServe(t, deploytest.NewDataDir(t))
	load := exec.Command(deploytest.Binary(t), "loadgen", "--url", p.HTTP, "--mix", "cpu", "--processes", "1", "--blocks", "2000", "--duration", "0")
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("loadgen: %v\n%s", err, out)
	}
	c, err := client.Dial("grpc://"+p.Flight, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ask := func(sql string, opts client.QueryOptions) (string, error) {
		rows, err := c.Query(t.Context(), sql, opts)
		if err != nil {
			return "", err
		}
		defer rows.Close()
		batch, err := rows.Next()
		if err != nil {
			return "", err
		}
		return batch.Column(0).ValueStr(0), nil
	}
	stream, err := ask("SELECT stream_id FROM streams", client.QueryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	stop := sync.OnceFunc(func() {
		go func() {
			defer close(stopped)
			p.Stop()
		}()
	})
	got, err := ask("SELECT count(*) > 1000000 FROM view_instance('thread_spans', '"+stream+"')", client.QueryOptions{
		Begin: time.Now().Add(-time.Hour), End: time.Now().Add(1000 * time.Hour), Progress: func(int64, int64) { stop() },
	})
	if err != nil || got != "true" {
		t.Errorf("%q, %v", got, err)
	}
	stop() // a machine so fast that nothing was told
	<-stopped
}
