package parts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus/embedded"
)

// natsStart bounds one try to start: a server whose port is taken by another program may run without it.
const natsStart = 25 * time.Second

// natsStore is what JetStream may promise to streams: no limit that a test would meet.
const natsStore = 1 << 40

// NATSOptions says how servers run. The zero value is servers that everybody may use.
type NATSOptions struct {
	User, Password string // who is let in; empty: everybody
	TLS            bool   // clients must speak TLS, with a certificate that is signed by CAFile
	VerifyClients  bool   // with TLS: clients must show CertFile
	NoJetStream    bool   // a server that is not good for a bus
	Extra          string // further lines of the configuration file
}

// NATS is a group of running nats-servers. Servers are numbered from 0. Its methods are safe for concurrent use.
type NATS struct {
	program string
	options NATSOptions
	dir     string
	pki     pki
	servers []*natsServer

	mu  sync.Mutex // guards cut
	cut map[int]bool
}

// natsServer is one server in all its lives.
type natsServer struct {
	name                     string
	config, log              string
	client, monitor, cluster string // host:port, the same for all lives
	nowhere                  string // where nobody listens

	// out[j] leads to server j's cluster port. What j knows as this server's address is nothing that anybody can reach, so
	// all links between servers go over these wires.
	out []*wire

	mu      sync.Mutex // held by whoever starts or ends the server
	running *child     // nil when it does not run
}

