// Package apart_test runs a deployment as processes with roles of their own over real servers (PostgreSQL, an S3 server, NATS
// servers), kills them in turn, breaks what is between them, sets their clocks wrong and tells them wrong things.
package apart_test

import (
	"os"
	"testing"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	deploytest.RemoveBinary()
	os.Exit(code)
}
