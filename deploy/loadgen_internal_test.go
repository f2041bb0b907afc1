package deploy

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
	"github.com/micromegas-go/micromegas/producers/loadgen"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// TestLoadgenCommandVerifies posts bursts to a server, asks it for everything, and reads the report in both forms.
func TestLoadgenCommandVerifies(t *testing.T) {
	p := deploytest.StartServe(t, deploytest.NewDataDir(t))
	run := func(args ...string) string {
		t.Helper()
		var errs strings.Builder
		cmd := exec.Command(deploytest.Binary(t), append([]string{"loadgen", "--url", p.HTTP, "--verify", "grpc://" + p.Flight, "--rate", "50000"}, args...)...)
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("loadgen %v: %v %s\n%s", args, err, &errs, out)
		}
		return string(out)
	}
	out := run("--duration", "3s", "--shape", "spike", "--spike-factor", "20", "--processes", "4")
	for _, want := range []string{
		`^acked [\d,]+ events in \d+ blocks, .* of the 150,000 that were due; 0 retries, 0 unavailable, 0 given up\n`,
		`ack from the attempt: +p50 `, `ack from the intended moment: +p50 `, ` #+\n`,
		`all \d+ acked blocks \([\d,]+ events\) are there, each once; cpu \d+ of \d+ blocks, log_entries [\d,]+ of [\d,]+ rows, measures [\d,]+ of [\d,]+ rows\n$`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("no %s in:\n%s", want, out)
		}
	}
	var report loadgenReport
	if err := json.Unmarshal([]byte(run("--json", "--duration", "1s", "--shape", "ramp", "--from", "1000")), &report); err != nil {
		t.Fatal(err)
	}
	v := report.Verify
	if v == nil || !v.OK() || v.AckedBlocks != report.AckedBlocks || v.AckedEvents != report.AckedEvents || report.Run == "" || len(report.Buckets) == 0 {
		t.Errorf("report %+v", report)
	}
}

// TestLoadgenVerifiesRepeats puts a server behind a proxy that loses some answers for a while, and some for good: blocks that
// are sent again are there once, and those that were never acked count apart.
func TestLoadgenVerifiesRepeats(t *testing.T) {
	p := deploytest.StartServe(t, deploytest.NewDataDir(t))
	target, err := url.Parse(p.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	var blocks atomic.Int64
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(r *http.Response) error {
			if r.Request.URL.Path != loadgen.BlockPath {
				return nil
			}
			switch n := blocks.Add(1); {
			case n%10 == 0:
				r.StatusCode = http.StatusBadRequest
			case n%3 == 0:
				r.StatusCode = http.StatusServiceUnavailable
			}
			return nil
		},
	})
	defer proxy.Close()
	l := startLoad(t, p, proxy.URL, 40)
	verdict := l.verdict(t)
	if !verdict.OK() || l.report.Unavailable == 0 || l.report.Failed == 0 || verdict.Unsure != l.report.Failed || verdict.UnsureFound != verdict.Unsure {
		t.Errorf("%+v: %s", l.report, &verdict)
	}
}

// TestLoadgenVerificationFails compares a server with a list that has a block more, and a block with an event more.
func TestLoadgenVerificationFails(t *testing.T) {
	p := deploytest.StartServe(t, deploytest.NewDataDir(t))
	l := startLoad(t, p, p.HTTP, 12)
	if v := l.verdict(t); !v.OK() || v.AckedBlocks != 12 {
		t.Fatal(v.String())
	}
	lost := *l.last
	lost.Block.ID = telemetry.NewID()
	l.ledger.Acked(&lost)
	err := (&loadgenReport{}).verify(t.Context(), stdio{out: t.Output()}, &l.verification, l.ledger, false)
	if err == nil || !strings.Contains(err.Error(), "missing: 1") || !strings.Contains(err.Error(), lost.Block.ID.String()) {
		t.Errorf("a block more than there are: %v", err)
	}
	grown := &loadgen.Ledger{}
	more := *l.last
	more.Block.NbObjects++
	grown.Acked(&more)
	l.ledger = grown
	v := l.verdict(t)
	if v.OK() || v.Changed != 1 || v.FewRows != 1 || v.Strange != 11 || !strings.Contains(v.String(), more.Block.ID.String()) {
		t.Errorf("an event more than there are: %s", &v)
	}
}

// postedLoad is a load of log blocks that was posted to a server.
type postedLoad struct {
	verification
	ledger *loadgen.Ledger
	report loadgen.Report
	last   *loadgen.Request // acked
}

func startLoad(t *testing.T, p *deploytest.Process, url string, blocks int64) *postedLoad {
	t.Helper()
	l := &postedLoad{ledger: &loadgen.Ledger{}}
	l.verification = verification{url: "grpc://" + p.Flight, run: telemetry.NewID().String(), began: time.Now(), wait: time.Minute}
	load, err := loadgen.New(loadgen.Config{Start: time.Now().UnixNano(), Run: l.run, Mix: []telemetry.Tag{telemetry.TagLog}})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	l.report, err = loadgen.Post(t.Context(), load, loadgen.PostConfig{
		URL: url, Blocks: blocks, OnGiveUp: l.ledger.Unsure,
		OnAck: func(r *loadgen.Request, _ time.Duration) {
			l.ledger.Acked(r)
			kept := *r
			kept.Body = nil
			mu.Lock()
			l.last = &kept
			mu.Unlock()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *postedLoad) verdict(t *testing.T) loadgen.Verdict {
	t.Helper()
	v, err := l.of(t.Context(), l.ledger)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
