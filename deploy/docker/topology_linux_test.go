package docker_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/deploy/parts"
)

// TestComposeFileServes runs the compose file: as containers where an engine answers, and as processes of this machine always.
func TestComposeFileServes(t *testing.T) {
	out := built(t)
	if said, err := exec.CommandContext(t.Context(), "docker", "info", "--format", "{{.ServerVersion}}").CombinedOutput(); err != nil {
		t.Logf("path taken: processes alone; no container engine answers (%v: %s)", err, bytes.TrimSpace(said))
	} else {
		t.Logf("path taken: containers of Docker %s, then processes", bytes.TrimSpace(said))
		t.Run("containers", func(t *testing.T) { serveContainers(t, out) })
	}
	t.Run("processes", func(t *testing.T) { serveProcesses(t, out) })
}

// serveContainers builds the image and brings everything up under a name of its own.
func serveContainers(t *testing.T, out string) {
	values := secrets(t)
	compose := func(args ...string) string {
		cmd := exec.Command("docker", append([]string{"compose", "--project-name", fmt.Sprintf("micromegas-test-%d", os.Getpid()), "--file", "compose.yaml"}, args...)...)
		cmd.Env = environ(values)
		said, err := cmd.Output()
		if err != nil {
			t.Fatalf("docker compose %q: %v\n%s", args, err, stderr(err))
		}
		return strings.TrimSpace(string(said))
	}
	t.Cleanup(func() { compose("down", "--volumes", "--rmi", "local") })
	compose("up", "--build", "--detach", "--wait", "--wait-timeout", "300")
	var gateways, queries []string
	p := load(t, values)
	for i := range p.Services["gateway"].Deploy.Replicas {
		gateways = append(gateways, "http://"+compose("port", "--index", strconv.Itoa(i+1), "gateway", "9000"))
	}
	for i := range p.Services["query"].Deploy.Replicas {
		queries = append(queries, "grpc://"+compose("port", "--index", strconv.Itoa(i+1), "query", "50051"))
	}
	exercise(t, filepath.Join(out, "micromegas"), values["MICROMEGAS_API_KEY"], gateways, queries)
}

// serveProcesses starts each service's command with its environment, configuration file and user. Names and ports are replaced
// by free loopback ports, volumes by folders; PostgreSQL is this machine's. SIGTERM must end every server well.
func serveProcesses(t *testing.T, out string) {
	postgres, err := parts.StartPostgres(t.Context(), t.TempDir(), parts.PostgresOptions{})
	if errors.Is(err, parts.ErrNotInstalled) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := postgres.Stop(); err != nil {
			t.Error(err)
		}
	})
	database, err := url.Parse(postgres.URL("micromegas"))
	if err != nil {
		t.Fatal(err)
	}
	values := secrets(t)
	values["POSTGRES_PASSWORD"], _ = database.User.Password()
	m := newMachine(t, load(t, values), out)
	m.addrs["postgres:5432"] = database.Host
	m.runOnce(t, "volumes")
	m.startPart(t, "s3", parts.VersityGW)
	for _, name := range []string{"nats-1", "nats-2", "nats-3"} {
		m.startPart(t, name, parts.NATSServer)
	}
	for _, name := range []string{"s3", "nats-1", "nats-2", "nats-3"} {
		m.untilHealthy(t, name)
	}
	var gateways, queries []string
	var servers []*server
	for _, role := range []string{"query", "materializers", "workers", "gateway"} {
		for i := range m.p.Services[role].Deploy.Replicas {
			s := m.startRole(t, role, i+1)
			servers = append(servers, s)
			switch role {
			case "gateway":
				gateways = append(gateways, s.http)
			case "query":
				queries = append(queries, s.flight)
			}
		}
	}
	exercise(t, m.program, values["MICROMEGAS_API_KEY"], gateways, queries)
	for _, s := range slices.Backward(servers) {
		s.stop(t)
	}
}