// StartNATS starts n nats-servers with JetStream, one cluster when n > 1, whose files are below dir: they sync every
// message to disk before it is acknowledged, and take messages as large as the embedded server. All of them are ready, and
// the cluster has its leader, when StartNATS returns. At most one NATSOptions is looked at.
func StartNATS(ctx context.Context, dir string, n int, options ...NATSOptions) (*NATS, error) {
	program, err := Binary(ctx, NATSServer)
	if err != nil {
		return nil, fmt.Errorf("start nats: %w", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("start nats: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("start nats: %w", err)
	}
	c := &NATS{program: program, dir: dir, cut: map[int]bool{}}
	if len(options) > 0 {
		c.options = options[0]
	}
	if c.options.TLS {
		if c.pki, err = newPKI(filepath.Join(dir, "nats-tls")); err != nil {
			return nil, fmt.Errorf("start nats: %w", err)
		}
	}
	for try := range childPorts {
		starting, cancel := context.WithTimeout(ctx, natsStart)
		err = c.start(starting, n)
		cancel()
		if err == nil {
			return c, nil
		}
		err = errors.Join(err, c.Stop())
		if try+1 == childPorts || ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("start nats: %w", err)
}

// start makes the servers on fresh ports and waits until they are ready.
func (c *NATS) start(ctx context.Context, n int) error {
	if err := c.place(n); err != nil {
		return err
	}
	for i, s := range c.servers {
		if err := os.WriteFile(s.config, []byte(c.configText(i)), 0o600); err != nil {
			return err
		}
		var err error
		if s.running, err = startChild(c.program, s.log, "-c", s.config); err != nil {
			return err
		}
	}
	for i := range c.servers {
		if err := c.untilReady(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// place gives n servers their addresses and the wires between them. All ports are held until all are known: one that was let
// go may be given out again.
func (c *NATS) place(n int) error {
	var held []net.Listener
	defer func() {
		for _, l := range held {
			_ = l.Close() // nothing was written
		}
	}()
	hold := func() (string, error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		held = append(held, l)
		return l.Addr().String(), nil
	}
	c.servers = nil
	for i := range n {
		s := &natsServer{
			name: fmt.Sprintf("nats-%d", i), config: filepath.Join(c.dir, fmt.Sprintf("nats-%d.conf", i)),
			log: filepath.Join(c.dir, fmt.Sprintf("nats-%d.log", i)),
		}
		for _, addr := range []*string{&s.client, &s.monitor, &s.cluster, &s.nowhere} {
			var err error
			if *addr, err = hold(); err != nil {
				return err
			}
		}
		c.servers = append(c.servers, s)
	}
	for _, s := range c.servers {
		for _, to := range c.servers {
			w, err := newWire(to.cluster)
			if err != nil {
				return err
			}
			s.out = append(s.out, w)
		}
	}
	return nil
}

// configText is server i's configuration file.
func (c *NATS) configText(i int) string {
	s := c.servers[i]
	var b strings.Builder
	fmt.Fprintf(&b, "server_name: %s\nlisten: %q\nhttp: %q\n", s.name, s.client, s.monitor)
	fmt.Fprintf(&b, "max_payload: %d\nmax_pending: %d\n", embedded.MaxPayload, embedded.MaxPending)
	if !c.options.NoJetStream {
		fmt.Fprintf(&b, "jetstream {\n  store_dir: %q\n  sync_interval: always\n  max_file_store: %d\n}\n", filepath.Join(c.dir, s.name), int64(natsStore))
	}
	if c.options.User != "" {
		fmt.Fprintf(&b, "authorization {\n  user: %q\n  password: %q\n}\n", c.options.User, c.options.Password)
	}
	if c.options.TLS {
		fmt.Fprintf(&b, "tls {\n  cert_file: %q\n  key_file: %q\n  ca_file: %q\n  verify: %t\n}\n",
			c.pki.serverCert, c.pki.serverKey, c.pki.ca, c.options.VerifyClients)
	}
	if len(c.servers) > 1 {
		var routes []string
		for j, w := range s.out {
			if j != i {
				routes = append(routes, "nats-route://"+w.addr())
			}
		}
		fmt.Fprintf(&b, "cluster {\n  name: parts\n  listen: %q\n  advertise: %q\n  routes: [%s]\n}\n", s.cluster, s.nowhere, strings.Join(routes, ", "))
	}
	b.WriteString(c.options.Extra + "\n")
	return b.String()
}

// untilReady waits until server i serves; in a cluster, until it knows a leader and all servers that run.
func (c *NATS) untilReady(ctx context.Context, i int) error {
	s := c.servers[i]
	err := s.running.until(ctx, func(ctx context.Context) error {
		if c.options.NoJetStream {
			return c.monitor(ctx, i, "/healthz", nil)
		}
		if err := c.monitor(ctx, i, "/healthz?js-server-only=true", nil); err != nil || len(c.servers) == 1 {
			return err
		}
		var js jsz
		if err := c.monitor(ctx, i, "/jsz", &js); err != nil {
			return err
		}
		if js.Meta.Leader == "" || js.Meta.Size < len(c.servers) {
			return fmt.Errorf("%s knows %d servers of %d, their leader is %q", s.name, js.Meta.Size, len(c.servers), js.Meta.Leader)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("wait for %s: %w", s.name, err)
	}
	return nil
}

// UntilCurrent waits until server i has all it shall have of its streams.
func (c *NATS) UntilCurrent(ctx context.Context, i int) error {
	s := c.servers[i]
	s.mu.Lock()
	running := s.running
	s.mu.Unlock()
	if running == nil {
		return fmt.Errorf("wait for %s: it does not run", s.name)
	}
	if err := running.until(ctx, func(ctx context.Context) error { return c.monitor(ctx, i, "/healthz", nil) }); err != nil {
		return fmt.Errorf("wait for %s: %w", s.name, err)
	}
	return nil
}

// jsz is what a server's monitor says of JetStream, as far as it is looked at.
type jsz struct {
	Meta struct {
		Leader string `json:"leader"`
		Size   int    `json:"cluster_size"`
	} `json:"meta_cluster"`
	Accounts []struct {
		Streams []struct {
			Name    string `json:"name"`
			Cluster struct {
				Leader string `json:"leader"`
			} `json:"cluster"`
		} `json:"stream_detail"`
	} `json:"account_details"`
}

// monitor asks server i's monitor for a page, and decodes it unless into is nil.
func (c *NATS) monitor(ctx context.Context, i int, page string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.servers[i].monitor+page, http.NoBody)
	if err != nil {
		return err
	}
	res, err := lookClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", page, res.Status)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(res.Body).Decode(into)
}

// Size is the number of servers.
func (c *NATS) Size() int { return len(c.servers) }

// URLs is what a client connects to: all servers, with the password where there is one, separated by commas.
func (c *NATS) URLs() string {
	urls := make([]string, len(c.servers))
	for i := range urls {
		urls[i] = c.URL(i)
	}
	return strings.Join(urls, ",")
}

// URL is server i's. A client that knows this one alone learns of the others from it.
func (c *NATS) URL(i int) string { return c.URLAt(c.servers[i].client) }

// URLAt is URL by way of another address, such as a proxy in front of a server.
func (c *NATS) URLAt(addr string) string {
	u := url.URL{Scheme: "nats", Host: addr}
	if c.options.TLS {
		u.Scheme = "tls"
	}
	if c.options.User != "" {
		u.User = url.UserPassword(c.options.User, c.options.Password)
	}
	return u.String()
}

// Addr is the host:port where server i takes clients.
func (c *NATS) Addr(i int) string { return c.servers[i].client }

// Log is the path of the file with server i's output.
func (c *NATS) Log(i int) string { return c.servers[i].log }

// CAFile is the certificate that TLS clients must trust; CertFile and KeyFile are what they show.
func (c *NATS) CAFile() string { return c.pki.ca }

// CertFile is a client's certificate; see CAFile.
func (c *NATS) CertFile() string { return c.pki.clientCert }

// KeyFile is the key of CertFile.
func (c *NATS) KeyFile() string { return c.pki.clientKey }

// Leader returns the server that leads a stream, by the word of most servers that answer; or an error when there is none.
func (c *NATS) Leader(stream string) (int, error) {
	votes := make([]int, len(c.servers))
	for i := range c.servers {
		var js jsz
		if err := c.monitor(context.Background(), i, "/jsz?streams=true", &js); err != nil {
			continue // it does not run, or is paused
		}
		for _, a := range js.Accounts {
			for _, s := range a.Streams {
				if j := c.number(s.Cluster.Leader); s.Name == stream && j >= 0 {
					votes[j]++
				}
			}
		}
	}
	most := slices.Max(votes)
	if most == 0 {
		return 0, fmt.Errorf("stream %s has no leader", stream)
	}
	return slices.Index(votes, most), nil
}

// number is the number of the server with a name, -1 when there is none.
func (c *NATS) number(name string) int {
	return slices.IndexFunc(c.servers, func(s *natsServer) bool { return s.name == name })
}

// Kill ends server i at once, as kill -9 does, and returns when it is gone.
func (c *NATS) Kill(i int) error { return c.servers[i].kill() }

func (s *natsServer) kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.killLocked()
}

func (s *natsServer) killLocked() error {
	if s.running == nil {
		return nil
	}
	if err := s.running.kill(); err != nil {
		return fmt.Errorf("end %s: %w", s.name, err)
	}
	s.running = nil
	return nil
}

// Pause stops server i's process: connections stay open, and nothing answers.
func (c *NATS) Pause(i int) error { return c.servers[i].signal(syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (c *NATS) Resume(i int) error { return c.servers[i].signal(syscall.SIGCONT) }

func (s *natsServer) signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		return fmt.Errorf("signal %s: it does not run", s.name)
	}
	return s.running.signal(sig)
}

// Launch starts server i again on its files, ending it first when it runs, and does not wait for it.
func (c *NATS) Launch(i int) error {
	s := c.servers[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.killLocked(); err != nil {
		return err
	}
	running, err := startChild(c.program, s.log, "-c", s.config)
	if err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	s.running = running
	return nil
}

// Restart is Launch, and waits until server i is ready: others must run then, enough for a leader.
func (c *NATS) Restart(ctx context.Context, i int) error {
	if err := c.Launch(i); err != nil {
		return err
	}
	return c.untilReady(ctx, i)
}

// Wipe ends server i and removes its files, as if its disk were lost.
func (c *NATS) Wipe(i int) error {
	if err := c.Kill(i); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(c.dir, c.servers[i].name))
}

// Partition cuts server i from the other servers; clients reach it all the same. What is on its way arrives after Heal.
func (c *NATS) Partition(i int) { c.cutLinks(i, true) }

// Heal ends a partition.
func (c *NATS) Heal(i int) { c.cutLinks(i, false) }

func (c *NATS) cutLinks(i int, cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut[i] = cut
	for j, s := range c.servers {
		for k, w := range s.out {
			if c.cut[j] || c.cut[k] {
				w.cut()
			} else {
				w.heal()
			}
		}
	}
}

// CutLink cuts the link between two servers alone: each still reaches the others.
func (c *NATS) CutLink(i, j int) {
	c.servers[i].out[j].cut()
	c.servers[j].out[i].cut()
}

// HealLink ends CutLink.
func (c *NATS) HealLink(i, j int) {
	c.servers[i].out[j].heal()
	c.servers[j].out[i].heal()
}

// Pids returns the processes that run.
func (c *NATS) Pids() []int {
	var pids []int
	for _, s := range c.servers {
		s.mu.Lock()
		if s.running != nil {
			pids = append(pids, s.running.cmd.Process.Pid)
		}
		s.mu.Unlock()
	}
	return pids
}

// CPU returns the processor time that the running servers have used since they were started.
func (c *NATS) CPU() (time.Duration, error) {
	var sum time.Duration
	for _, pid := range c.Pids() {
		t, err := cpuTime(pid)
		if err != nil {
			return 0, fmt.Errorf("processor time of nats: %w", err)
		}
		sum += t
	}
	return sum, nil
}

// Stop ends all servers; their files stay.
func (c *NATS) Stop() error {
	var errs []error
	for _, s := range c.servers {
		errs = append(errs, s.kill())
	}
	for _, s := range c.servers {
		for _, w := range s.out {
			errs = append(errs, w.stop())
		}
		s.out = nil
	}
	return errors.Join(errs...)
}
