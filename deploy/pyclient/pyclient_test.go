package pyclient_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/micromegas-go/micromegas/deploy/pyclient"
)

func TestClientIsThere(t *testing.T) {
	out := pyclient.Run(t, `import importlib.metadata, sys; print(importlib.metadata.version("micromegas"), sys.argv[1])`, "argument")
	if got := strings.TrimSpace(string(out)); got != pyclient.Version+" argument" {
		t.Errorf("got %q", got)
	}
}

func TestPerfettoIsThere(t *testing.T) {
	script := `import importlib.metadata as m; import perfetto.protos.perfetto.trace.perfetto_trace_pb2; print(m.version("perfetto"))`
	out, err := exec.CommandContext(t.Context(), pyclient.Perfetto(t), "-c", script).CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != pyclient.PerfettoVersion {
		t.Errorf("got %q, %v", got, err)
	}
}
