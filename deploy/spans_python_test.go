package deploy_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
	"github.com/micromegas-go/micromegas/deploy/pyclient"
	"github.com/micromegas-go/micromegas/query/perfetto/perfettotest"
)

// helpersScript calls what the Python client has for spans, on the server in argv[1] and for the process in argv[2], and writes a trace to
// argv[3].
const helpersScript = `
import sys, datetime, warnings
warnings.simplefilter("ignore")
from micromegas.flightsql.client import FlightSQLClient
from micromegas.perfetto import write_process_trace
client = FlightSQLClient(sys.argv[1])
begin = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
end = datetime.datetime(2030, 1, 1, tzinfo=datetime.timezone.utc)
streams = client.query_streams(begin, end, 100, process_id=sys.argv[2], tag_filter="cpu")
for stream in sorted(streams.stream_id):
    spans = client.query_spans(begin, end, 1000, stream)
    few = client.query_spans(begin, end, 2, stream)
    print(stream, len(spans), spans.begin.is_monotonic_increasing, list(few.id) == list(spans.id)[:2])
print(list(client.query_spans(begin, end, 1, streams.stream_id[0]).columns))
sys.stdout.flush()
write_process_trace(client, sys.argv[2], begin, end, sys.argv[3])
`

// TestPythonHelpers runs the unmodified client's own functions about spans on what a Rust program sent.
func TestPythonHelpers(t *testing.T) {
	const process = "cbbf3446-651a-465e-8f2a-b5ef90f6cf6b"
	p := startServe(t, deploytest.NewDataDir(t))
	postAll(t, p, readScenario(t, "spans"))
	file := filepath.Join(t.TempDir(), "trace.pb")
	out := string(pyclient.Run(t, helpersScript, "grpc://"+p.Flight, process, file))
	for _, want := range []string{
		"c1b57326-ea37-4160-9c80-a15dcd737332 11 True True",
		"6f392b7e-ffb3-4ac2-badc-54f39d5e90f1 22 True True",
		"ba6902f4-662d-4df0-b8ea-3f98f7b1237b 0 True True",
		"['id', 'parent', 'depth', 'hash', 'begin', 'end', 'duration', 'name', 'target', 'filename', 'line']",
		"Trace written to " + file,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if slices := perfettotest.Read(t, data).Slices; len(slices) != 11+22+22+2+10 {
		t.Errorf("%d slices, want the rows of four threads and ten pairs", len(slices))
	}
}
