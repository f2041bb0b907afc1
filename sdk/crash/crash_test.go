package crash_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/crash"
	"github.com/micromegas-go/micromegas/sdk/memsink"
)

const envDir = "MICROMEGAS_TEST_CRASH"

// watch starts the library and watches a folder.
func watch(t *testing.T, dir string) *memsink.Sink {
	t.Helper()
	sink := memsink.New(0)
	if err := sdk.Start(t.Context(), sdk.Config{Sink: sink}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sdk.Stop(context.Background()) })
	if err := crash.Watch(dir); err != nil {
		t.Fatal(err)
	}
	return sink
}

func TestCrashIsRecordedByTheNext(t *testing.T) {
	if dir := os.Getenv(envDir); dir != "" {
		watch(t, dir)
		done := make(chan struct{})
		go func() {
			defer close(done)
			panic("in a goroutine that nobody watches")
		}()
		<-done
		return
	}
	if err := crash.Watch(t.TempDir()); err == nil {
		t.Error("watched before the start")
	}
	dir := filepath.Join(t.TempDir(), "made")
	cmd := exec.Command(os.Args[0], "-test.run", t.Name())
	cmd.Env = append(os.Environ(), envDir+"="+dir)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "that nobody watches") {
		t.Fatalf("%v\n%s", err, out)
	}
	sink := watch(t, dir)
	if err := sdk.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := sink.Decode()
	if err != nil {
		t.Fatal(err)
	}
	logs, err := got.Logs()
	if err != nil {
		t.Fatal(err)
	}
	if len(logs) != 1 || logs[0].Level != 1 || logs[0].Target != "crash" || !strings.Contains(logs[0].Msg, "panic: in a goroutine") || !strings.Contains(logs[0].Msg, "crash_test.go") {
		t.Errorf("%+v", logs)
	}
	if id, ok := logs[0].Properties.Lookup("crashed_process"); !ok || len(id) != 36 {
		t.Errorf("%+v", logs[0].Properties)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 {
		t.Errorf("%q are left", left)
	}
}
