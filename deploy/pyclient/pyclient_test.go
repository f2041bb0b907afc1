package pyclient_test

import (
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
