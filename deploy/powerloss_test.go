package deploy_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/deploy/deploytest"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

const (
	powerLossAcks    = 5        // moments at which the power goes
	powerLossBlocks  = 120      // of each life
	powerLossClients = 4        // connections that post
	powerLossFiller  = 96 << 10 // bytes of a registration that makes the bus and the catalog's log grow past their bounds
	powerLossFillers = 40       // of each life
)

// TestPowerLoss records what a server does to its folder under load, over three lives of which one ends by SIGTERM and two
// by kill -9, and rebuilds the folder as it is on disk when the power goes at the moment of an acknowledgement: once with
// nothing but what was synced, once with a random part of the rest. A server on the rebuilt folder must have every
// block that was acknowledged until then, exactly once.
//
// What the record is held against, as in schemas/lake/LAYOUT.md: fsync of a file makes its bytes and length durable;
// fsync of a folder its names; rename is atomic, but a name that left another folder may still be there. Nothing is
// assumed about the order of what was not synced: each write, also each sector of a write, each name and
// each new length may be lost or kept by itself. For the bus alone one thing more is assumed, as
// schemas/bus/embedded says: fsync of a file also makes durable the name under which it was created.
// What a sync covers is what had ended before it began; it counts from its end.
func TestPowerLoss(t *testing.T) {
	if testing.Short() {
		t.Skip("takes most of a minute; run without -short")
	}
	requireTool(t, "strace")
	seed := number(t, "POWERLOSS_SEED", uint64(time.Now().UnixNano()))
	acks := number(t, "POWERLOSS_ACKS", powerLossAcks) // more of them for a longer hunt
	t.Logf("POWERLOSS_SEED=%d POWERLOSS_ACKS=%d", seed, acks)
	random := rand.New(rand.NewPCG(seed, 1))

	root := deploytest.NewDataDir(t)
	dir := filepath.Join(root, "made", "by", "serve")
	l := newPostLog()
	var traces []string
	for life := range 3 {
		l.life = life
		traces = append(traces, recordLife(t, dir, l, life))
	}
	total := countAnswers(t, root, dir, traces)
	cuts := make([]int, acks)
	for i := range cuts {
		cuts[i] = 1 + random.IntN(total)
	}
	slices.Sort(cuts)
	t.Logf("%d answers; the power goes at %v", total, cuts)
	loseAt(t, root, dir, traces, l, cuts, random)
}

// number reads a number from the environment.
func number(t *testing.T, name string, standard uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return standard
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// requireTool skips the test when a program is missing, and fails it where all must be there.
func requireTool(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing; this test needs it", name)
	}
	t.Skipf("%s is missing; install it for this test", name)
}

// postLog is a writer's work, with what each connection sent, in order: the record has the answers, not the questions.
type postLog struct {
	*writer

	mu   sync.Mutex
	life int
	sent map[lifePort][]telemetry.ID // a zero id is a registration
}

// lifePort is a connection: its local port, in one life of the server.
type lifePort struct{ life, port int }

func newPostLog() *postLog {
	return &postLog{writer: newWriter(3), sent: map[lifePort][]telemetry.ID{}}
}

