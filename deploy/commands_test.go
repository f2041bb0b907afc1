package deploy_test

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
	"github.com/micromegas-go/micromegas/query/querytest"
)

// TestDemoShowsRows runs the first command of the README until its first query's rows.
func TestDemoShowsRows(t *testing.T) {
	cmd := exec.Command(deploytest.Binary(t), "demo", "--once", "--data", deploytest.NewDataDir(t), "--http", "127.0.0.1:0", "--flight", "127.0.0.1:0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("demo: %v\n%s", err, out)
	}
	for _, want := range []string{`(?m)^ingestion  http://127\.0\.0\.1:\d+$`, `(?m)^sql        grpc://127\.0\.0\.1:\d+$`, `(?m)^time\s+level\s+target\s+msg`, `(?m)^20\d\d-`} {
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("demo prints no %s:\n%s", want, out)
		}
	}
}

// TestHelpTeaches finds every command and its flags.
func TestHelpTeaches(t *testing.T) {
	out, err := exec.Command(deploytest.Binary(t), "--help").CombinedOutput()
	if err != nil {
		t.Fatalf("--help: %v", err)
	}
	for _, command := range []string{"serve", "demo", "health", "query", "perfetto", "loadgen", "hostmetrics", "logfile", "bench"} {
		if !strings.Contains(string(out), "  "+command) {
			t.Errorf("--help does not name %s", command)
		}
		flags, err := exec.Command(deploytest.Binary(t), command, "--help").CombinedOutput()
		if err != nil || !strings.Contains(string(flags), "usage: micromegas "+command) {
			t.Errorf("%s --help: %v\n%s", command, err, flags)
		}
	}
	if out, err := exec.Command(deploytest.Binary(t), "sreve").CombinedOutput(); err == nil || !strings.Contains(string(out), "no command") {
		t.Errorf("an unknown command: %v\n%s", err, out)
	}
}

// TestQueryCommand prints rows in every text format, and tells why there are none.
func TestQueryCommand(t *testing.T) {
	p := startFixture(t, querytest.LocalHome(t, deploytest.NewDataDir(t)))
	run := func(args ...string) (string, string, error) {
		cmd := exec.Command(deploytest.Binary(t), append([]string{"query", "--url", "grpc://" + p.Flight}, args...)...)
		var out, errs strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &errs
		err := cmd.Run()
		return out.String(), errs.String(), err
	}
	const sql = "SELECT level, msg, properties FROM log_entries WHERE msg = 'slow peer'"
	for format, want := range map[string]string{
		"table": "slow peer", "csv": "3,slow peer,", "json": `"msg":"slow peer"`,
	} {
		out, errs, err := run(sql, "--format", format)
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("format %s: %v %s\n%s", format, err, errs, out)
		}
		if format != "table" && !strings.Contains(out, "peer") {
			t.Errorf("format %s does not show the properties: %s", format, out)
		}
	}
	if out, _, err := run("SELECT * FROM log_entries", "--format", "parquet"); err != nil || !strings.HasPrefix(out, "PAR1") {
		t.Errorf("format parquet: %v, %d bytes", err, len(out))
	}
	if out, _, err := run("SELECT * FROM log_entries", "--format", "arrow"); err != nil || len(out) == 0 {
		t.Errorf("format arrow: %v, %d bytes", err, len(out))
	}
	if _, errs, err := run(sql, "--begin", "1h"); err != nil || !strings.Contains(errs, "no rows between") {
		t.Errorf("empty result: %v, %q", err, errs)
	}
	if _, errs, err := run("SELECT nope FROM log_entries"); err == nil || !strings.Contains(errs, "No field named nope") {
		t.Errorf("wrong column: %v, %q", err, errs)
	}
}
