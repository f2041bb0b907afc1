package deploy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/micromegas-go/micromegas/gateway"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/bus/embedded"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/ownership"
	"github.com/micromegas-go/micromegas/schemas/catalog/sqlite"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/workers/archive"
)

// Pauses between tries to reach a part at the start.
const (
	reachPauseMin = 100 * time.Millisecond
	reachPauseMax = 2 * time.Second
)

// patiently returns open with tries: containers start in any order, so a part that cannot be reached may only be not up
// yet. What will not change by waiting fails at once.
func (s *Stack) patiently(open func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		deadline := s.started.Add(s.cfg.StartTimeout)
		for pause := reachPauseMin; ; pause = min(2*pause, reachPauseMax) {
			err := open(ctx)
			if err == nil || !mayComeUp(err) || ctx.Err() != nil || time.Now().Add(pause).After(deadline) {
				return err
			}
			if pause == reachPauseMin {
				s.log.Info("a part cannot be reached yet, it is tried again", "for", s.cfg.StartTimeout, "error", err)
			}
			timer := time.NewTimer(pause)
			select {
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			case <-timer.C:
			}
		}
	}
}

// openFolder locks the data folder, and names the process.
func (s *Stack) openFolder(context.Context) error {
	dir, err := filepath.Abs(s.cfg.DataDir)
	if err != nil {
		return err
	}
	s.cfg.DataDir = dir
	unlock, err := lockFolder(dir)
	if err != nil {
		return err
	}
	s.onClose(func() error { unlock(); return nil })
	s.name = s.cfg.Name
	if s.name == "" {
		s.name = processName(dir)
	}
	return nil
}

// processName is the default name under which a process holds leases. It is the same after a restart, so that a process
// that was killed need not wait for its own leases to expire; the lock of the data folder keeps it unique on the machine.
func processName(dir string) string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return host + ":" + dir
}

// guardSpace refuses data while a local disk that keeps it is nearly full. Disks of other machines are theirs to guard.
func (s *Stack) guardSpace() {
	var checks []func() error
	if s.nats != nil || !s.cfg.sharedCatalog() {
		checks = append(checks, gateway.FreeSpace(s.cfg.DataDir, nil))
	}
	if root := s.lake.Root(); root != "" && s.cfg.ObjectStoreURI != "" {
		checks = append(checks, gateway.FreeSpace(root, nil))
	}
	s.space = func() error {
		for _, check := range checks {
			if err := check(); err != nil {
				return err
			}
		}
		return nil
	}
}

func (s *Stack) openCatalog(ctx context.Context) error {
	cat, err := s.cfg.openCatalog(ctx, s.path("catalog.db"), s.log)
	if err != nil {
		return err
	}
	s.onClose(cat.Close)
	s.catalog = cat
	s.keeper = ownership.NewKeeper(ownership.DefaultConfig(), cat, s.name, s.log)
	return nil
}

// openCatalog opens the server that the configuration names, or the file at path.
func (c *Config) openCatalog(ctx context.Context, path string, log *slog.Logger) (catalog.Catalog, error) {
	if c.sharedCatalog() {
		return openPostgres(ctx, c.CatalogURI, log)
	}
	return sqlite.Open(ctx, path, log)
}

func (s *Stack) openLake(ctx context.Context) (err error) {
	uri, err := s.cfg.lakeURI()
	if err != nil {
		return err
	}
	l, err := lake.Open(ctx, uri, lake.Options{
		CacheDir: s.path(filepath.Join("cache", "lake")), CacheBytes: s.cfg.CacheBytes, WarmOnPut: s.cfg.hasRole(RoleQuery),
	})
	if err != nil {
		return err
	}
	err = pingLake(ctx, l)
	if err == nil {
		err = bindLake(ctx, l, s.catalog)
	}
	if err != nil {
		return errors.Join(err, l.Close())
	}
	s.onClose(l.Close)
	s.lake = l
	if strings.HasPrefix(uri, "mem:") {
		s.log.Warn("the lake is in memory: what is acknowledged is lost when this process ends, and the data folder cannot be served again")
	}
	return nil
}

// lakeTry bounds one try to reach the bucket; patiently tries again.
const lakeTry = 10 * time.Second

// pingLake finds out in one sentence what keeps this process from the bucket.
func pingLake(ctx context.Context, l *lake.Lake) error {
	ctx, cancel := context.WithTimeout(ctx, lakeTry)
	defer cancel()
	return l.Ping(ctx)
}

// bindLake makes sure that this program, the bucket and the catalog belong together.
func bindLake(ctx context.Context, l *lake.Lake, cat catalog.Catalog) error {
	err := l.CheckLayout(ctx, cat)
	if err == nil {
		err = l.Bind(ctx, cat)
	}
	switch {
	case errors.Is(err, lake.ErrForeign):
		return configError{err.Error(), "name the bucket that was used with this catalog, or start with an empty catalog (data folder) and an empty bucket"}
	case errors.Is(err, lake.ErrNewerLayout):
		return configError{err.Error(), "start that release on it; an older one would damage it"}
	}
	return err
}

