package apart_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// skewVariable shifts the wall clock of a program that was built with a skewed package time, in seconds.
const skewVariable = "CLOCK_OFFSET_SECONDS"

// skewedBinary builds the program over a copy of the standard library's package time whose Now is shifted by an environment
// variable: the whole process then lives at another hour, and nothing of the program knows. Built once for a version of both, it
// comes from the build cache.
func skewedBinary(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	const reading = "sec, nsec, mono := runtimeNow()\n"
	now := strings.Index(string(text), "\nfunc Now() Time {")
	if now < 0 || !strings.Contains(string(text)[now:], reading) {
		t.Fatalf("package time of %s has another Now: teach this test how to shift it", runtime.Version())
	}
	skewed := string(text[:now]) + strings.Replace(string(text[now:]), reading, reading+"\tsec += wallOffset\n", 1)
	skewed = strings.Replace(skewed, "import (", "import (\n\t\"syscall\"", 1) + `
var wallOffset = func() (n int64) {
	text, _ := syscall.Getenv("` + skewVariable + `")
	for i, c := range []byte(text) {
		if i > 0 || c != '-' {
			n = n*10 + int64(c-'0')
		}
	}
	if len(text) > 0 && text[0] == '-' {
		n = -n
	}
	return n
}()
`
	dir := t.TempDir()
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {source: filepath.Join(dir, "time.go")}})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"time.go": []byte(skewed), "overlay.json": overlay} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "micromegas")
	build := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", path, "github.com/micromegas-go/micromegas")
	build.Env = append(os.Environ(), "GOFLAGS=") // on all cores: it is nearly everything, once
	out, err := build.CombinedOutput()
	if err != nil {
		t.Fatalf("build with a skewed clock: %v\n%s", err, out)
	}
	return path
}

// TestClockOneHourOff lets one process of each role live an hour ahead or behind beside others that do not: leases, garbage
// collection, backlog and signatures of requests must not mind.
func TestClockOneHourOff(t *testing.T) {
	c := newCluster(t, clusterOptions{natsServers: 1})
	skewed := skewedBinary(t)
	members := map[string][]*member{}
	for _, role := range []string{"gateway", "workers", "materializers", "query"} {
		for i, offset := range []int{0, 3600, -3600} {
			m := &member{cluster: c, name: fmt.Sprintf("%s-%d", role, i), roles: role, http: "127.0.0.1:0", flight: "127.0.0.1:0"}
			if offset != 0 {
				m.program, m.env = skewed, map[string]string{skewVariable: fmt.Sprint(offset)}
			}
			m.start()
			c.members = append(c.members, m)
			members[role] = append(members[role], m)
		}
	}
	f := newFleet(1, 50, members["gateway"][0].url(), members["gateway"][1].url(), members["gateway"][2].url())
	f.twice, f.late = 0.05, 0.05
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var load sync.WaitGroup
	load.Go(func() { f.run(ctx, 4, faultRate) })
	letPass(5 * time.Second)
	for _, role := range []string{"workers", "materializers"} { // each of them gets its turn as an owner
		for _, m := range members[role] {
			m.process().Kill()
			letPass(4 * time.Second)
			m.start()
			letPass(time.Second)
		}
	}
	stop()
	load.Wait()
	for _, m := range members["query"] {
		sum := f.audit(t, m)
		t.Logf("%s: %d blocks, %d rows acknowledged: %d lost, %d doubled", m.name, sum.blocks, sum.rows, sum.lost, sum.doubled)
	}
	t.Logf("%d requests, %d answered 503, longest ack %v", f.posts.Load(), f.refused.Load(), time.Duration(f.longestAck.Load()))
}