// exercise posts to each gateway and wants every query service to return all that was acknowledged so far.
func exercise(t *testing.T, program, key string, gateways, queries []string) {
	t.Helper()
	run := func(args ...string) []byte {
		out, err := exec.CommandContext(t.Context(), program, args...).Output()
		if err != nil {
			t.Fatalf("%q: %v\n%s", args, err, stderr(err))
		}
		return out
	}
	acked := int64(0)
	for _, gateway := range gateways {
		var report struct {
			AckedBlocks int64 `json:"acked_blocks"`
		}
		if err := json.Unmarshal(run("loadgen", "--url", gateway, "--key", key, "--mix", "log", "--blocks", "20", "--json"), &report); err != nil {
			t.Fatal(err)
		}
		if acked += report.AckedBlocks; report.AckedBlocks < 20 {
			t.Fatalf("%s acknowledged %d blocks, want 20", gateway, report.AckedBlocks)
		}
		for _, query := range queries {
			got := run("query", "--url", query, "--key", key, "--strict", "--format", "csv", "SELECT count(DISTINCT block_id) FROM log_entries")
			if want := fmt.Sprintf("\n%d\n", acked); !strings.HasSuffix(string(got), want) {
				t.Errorf("%s returns rows of %q blocks after %d were acknowledged", query, got, acked)
			}
		}
	}
	for _, args := range [][]string{{"loadgen", "--url", gateways[0], "--key", "wrong", "--blocks", "1", "--duration", "1s"}, {"query", "--url", queries[0], "--key", "wrong", "SELECT 1"}} {
		if out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput(); err == nil {
			t.Errorf("%s with a wrong key succeeds: %s", args[0], out)
		}
	}
}

// stderr returns what a failed command said.
func stderr(err error) []byte {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return nil
	}
	return exit.Stderr
}

// machine stands for the engine: it starts a service's command where its image would have run.
type machine struct {
	p       project
	image   image
	dir     string // the services' folders
	program string
	hosts   *regexp.Regexp    // NAME:PORT of a service, or an address of its own
	addrs   map[string]string // NAME:PORT → loopback address
}

func newMachine(t *testing.T, p project, out string) *machine {
	t.Helper()
	names := []string{"0.0.0.0", "127.0.0.1"}
	for name := range p.Services {
		names = append(names, name)
	}
	for i, name := range names {
		names[i] = regexp.QuoteMeta(name)
	}
	return &machine{
		p: p, image: dockerfile(t), dir: openDir(t), program: filepath.Join(out, "micromegas"),
		hosts: regexp.MustCompile(`\b(` + strings.Join(names, "|") + `):(\d+)\b`), addrs: map[string]string{},
	}
}

// openDir returns a folder that every user may enter; those of testing.T are closed to others.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "micromegas-compose-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// addr returns the loopback address that stands for a service's port.
func (m *machine) addr(t *testing.T, name, port string) string {
	t.Helper()
	key := name + ":" + port
	if m.addrs[key] == "" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		m.addrs[key] = l.Addr().String()
		l.Close()
	}
	return m.addrs[key]
}

func (m *machine) volume(name string) string { return filepath.Join(m.dir, "volumes", name) }

// local translates a text of the service self: addresses to loopback, paths of volumes and configuration files to those here.
func (m *machine) local(t *testing.T, self, text string) string {
	t.Helper()
	s := m.p.Services[self]
	text = m.hosts.ReplaceAllStringFunc(text, func(found string) string {
		name, port, _ := strings.Cut(found, ":")
		_, isService := m.p.Services[name]
		switch {
		case isService:
			return m.addr(t, name, port)
		case s.Build != nil:
			return "127.0.0.1:0" // several of one service: each prints its own
		}
		return m.addr(t, self, port)
	})
	for _, v := range s.Volumes {
		text = regexp.MustCompile(`(^|[ :])`+v.Target+`\b`).ReplaceAllString(text, "${1}"+m.volume(v.Source))
	}
	for _, c := range s.Configs {
		text = strings.ReplaceAll(text, c.Target, m.config(self, c.Source))
	}
	return text
}