// connectBus connects to the NATS server that the configuration names, or starts one inside this process.
func (s *Stack) connectBus(ctx context.Context) error {
	if s.cfg.NATSURLs != "" {
		conn, err := s.cfg.connectNATS(ctx, s.log)
		if err != nil {
			return err
		}
		s.conn = conn
		s.onClose(func() error { conn.Close(); return nil })
		return nil
	}
	if err := s.claimBus(ctx); err != nil {
		return err
	}
	srv, err := embedded.Start(embedded.Options{StoreDir: s.path("bus"), Listen: s.cfg.NATSListen, Token: s.cfg.NATSToken, Anybody: s.cfg.DisableAuth, Log: s.log})
	if err != nil {
		return err
	}
	s.onClose(func() error { srv.Shutdown(); return nil })
	conn, err := srv.Connect()
	if err != nil {
		return fmt.Errorf("connect in process: %w", err)
	}
	s.onClose(func() error { conn.Close(); return nil })
	s.nats, s.conn = srv, conn
	return nil
}

// busRole is the lease of the process whose inner server is the bus. Two such buses on one catalog would take each
// other's streams for lost ones.
const busRole = "bus"

// claimBus makes this process the one with the bus inside.
func (s *Stack) claimBus(ctx context.Context) error {
	if !s.cfg.sharedCatalog() {
		return nil
	}
	_, err := s.catalog.AcquireLease(ctx, busRole, s.name, s.keeper.Config().Expiry)
	if held, ok := errors.AsType[*catalog.HeldError](err); ok {
		return &busHeldError{held}
	}
	if err != nil {
		return fmt.Errorf("claim the bus: %w", err)
	}
	s.goPart("bus lease", func(ctx context.Context) error {
		s.keeper.Share(ctx, busRole, []string{busRole}, func(ctx context.Context, _ catalog.Lease) error {
			<-ctx.Done()
			return nil
		})
		return nil
	})
	return nil
}

// busHeldError says that another process has the bus of this catalog inside.
type busHeldError struct{ held *catalog.HeldError }

func (e *busHeldError) Error() string {
	return fmt.Sprintf("the bus of this catalog is inside process %s: start that one with --nats-listen and join it with --nats", e.held.Owner)
}

func (s *Stack) openBus(ctx context.Context) error {
	bc := bus.DefaultConfig()
	var err error
	if bc.Catalog, _, err = s.catalog.Setting(ctx, lake.SettingID); err != nil {
		return err
	}
	if bc.ShardsPerClass, err = s.shardsPerClass(ctx); err != nil {
		return err
	}
	bc.Replicas = s.cfg.BusReplicas
	bc.KeepArchivedBytes = s.cfg.BusKeepBytes
	bc.MaxBytes = max(bc.MaxBytes, 2*bc.KeepArchivedBytes)
	b, err := bus.Open(ctx, s.conn, archive.Generations{Catalog: s.catalog}, s.lake, bc, s.log)
	if err != nil {
		return err
	}
	s.onClose(b.Close)
	s.bus = b
	s.guardSpace()
	if s.nats != nil {
		if err := s.nats.SyncFolders(); err != nil { // of the streams that were made now
			return err
		}
		s.goPart("bus guard", s.guardBus)
	}
	return nil
}

const (
	// settingShards holds how many streams of each class the lake's bus has. A process that counted otherwise would look for
	// records where they are not.
	settingShards = "bus_shards_per_class"
	// defaultShards is for a bus of its own; the one inside a process serves that process alone, or few.
	defaultShards = 4
)

// shardsPerClass returns what the catalog remembers, and decides it for a new lake.
func (s *Stack) shardsPerClass(ctx context.Context) (int, error) {
	want := s.cfg.BusShards
	if want == 0 && s.nats != nil {
		want = 1
	}
	if want == 0 {
		want = defaultShards
	}
	known, err := s.catalog.Generations(ctx) // of a lake that was made before the setting
	if err != nil {
		return 0, fmt.Errorf("read generations: %w", err)
	}
	if len(known) > 0 {
		want = 1
	}
	for _, g := range known {
		want = max(want, int(g.Shard)+1)
	}
	stands, err := s.catalog.PutSettingIfAbsent(ctx, settingShards, strconv.Itoa(want))
	if err != nil {
		return 0, fmt.Errorf("remember the number of shards: %w", err)
	}
	n, err := strconv.Atoi(stands)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("the catalog's setting %s is %q, no number of shards", settingShards, stands)
	}
	if s.cfg.BusShards != 0 && s.cfg.BusShards != n {
		return 0, configError{fmt.Sprintf("--bus-shards is %d, and this lake was made with %d", s.cfg.BusShards, n), fmt.Sprintf("leave it out, or say %d: the number is fixed for the life of a lake", n)}
	}
	return n, nil
}

// busGuardInterval is how often the embedded server is looked at: a full disk must be over within 10 s of there being
// space again, and a look costs microseconds.
const busGuardInterval = 500 * time.Millisecond

// guardBus restarts the embedded server after a store error. JetStream refuses every write after the first that failed,
// also when there is space again; a restart recovers what is on disk and loses nothing that was acknowledged.
func (s *Stack) guardBus(ctx context.Context) error {
	tick := time.NewTicker(busGuardInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		broken := s.nats.Healthy()
		if broken == nil || s.space() != nil {
			continue // a restart on a full disk would only fail again
		}
		s.log.Warn("bus restarted after a store error", "error", broken)
		if err := s.nats.Restart(); err != nil {
			s.log.Error("bus restart failed", "error", err)
		}
	}
}
