package deploy_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	deploytest.RemoveBinary()
	os.Exit(code)
}

// process is a running server with the questions that the tests here ask it.
type process struct{ *deploytest.Process }

// startServe starts a server on dir with free ports and waits until it is ready. It is stopped when the test ends.
func startServe(t testing.TB, dir string, args ...string) *process {
	t.Helper()
	return &process{deploytest.StartServe(t, dir, args...)}
}

// startCommand starts cmd, which must print what serve prints.
func startCommand(t testing.TB, dir string, cmd *exec.Cmd) *process {
	t.Helper()
	return &process{deploytest.StartCommand(t, dir, cmd)}
}
