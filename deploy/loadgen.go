package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/micromegas-go/micromegas/producers/loadgen"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// loadTags are the families of streams that loadgen has blocks of.
var loadTags = map[string]telemetry.Tag{"log": telemetry.TagLog, "metrics": telemetry.TagMetrics, "cpu": telemetry.TagCPU}

// loadgenFlags are what loadgen is told.
type loadgenFlags struct {
	load     loadgen.Config
	post     loadgen.PostConfig
	mix      string
	captured bool // keep the recorded times
	json     bool

	verify, verifyKey string
	verifyWait        time.Duration
}

func (f *loadgenFlags) bind(fs *flag.FlagSet) {
	fs.StringVar(&f.post.URL, "url", envOr("MICROMEGAS_TELEMETRY_URL", "http://127.0.0.1:9000"), "base `URL` of the ingestion service (MICROMEGAS_TELEMETRY_URL)")
	fs.StringVar(&f.post.Key, "key", os.Getenv("MICROMEGAS_INGESTION_API_KEY"), "API `key` (MICROMEGAS_INGESTION_API_KEY)")
	fs.IntVar(&f.load.Processes, "processes", 16, "processes to play")
	fs.DurationVar(&f.post.Duration, "duration", 10*time.Second, "how long to send; 0 is until --blocks")
	fs.Int64Var(&f.post.Blocks, "blocks", 0, "stop after as many `blocks`; 0 is no limit")
	fs.IntVar(&f.post.Connections, "connections", 32, "requests in flight")
	fs.StringVar(&f.mix, "mix", "log,metrics,cpu", "families of blocks, a family as often as wanted")
	fs.BoolVar(&f.load.Varying, "varying", false, "give each message a suffix of its own, so that storage is not flattered")
	fs.BoolVar(&f.captured, "captured-times", false, "keep the recorded times instead of beginning now")
	fs.Uint64Var(&f.load.Seed, "seed", 0, "make ids repeatable; 0 is random")
	fs.BoolVar(&f.json, "json", false, "print the report as JSON")

	s := &f.post.Shape
	s.Kind = loadgen.Steady
	fs.StringVar((*string)(&s.Kind), "shape", string(s.Kind), "how the rate goes: steady, ramp (from --from to --rate over --duration), or spike (bursts, --rate is the mean)")
	fs.Float64Var(&s.Rate, "rate", 0, "`events` a second; 0 is as fast as the server answers")
	fs.Float64Var(&s.From, "from", 0, "`events` a second at the begin of a ramp")
	fs.Float64Var(&s.SpikeFactor, "spike-factor", 0, fmt.Sprintf("a spike's rate, in `means`: 1 to %d; 0 is 10", loadgen.MaxSpikeFactor))
	fs.DurationVar(&s.SpikeFor, "spike-for", 0, "how long a spike lasts; 0 is until half of all events are in spikes")
	fs.DurationVar(&s.SpikeEvery, "spike-every", 0, "from one spike to the next; 0 is a third of --duration")

	fs.StringVar(&f.verify, "verify", "", "`address` of a FlightSQL server that is asked, after posting, whether all that was acked is there, once")
	fs.StringVar(&f.verifyKey, "verify-key", os.Getenv("MICROMEGAS_API_KEY"), "API `key` of that server (MICROMEGAS_API_KEY)")
	fs.DurationVar(&f.verifyWait, "verify-wait", 2*time.Minute, "how long that server may need for a full answer")
}

// parse reads args and completes what they leave open.
func (f *loadgenFlags) parse(std stdio, args []string) error {
	fs := flag.NewFlagSet("loadgen", flag.ContinueOnError)
	f.bind(fs)
	if err := parseFlags(fs, std, "loadgen [flags]", args); err != nil {
		return err
	}
	if !f.captured {
		f.load.Start = time.Now().UnixNano()
	}
	for name := range strings.SplitSeq(f.mix, ",") {
		tag, ok := loadTags[name]
		if !ok {
			return fmt.Errorf("--mix names %q: the families are log, metrics, cpu", name)
		}
		f.load.Mix = append(f.load.Mix, tag)
	}
	if f.verify == "" {
		return nil
	}
	if f.load.Seed != 0 {
		return errors.New("--verify with --seed: the blocks of an earlier run with the same ids would be counted too")
	}
	if f.post.Blocks == 0 {
		f.post.Blocks = loadgen.MaxLedgerBlocks
	}
	if f.post.Blocks > loadgen.MaxLedgerBlocks {
		return fmt.Errorf("--verify can compare %d blocks, not %d", loadgen.MaxLedgerBlocks, f.post.Blocks)
	}
	return nil
}

// loadgenReport is what loadgen prints as JSON.
type loadgenReport struct {
	loadgen.Report
	Run    string           `json:"run"` // value of loadgen.RunProperty
	Verify *loadgen.Verdict `json:"verify,omitempty"`
}

func runLoadgen(ctx context.Context, std stdio, args []string) error {
	var f loadgenFlags
	if err := f.parse(std, args); err != nil {
		return err
	}
	began := time.Now()
	f.load.Run = telemetry.NewID().String()
	load, err := loadgen.New(f.load)
	if err != nil {
		return err
	}
	ledger := &loadgen.Ledger{}
	if f.verify != "" {
		f.post.OnAck = func(r *loadgen.Request, _ time.Duration) { ledger.Acked(r) }
		f.post.OnGiveUp = ledger.Unsure
	}
	report := loadgenReport{Run: f.load.Run}
	if report.Report, err = loadgen.Post(ctx, load, f.post); err != nil {
		return err
	}
	if !f.json {
		report.WriteText(std.out)
	}
	if f.verify != "" {
		v := verification{url: f.verify, key: f.verifyKey, run: f.load.Run, began: began, wait: f.verifyWait}
		err = report.verify(ctx, std, &v, ledger, f.json)
	}
	if f.json {
		return errors.Join(err, json.NewEncoder(std.out).Encode(report))
	}
	if report.Failed > 0 {
		err = errors.Join(err, fmt.Errorf("%d requests were given up: %s", report.Failed, report.Error))
	}
	return err
}

// verify adds the verdict to the report and prints it, unless quiet; a bad one is an error.
func (r *loadgenReport) verify(ctx context.Context, std stdio, v *verification, ledger *loadgen.Ledger, quiet bool) error {
	begin := time.Now()
	verdict, err := v.of(ctx, ledger)
	if ctx.Err() != nil {
		return errors.New("interrupted: what was acked is not verified")
	}
	if err != nil {
		return err
	}
	r.Verify = &verdict
	if !verdict.OK() {
		return errors.New(verdict.String())
	}
	if !quiet {
		fmt.Fprintf(std.out, "verified in %v: %s\n", time.Since(begin).Round(time.Millisecond), &verdict)
	}
	return nil
}

func envOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