// connection is a client that posts over one connection at a time and notes in the log what it sends.
func (l *postLog) connection(t *testing.T) *http.Client {
	transport := &http.Transport{MaxConnsPerHost: 1}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

func (l *postLog) post(ctx context.Context, c *http.Client, p *process, route string, id telemetry.ID, body []byte) (int, error) {
	ctx = withPort(ctx, func(port int) {
		l.mu.Lock()
		defer l.mu.Unlock()
		at := lifePort{l.life, port}
		l.sent[at] = append(l.sent[at], id)
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.HTTP+"/ingestion/"+route, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// fill registers a process with a long property.
func (l *postLog) fill(ctx context.Context, c *http.Client, p *process) {
	text := make([]byte, powerLossFiller)
	for i := range text {
		text[i] = 'a' + byte(rand.IntN(26))
	}
	process := telemetry.Process{
		ID: telemetry.NewID(), Exe: "filler", TSCFrequency: 1e9, StartTime: time.Now().UnixNano(),
		Properties: []telemetry.Property{{Key: "text", Value: string(text)}},
	}
	l.post(ctx, c, p, "insert_process", telemetry.ID{}, wire.AppendProcess(nil, &process)) // nobody counts on it
}

// oversize makes a block that does not fit a frame of the bus: its body goes to the lake first.
func (l *postLog) oversize() (telemetry.ID, []byte) {
	var e deploytest.Emitter
	for i := range l.rows {
		text := make([]byte, 512<<10) // in all above 1 MiB, and random: it does not compress
		for j := range text {
			text[j] = ' ' + byte(rand.IntN(95))
		}
		e.Log(int64(2+i), 4, "writer", string(text))
	}
	start := l.process.StartTime
	b := telemetry.Block{
		ID: telemetry.NewID(), StreamID: l.stream.ID, ProcessID: l.process.ID, NbObjects: int32(l.rows),
		BeginTicks: 1, EndTicks: 1e6, BeginTime: start, EndTime: start + 1e6,
	}
	return b.ID, e.Body(b)
}

// recordLife runs a server on dir under strace, with load, and returns the record.
func recordLife(t *testing.T, dir string, l *postLog, life int) string {
	t.Helper()
	trace := filepath.Join(t.TempDir(), fmt.Sprintf("trace-%d", life))
	args := append(straceArgs(trace), deploytest.Binary(t))
	p := startCommand(t, dir, exec.Command("strace", append(args, deploytest.ServeArgs(dir)...)...))
	pid := lockedBy(t, dir)
	t.Cleanup(func() { syscall.Kill(pid, syscall.SIGKILL) }) // strace's end is not its end
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	first := l.connection(t)
	for route, body := range map[string][]byte{
		"insert_process": wire.AppendProcess(nil, &l.process), "insert_stream": wire.AppendStream(nil, &l.stream),
	} {
		if code, err := l.post(ctx, first, p, route, telemetry.ID{}, body); err != nil || code != http.StatusOK {
			t.Fatalf("%s: status %d, %v\n%s", route, code, err, p.LogTail())
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		id, body := l.oversize()
		l.post(ctx, first, p, "insert_block", id, body)
	})
	for i := range powerLossClients {
		c := l.connection(t)
		wg.Go(func() {
			for n := range powerLossBlocks / powerLossClients {
				id, body := l.block()
				l.post(ctx, c, p, "insert_block", id, body) // what was answered is in the record
				if (n*powerLossClients+i)%(powerLossBlocks/powerLossFillers) == 0 {
					l.fill(ctx, c, p)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { defer close(done); wg.Wait() }()
	for queries, busy := 0, true; busy; queries++ { // views commit for them
		select {
		case <-done:
			busy = false
		default:
			p.query(ctx, "SELECT count(*) FROM log_entries")
		}
	}
	if ctx.Err() != nil {
		t.Fatalf("life %d takes too long\n%s", life, p.LogTail())
	}
	end := syscall.SIGKILL
	if life == 1 {
		end = syscall.SIGTERM
	}
	if err := syscall.Kill(pid, end); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.Exited:
	case <-time.After(deploytest.StopTimeout):
		t.Fatalf("life %d does not end\n%s", life, p.LogTail())
	}
	return trace
}

// lockedBy returns the pid of the server on dir.
func lockedBy(t *testing.T, dir string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// countAnswers replays the records once and checks what the model rests on.
func countAnswers(t *testing.T, root, dir string, traces []string) (total int) {
	t.Helper()
	d := newDisk(root)
	d.answered = func(_ int, ok bool) {
		if ok {
			total++
		}
	}
	for _, trace := range traces {
		if err := d.replay(trace); err != nil {
			t.Fatal(err)
		}
	}
	logFiles(t, d, dir)
	for name := range d.mapped {
		if name != "catalog.db-shm" { // SQLite builds it anew at each start
			t.Errorf("%s is mapped for writing: the record does not have what is written there", name)
		}
	}
	if want := 3 * powerLossBlocks; total < want {
		t.Fatalf("%d answers in the record, want at least %d", total, want)
	}
	return total
}

// catalogLog is a new file after each clean end, so its writes are counted over all of them.
const catalogLog = "catalog.db-wal"

// logFiles says how much the record covers, and fails when a part of it never happened.
func logFiles(t *testing.T, d *disk, dir string) {
	t.Helper()
	want := map[string]int{"catalog.db": 200, catalogLog: 1000, "bus/jetstream/$G/streams/blocks-eager-0/msgs/3.blk": 1}
	for name, least := range want {
		changes := d.writes[name]
		if node, _ := d.walk(-1, filepath.Join(dir, name)); name != catalogLog && node != nil {
			changes = len(node.changes)
		}
		if changes < least {
			t.Errorf("the record covers too little of %s, %d changes: raise powerLossFillers", name, changes)
			continue
		}
		t.Logf("%s: %d changes", name, changes)
	}
}

// loseAt replays the records, and at each cut starts servers on what is left. Cuts are numbers of answers, ascending.
func loseAt(t *testing.T, root, dir string, traces []string, l *postLog, cuts []int, random *rand.Rand) {
	t.Helper()
	d := newDisk(root)
	d.kind = filepath.Join(dir, "bus") + "/"
	at := &writer{process: l.process, stream: l.stream, rows: l.rows} // what was acknowledged so far
	answers, total, life := map[lifePort]int{}, 0, 0
	d.answered = func(port int, ok bool) {
		from := lifePort{life, port}
		n := answers[from]
		answers[from]++
		if !ok {
			return
		}
		total++
		if id := l.sent[from][n]; !id.IsZero() {
			at.acked = append(at.acked, id)
		}
		for len(cuts) > 0 && cuts[0] == total {
			cuts = cuts[1:]
			checkLoss(t, d, dir, at, &loss{})
			keep := []float64{0.1, 0.5, 0.9}[random.IntN(3)]
			checkLoss(t, d, dir, at, &loss{random: random, keep: keep, chosen: map[*change]bool{}})
		}
	}
	for life = range traces {
		if err := d.replay(traces[life]); err != nil {
			t.Fatal(err)
		}
	}
}

// checkLoss starts a server on what a power loss leaves, in the same place: the lock and the leases know it by its path.
func checkLoss(t *testing.T, d *disk, dir string, at *writer, l *loss) {
	t.Helper()
	begin := time.Now()
	if err := os.RemoveAll(d.path); err != nil {
		t.Fatal(err)
	}
	if err := d.rebuild(d.path, l); err != nil {
		t.Fatal(err)
	}
	p := startServe(t, dir)
	if len(at.acked) > 0 {
		settle(t, p)
		checkAcked(t, p, at)
	}
	p.Kill()
	if t.Failed() {
		t.Fatalf("lost at block %d, keeping %.1f of what was not synced\n%s", len(at.acked), l.keep, p.LogTail())
	}
	t.Logf("block %d, keeping %.1f of what was not synced: all there, after %v", len(at.acked), l.keep, time.Since(begin).Round(time.Millisecond))
}

// settle waits until the views have all there is: what was recorded half a minute ago is a backlog, which a query does
// not wait for but warns of. The first query makes the owner find out.
func settle(t *testing.T, p *process) {
	t.Helper()
	p.mustQuery("SELECT count(*) FROM log_entries")
	deploytest.Eventually(t, 30*time.Second, "backlog built", func() bool {
		state, _ := p.Status()["catalog"].(map[string]any)
		open, known := state["Backlog"].(float64)
		if !known {
			t.Fatalf("status says nothing of a backlog: %v", state)
		}
		return open == 0
	})
}

// withPort calls got with the local port of the connection that carries the request.
func withPort(ctx context.Context, got func(port int)) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if address, ok := info.Conn.LocalAddr().(*net.TCPAddr); ok {
			got(address.Port)
		}
	}})
}

// TestDiskModel holds the model that TestPowerLoss rests on against small records.
func TestDiskModel(t *testing.T) {
	const (
		create = `open("D/f", O_RDWR|O_CREAT) = 3` + "\n"
		write  = `write(3, "abc", 3) = 3` + "\n"
		folder = `open("D", O_RDONLY) = 4` + "\n" + `fsync(4) = 0` + "\n"
	)
	for _, test := range []struct{ name, trace, kind, want string }{
		{"nothing synced", create + write, "", ""},
		{"file synced, name not", create + write + `fsync(3) = 0`, "", ""},
		{"file synced, and its name with it", create + write + `fsync(3) = 0`, "D/", "f=abc"},
		{"name synced, bytes not", create + write + folder, "", "f="},
		{"both synced", create + write + `fsync(3) = 0` + "\n" + folder, "", "f=abc"},
		{"written again", create + write + `fsync(3) = 0` + "\n" + folder + `pwrite64(3, "X", 1, 1) = 1`, "", "f=abc"},
		{"written again, synced", create + folder + write + `pwrite64(3, "X", 1, 1) = 1` + "\n" + `fdatasync(3) = 0`, "", "f=aXc"},
		{"write ends after the sync began", create + folder + `write(3, "abc", 3 <unfinished ...>` + "\n2 fsync(3) = 0\n1 <... write resumed>) = 3", "", "f="},
		{"sync does not end", create + folder + write + `fsync(3 <unfinished ...>`, "", "f="},
		{"sync fails", create + folder + write + `fsync(3) = -1 EIO (Input/output error)`, "", "f="},
		{"cut, not synced", create + folder + write + `fsync(3) = 0` + "\n" + `ftruncate(3, 1) = 0`, "", "f=abc"},
		{"cut, synced", create + folder + write + `ftruncate(3, 1) = 0` + "\n" + `fsync(3) = 0`, "", "f=a"},
		{"O_SYNC", `open("D/f", O_WRONLY|O_CREAT|O_SYNC) = 3` + "\n" + folder + write, "", "f=abc"},
		{"renamed, not synced", create + write + `fsync(3) = 0` + "\n" + folder + `rename("D/f", "D/g") = 0`, "", "f=abc"},
		{"renamed, synced", create + write + `fsync(3) = 0` + "\n" + `rename("D/f", "D/g") = 0` + "\n" + folder, "", "g=abc"},
		{"removed, not synced", create + folder + `unlink("D/f") = 0`, "", "f="},
		{"removed, synced", create + folder + `unlink("D/f") = 0` + "\n" + folder, "", ""},
		{"moved, target not synced", create + `mkdir("D/d", 0700) = 0` + "\n" + folder + `rename("D/f", "D/d/f") = 0`, "", "f="},
		{"moved, target synced", create + `mkdir("D/d", 0700) = 0` + "\n" + folder + `rename("D/f", "D/d/f") = 0` + "\n" +
			`open("D/d", O_RDONLY) = 5` + "\n" + `fsync(5) = 0`, "", "d/f= f="},
		{"moved, source synced", create + `mkdir("D/d", 0700) = 0` + "\n" + folder + `rename("D/f", "D/d/f") = 0` + "\n" + folder, "", "d/f="},
		{"closed", create + folder + `close(3) = 0` + "\n" + write, "", "f="},
		{"appended", `open("D/f", O_WRONLY|O_CREAT|O_APPEND) = 3` + "\n" + folder + write + write + `fsync(3) = 0`, "", "f=abcabc"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			trace := filepath.Join(dir, "trace")
			if err := os.WriteFile(trace, []byte(hexTrace(test.trace, dir)), 0o600); err != nil {
				t.Fatal(err)
			}
			d := newDisk(filepath.Join(dir, "D"))
			if test.kind != "" {
				d.kind = filepath.Join(dir, test.kind) + "/"
			}
			if err := d.replay(trace); err != nil {
				t.Fatal(err)
			}
			left := filepath.Join(dir, "left")
			if err := d.rebuild(left, &loss{}); err != nil {
				t.Fatal(err)
			}
			if got := listFiles(t, left); got != test.want {
				t.Errorf("left %q, want %q", got, test.want)
			}
		})
	}
}

// hexTrace writes lines as strace does: with a thread before them, their strings hexadecimal, D in the folder dir.
func hexTrace(text, dir string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		if line[0] < '0' || line[0] > '9' {
			b.WriteString("1 ")
		}
		for i, part := range strings.Split(line, `"`) {
			if i%2 == 0 {
				b.WriteString(part)
				continue
			}
			if strings.HasPrefix(part, "D") {
				part = filepath.Join(dir, part)
			}
			b.WriteByte('"')
			for _, c := range []byte(part) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
			b.WriteByte('"')
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// listFiles returns name=content of all files below dir.
func listFiles(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		all = append(all, name+"="+string(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}
