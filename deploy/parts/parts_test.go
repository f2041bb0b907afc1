package parts_test

import (
	"os/exec"
	"testing"

	"github.com/micromegas-go/micromegas/deploy/parts"
)

func TestBinariesRun(t *testing.T) {
	for _, name := range []string{parts.NATSServer, parts.VersityGW, parts.ToxiproxyServer} {
		path, err := parts.Binary(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), path, "-version").CombinedOutput(); err != nil {
			t.Errorf("%s -version: %v\n%s", name, err, out)
		}
	}
	if _, err := parts.Binary(t.Context(), "nothing"); err == nil {
		t.Error("an unknown part was built")
	}
}
