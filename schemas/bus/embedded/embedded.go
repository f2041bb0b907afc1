// Package embedded runs a NATS server with JetStream inside this process: the bus of a single process, and of tests.
//
// Files are synced before JetStream acknowledges (SyncAlways); JetStream's own default is to sync every two minutes,
// which loses acknowledged data with the machine's power. The server does not fsync the folders that it makes for a
// new stream: whoever made streams calls SyncFolders before it publishes on them. Start and Restart sync what they find, also
// the files: a process that was killed may have written a message that was not synced, which readers would see now and
// a power loss would still take away.
//
// Assumed of the file system: fsync of a file makes durable its bytes, its length and the name under which it was
// created (a stream goes on in a new file every few MB, whose folder the server does not fsync); fsync of a folder makes
// its names durable; rename is atomic. ext4, xfs, btrfs and zfs do all of it.
//
// A store that met a full disk or another write error stays refused until the server starts anew, even when there is
// space again. Healthy notices it, Restart brings the service back. A Server is a handle that stays good across
// Restart: connections made by Connect reconnect by themselves, and whoever published without an answer publishes
// again under the same message id.
//
// # A second machine
//
// With Options.Listen the server also takes connections from other processes, so that another machine can share the bus: the
// first one listens on an address of its network with a token, and the second is given the URL nats://token@first:4222 as its
// bus (bus.Connect), with the catalog and the object store that the first one uses. Whoever may connect may read and write
// everything on the bus, so an address that other machines reach is refused without a token, unless Options.Anybody says
// that the network itself keeps others out. The connection is not encrypted. There is one copy of the bus, and it is away while
// the first machine is: what must survive that is a cluster of three servers of its own. Connect brings the token with it.
package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/micromegas-go/micromegas/schemas/bus"
)

const (
	// MaxPayload is the server's limit for one message: a frame of 1 MiB and room for what the bus leaves to headers.
	MaxPayload = 1<<20 + 64<<10
	// startTimeout bounds a start, which recovers streams (~0.8 s per GB kept).
	startTimeout = 30 * time.Second
	// readyStep is how often a start is asked whether it has failed.
	readyStep = 100 * time.Millisecond
	// shutdownTimeout bounds how long a stop waits for the server's goroutines.
	shutdownTimeout = 10 * time.Second
	// reconnectWait is the pause between two tries of a connection to come back: short, because Restart is (~30 ms).
	reconnectWait = 10 * time.Millisecond
	// MaxPending is what one slow connection may owe before the server drops it: several read-aheads of a reader.
	MaxPending = 128 << 20
	// unlimitedStore stands for no limit of JetStream's own: by default it would refuse streams whose bounds together
	// exceed three quarters of the space that is free at the start.
	unlimitedStore = 1 << 50
)

// ErrStopped says that the server does not run: after Shutdown, or after a Restart that failed.
var ErrStopped = errors.New("embedded server is stopped")

// Options of a Server.
type Options struct {
	StoreDir string // folder of the streams, made when missing
	// Listen is the host:port for other processes; empty means in process only. Port 0 picks one, and Restart keeps it.
	Listen  string
	Token   string // what connections must show; empty: nothing, and then only this machine may be listened to
	Anybody bool   // listens without a token to other machines too: the network keeps strangers out

	MaxStore int64        // bytes of file storage that JetStream may promise to streams; 0 = no limit of its own
	Log      *slog.Logger // nil = silent
}

// Server is an embedded server.
type Server struct {
	options *server.Options
	log     *slog.Logger

	mu  sync.Mutex // serialises Restart and Shutdown, guards the field below
	now *server.Server
}

var _ nats.InProcessConnProvider = (*Server)(nil)

// Start starts a server on o.StoreDir and waits until it serves. It must be stopped with Shutdown.
func Start(o Options) (*Server, error) {
	if o.StoreDir == "" {
		return nil, errors.New("embedded server: no store folder")
	}
	if o.MaxStore <= 0 {
		o.MaxStore = unlimitedStore
	}
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{log: log, options: &server.Options{
		ServerName:        "micromegas",
		JetStream:         true,
		StoreDir:          o.StoreDir,
		SyncAlways:        true,
		JetStreamMaxStore: o.MaxStore,
		MaxPayload:        MaxPayload,
		MaxPending:        MaxPending,
		Authorization:     o.Token,
		DontListen:        o.Listen == "",
		NoSigs:            true,
	}}
	if o.Listen != "" {
		if err := s.listenOn(o); err != nil {
			return nil, err
		}
	}
	now, err := s.start()
	if err != nil {
		return nil, err
	}
	s.now = now
	return s, nil
}

// ErrOpen says that a server would listen to everybody.
var ErrOpen = errors.New("other machines could connect without a token: set one, or listen on loopback")