// config is where a configuration file of the service self is.
func (m *machine) config(self, source string) string { return filepath.Join(m.dir, self, source) }

// command makes the service's command run program with the service's arguments, environment and user.
func (m *machine) command(t *testing.T, self, program string, args ...string) *exec.Cmd {
	t.Helper()
	s := m.p.Services[self]
	cmd := exec.Command(program)
	for _, arg := range args {
		cmd.Args = append(cmd.Args, m.local(t, self, arg))
	}
	for name, value := range s.Environment {
		cmd.Env = append(cmd.Env, name+"="+m.local(t, self, value))
	}
	user := s.User
	if user == "" {
		user = m.image.user
	}
	cmd.SysProcAttr = account(ids(t, user))
	return cmd
}

// runOnce makes the volumes, as the engine does, and runs a service that ends by itself.
func (m *machine) runOnce(t *testing.T, self string) {
	t.Helper()
	s := m.p.Services[self]
	for _, v := range s.Volumes {
		if err := os.MkdirAll(m.volume(v.Source), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	args := append(slices.Clone(s.Entrypoint[1:]), s.Command...)
	if os.Geteuid() != 0 { // everything is this user's
		args[len(args)-1] = strings.ReplaceAll(args[len(args)-1], m.image.user, fmt.Sprintf("%d:%d", os.Geteuid(), os.Getegid()))
	}
	cmd := m.command(t, self, s.Entrypoint[0], args...)
	cmd.Env = append(cmd.Env, "PATH="+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", self, err, out)
	}
}

// startPart starts a service whose image is that of a part.
func (m *machine) startPart(t *testing.T, self, part string) {
	t.Helper()
	built, err := parts.Binary(t.Context(), part)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(m.dir, self, part)
	if err := copyFile(program, built, 0o755); err != nil { // what is in this user's cache is closed to others
		t.Fatal(err)
	}
	s := m.p.Services[self]
	for _, c := range s.Configs {
		text, err := os.ReadFile(m.p.Configs[c.Source].File)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(m.config(self, c.Source), []byte(m.local(t, self, string(text))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	args := s.Command
	if args[0] == part { // the image's entry point runs any command
		args = args[1:]
	}
	cmd := m.command(t, self, program, args...)
	log, err := os.Create(filepath.Join(m.dir, self, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() // the child has its own
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", self, err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // how it ended is in its log
		if text, err := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("%s said (%v):\n%s", self, err, text[max(0, len(text)-4<<10):])
		}
	})
}

// untilHealthy asks what the service's health check asks.
func (m *machine) untilHealthy(t *testing.T, self string) {
	t.Helper()
	test := m.p.Services[self].Healthcheck.Test
	address := m.local(t, self, test[len(test)-1])
	var err error
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); {
		var resp *http.Response
		if resp, err = http.Get(address); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
			err = errors.New(resp.Status)
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("%s is not healthy after %v: %v", self, startTimeout, err)
}

// startRole starts the i-th server of a service that runs the image, on an empty data folder.
func (m *machine) startRole(t *testing.T, self string, i int) *server {
	t.Helper()
	args := slices.Clone(m.p.Services[self].Command)
	if !slices.Contains(args, "--http") {
		args = append(args, "--http", "127.0.0.1:0") // in a container the default address is its own
	}
	cmd := m.command(t, self, m.program, args...)
	data := filepath.Join(m.dir, self, strconv.Itoa(i))
	if err := os.MkdirAll(data, 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		uid, gid := ids(t, m.image.user)
		if err := os.Chown(data, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	cmd.Dir, cmd.Env = data, append(cmd.Env, "MICROMEGAS_DATA="+data)
	s := startServer(t, fmt.Sprintf("%s-%d", self, i), cmd)
	if out, err := exec.CommandContext(t.Context(), m.program, "health", "--url", s.http).CombinedOutput(); err != nil {
		t.Errorf("%s is not healthy: %v\n%s", s.name, err, out)
	}
	return s
}
