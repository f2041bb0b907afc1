package deploy

import (
	"io"
	"strings"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// The kinds of spans count for several processes as for one.
func TestPerfettoCommandTakesTypes(t *testing.T) {
	process := telemetry.NewID().String()
	for types, want := range map[string]string{"both": "threads,async", "thread": "threads", "async": "async"} {
		f, err := parsePerfetto(stdio{err: io.Discard}, []string{"--process", process + "," + process, "--begin", "1h", "--types", types})
		if err != nil || !strings.Contains(f.sql(), "perfetto_trace('"+process+","+process+"', '"+want+"'") {
			t.Errorf("%s: %v, %v", types, f, err)
		}
	}
}