func (s *Server) listenOn(o Options) error {
	host, text, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return fmt.Errorf("embedded server: listen address %q: %w", o.Listen, err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return fmt.Errorf("embedded server: listen address %q: %w", o.Listen, err)
	}
	if o.Token == "" && !o.Anybody && !isLoopback(host) {
		return fmt.Errorf("embedded server: listen on %s: %w", o.Listen, ErrOpen)
	}
	s.options.Host, s.options.Port = host, int(port)
	if port == 0 {
		s.options.Port = server.RANDOM_PORT
	}
	return nil
}

// isLoopback says whether only this machine reaches host.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// start starts a server with s.options, which it leaves alone.
func (s *Server) start() (*server.Server, error) {
	options := s.options.Clone()
	now, err := server.NewServer(options)
	if err != nil {
		return nil, fmt.Errorf("embedded server: %w", err)
	}
	fatal := make(chan string, 1)
	now.SetLogger(serverLog{s.log, fatal}, false, false)
	go now.Start() // returns once the server serves; Shutdown ends what it started
	if err := ready(now, fatal); err != nil {
		stop(now)
		return nil, fmt.Errorf("embedded server on %s: %w", options.StoreDir, err)
	}
	if err := s.syncStore(true); err != nil { // nobody is connected yet
		stop(now)
		return nil, fmt.Errorf("embedded server: %w", err)
	}
	if address, ok := now.Addr().(*net.TCPAddr); ok && !options.DontListen {
		s.options.Port = address.Port // clients come back to the same one
	}
	return now, nil
}

// ready waits until a server serves, or has said that it never will.
func ready(now *server.Server, fatal <-chan string) error {
	deadline := time.Now().Add(startTimeout)
	for !now.ReadyForConnections(readyStep) {
		select {
		case text := <-fatal:
			return errors.New(text)
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready after %v", startTimeout)
		}
	}
	if !now.JetStreamEnabled() {
		return errors.New("JetStream did not start")
	}
	return nil
}

// stop shuts a server down and waits for it, within a bound: a disk that hangs must not hang the caller.
func stop(now *server.Server) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		now.Shutdown()
		now.WaitForShutdown()
	}()
	select {
	case <-done:
	case <-time.After(shutdownTimeout):
	}
}

// InProcessConn implements nats.InProcessConnProvider with whatever server runs now.
func (s *Server) InProcessConn() (net.Conn, error) {
	s.mu.Lock()
	now := s.now
	s.mu.Unlock()
	if now == nil {
		return nil, ErrStopped
	}
	return now.InProcessConn()
}

// Connect returns a connection in process. It reconnects after Restart, forever; while it is cut, publishing on it
// fails at once instead of being buffered. The caller closes it.
func (s *Server) Connect() (*nats.Conn, error) {
	nc, err := nats.Connect("", append(bus.ConnOptions(s.log), nats.InProcessServer(s), nats.Token(s.options.Authorization),
		nats.ReconnectWait(reconnectWait), nats.ReconnectJitter(0, 0), nats.IgnoreDiscoveredServers(), nats.SkipHostLookup())...)
	if err != nil {
		return nil, fmt.Errorf("connect to the embedded server: %w", err)
	}
	return nc, nil
}

// ClientURL is where other processes connect, without the token; empty when the server is in process only.
func (s *Server) ClientURL() string {
	if s.options.DontListen {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == nil {
		return ""
	}
	return s.now.ClientURL()
}

// Healthy returns nil while the server runs, JetStream is on, and no stream has met a write error. Any other answer
// lasts until Restart. It is cheap: it writes nothing.
func (s *Server) Healthy() error {
	s.mu.Lock()
	now := s.now
	s.mu.Unlock()
	if now == nil || !now.Running() {
		return ErrStopped
	}
	if status := now.Healthz(nil); status.Status != "ok" {
		return fmt.Errorf("embedded server: %s", status.Error)
	}
	return nil
}

// SyncFolders makes durable the names of all folders and files of the streams that exist now. Before it returned, a
// message on a new stream is acknowledged, but a power loss may take the stream's folder and the message with it.
func (s *Server) SyncFolders() error { return s.syncStore(false) }

// syncStore syncs all folders of the store, and the one above it for its name; with files, the streams' files too.
func (s *Server) syncStore(files bool) error {
	root := filepath.Clean(s.options.StoreDir)
	if err := syncPath(filepath.Dir(root)); err != nil {
		return err
	}
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && path != root: // the server removed it meanwhile
			return nil
		case err != nil:
			return fmt.Errorf("sync store: %w", err)
		case entry.IsDir() || (files && entry.Type().IsRegular()):
			return syncPath(path)
		}
		return nil
	})
}

// syncPath syncs a file or a folder, unless the server has removed it.
func syncPath(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sync store: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync store: %w", err)
	}
	return nil
}

// Restart stops the server and starts it again on the same folder and port. When it cannot start (the disk is still
// full, say) the server stays stopped, and Restart may be called again.
func (s *Server) Restart() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.now; old != nil {
		s.now = nil
		stop(old)
	}
	now, err := s.start()
	if err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	s.now = now
	return nil
}

// Shutdown stops the server; what was acknowledged is on disk.
func (s *Server) Shutdown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now != nil {
		stop(s.now)
		s.now = nil
	}
}
