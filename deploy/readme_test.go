package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestProgramOfTheReadme builds the Go program that the README shows, runs it beside a server, and asks what the README asks.
func TestProgramOfTheReadme(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, program, ok := strings.Cut(string(readme), "```go\n")
	program, _, closed := strings.Cut(program, "```")
	const address = "http://127.0.0.1:9000"
	if !ok || !closed || !strings.Contains(program, address) {
		t.Fatal("README.md has no Go program, or it sends elsewhere")
	}
	p := startServe(t, t.TempDir())
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "hello.go"), filepath.Join(dir, "hello")
	if err := os.WriteFile(source, []byte(strings.Replace(program, address, p.HTTP, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-o", binary, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.Command(binary).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for sql, want := range map[string]string{
		"SELECT level, target, msg FROM log_entries":                               "4|main|hello, world",
		"SELECT name, value, unit FROM measures":                                   "frame_time|16.6|ms",
		`SELECT nb_objects FROM blocks WHERE list_contains("streams.tags", 'cpu')`: "2",
	} {
		if rows := p.mustQuery(sql); len(rows) != 1 || rows[0] != want {
			t.Errorf("%s: %q, not %q", sql, rows, want)
		}
	}
}
