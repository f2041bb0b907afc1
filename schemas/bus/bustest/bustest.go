// Package bustest starts real buses for tests.
package bustest

import (
	"testing"

	"github.com/micromegas-go/micromegas/schemas/bus"
)

// Start returns a Bus over an embedded server in a temporary folder, with generations and objects in memory.
func Start(t testing.TB, change ...func(*bus.Config)) *bus.Bus {
	t.Helper()
	t.Fatal("bustest: under construction")
	return nil
}
