package deploy

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/identity"
	"github.com/micromegas-go/micromegas/schemas/lake"
)

// Role is a part of the pipeline that a process can take.
type Role string

// The roles, in the order of the data path.
const (
	RoleGateway       Role = "gateway"
	RoleWorkers       Role = "workers"
	RoleMaterializers Role = "materializers"
	RoleQuery         Role = "query"
)

// allRoles is what one process does by default.
var allRoles = []Role{RoleGateway, RoleWorkers, RoleMaterializers, RoleQuery}

// Config is what a server is told by its flags and environment.
type Config struct {
	DataDir    string // everything that one process keeps: bus, catalog, lake, caches
	HTTPAddr   string // ingestion, /health, /ready, /status
	FlightAddr string // Arrow FlightSQL
	Roles      []Role
	Name       string // of this process among all that live; empty: its host and data folder

	CatalogURI     string // a PostgreSQL server, with its password; empty or sqlite: a file below DataDir
	ObjectStoreURI string // the lake's bucket; empty: a folder below DataDir
	CacheBytes     int64  // bound of the copies of the bucket's objects on the local disk
	BusKeepBytes   int64  // of archived frames on the bus, for late readers

	NATSURLs                  string        // a bus of its own; empty: the embedded server
	NATSCreds                 string        // file with the credentials for it
	NATSCA, NATSCert, NATSKey string        // files for TLS to it: authorities, and this client's certificate
	NATSListen                string        // address on which the embedded server takes other processes; empty: none
	NATSToken                 string        // what it asks of them
	BusShards                 int           // streams of each class; 0: what the catalog remembers, else 1 or 4
	BusReplicas               int           // of each stream; 0: 3 where the cluster has as many servers, else 1
	StartTimeout              time.Duration // for parts that cannot be reached yet

	APIKeys     string // JSON [{"name","key"}]
	DisableAuth bool

	QueryMemory      int64         // bytes that the engine may use in all
	QueryTimeout     time.Duration // longest query
	QueryConcurrency int           // queries at once
	QueryThreads     int

	Telemetry string        // where this process's own goes: off, self, or the URL of a gateway
	Grace     time.Duration // for draining after SIGTERM
	LogLevel  slog.Level
	LogFormat string // text or json
}

// DefaultConfig is right for a laptop: loopback only, no key needed, everything below ./data.
func DefaultConfig() Config {
	return Config{
		DataDir:          "data",
		HTTPAddr:         "127.0.0.1:9000",
		FlightAddr:       "127.0.0.1:50051",
		Roles:            slices.Clone(allRoles),
		CacheBytes:       lake.DefaultCacheBytes,
		BusKeepBytes:     bus.DefaultConfig().KeepArchivedBytes,
		StartTimeout:     30 * time.Second,
		QueryMemory:      1 << 30,
		QueryTimeout:     60 * time.Second,
		QueryConcurrency: 4,
		QueryThreads:     runtime.GOMAXPROCS(0),
		Telemetry:        telemetryOff,
		Grace:            25 * time.Second,
		LogLevel:         slog.LevelInfo,
		LogFormat:        "text",
	}
}

// configError is a mistake in the configuration, with what to do about it.
type configError struct{ what, mend string }

func (e configError) Error() string { return e.what + ": " + e.mend }

// bindConfig declares the flags on fs with c's values as defaults. The returned function completes c after fs has
// parsed; it reports every mistake at once.
func bindConfig(fs *flag.FlagSet, c *Config, getenv func(string) string) func() error {
	env := envReader{getenv: getenv}
	env.text("MICROMEGAS_DATA", &c.DataDir)
	env.text("MICROMEGAS_OBJECT_STORE_URI", &c.ObjectStoreURI)
	env.text("MICROMEGAS_NAME", &c.Name)
	env.text("MICROMEGAS_SQL_CONNECTION_STRING", &c.CatalogURI)
	env.text("MICROMEGAS_NATS_URL", &c.NATSURLs)
	env.text("MICROMEGAS_NATS_CREDS", &c.NATSCreds)
	env.text("MICROMEGAS_NATS_CA", &c.NATSCA)
	env.text("MICROMEGAS_NATS_CERT", &c.NATSCert)
	env.text("MICROMEGAS_NATS_KEY", &c.NATSKey)
	env.text("MICROMEGAS_NATS_TOKEN", &c.NATSToken)
	env.count("MICROMEGAS_BUS_SHARDS", &c.BusShards)
	env.count("MICROMEGAS_BUS_REPLICAS", &c.BusReplicas)
	env.text("MICROMEGAS_API_KEYS", &c.APIKeys)
	env.text("MICROMEGAS_SERVICE_TELEMETRY", &c.Telemetry)
	env.seconds("MICROMEGAS_SHUTDOWN_GRACE_PERIOD_SECONDS", &c.Grace)
	roles := joinRoles(c.Roles)
	env.text("MICROMEGAS_MONOLITH_ROLES", &roles)
	level := c.LogLevel.String()
	memory := sizeText(c.QueryMemory)
	cache := sizeText(c.CacheBytes)
	env.text("MICROMEGAS_CACHE_BYTES", &cache)
	busKeep := sizeText(c.BusKeepBytes)
	env.text("MICROMEGAS_BUS_KEEP_BYTES", &busKeep)

	fs.StringVar(&c.DataDir, "data", c.DataDir, "`folder` for everything that is kept (MICROMEGAS_DATA)")
	fs.StringVar(&c.HTTPAddr, "http", c.HTTPAddr, "listen `address` of ingestion, /health, /ready and /status")
	fs.StringVar(&c.FlightAddr, "flight", c.FlightAddr, "listen `address` of Arrow FlightSQL")
	fs.StringVar(&roles, "roles", roles, "comma-separated `roles` of this process: gateway, workers, materializers, query, or all")
	fs.StringVar(&c.Name, "name", c.Name, "`name` of this process among all of the lake (MICROMEGAS_NAME; default: its host and data folder)")
	stringFlag(fs, &c.CatalogURI, "catalog", "`URI` of the catalog's server, postgres://user:password@host/database (MICROMEGAS_SQL_CONNECTION_STRING; default: a file in the data folder)")
	stringFlag(fs, &c.ObjectStoreURI, "object-store", "`URI` of the lake's bucket: file:///folder, mem://, s3://bucket/prefix?region=…&endpoint=…, gs://bucket/prefix, azblob://container/prefix (MICROMEGAS_OBJECT_STORE_URI; default: lake/ in the data folder)")
	fs.StringVar(&cache, "cache-size", cache, "`size` of the bucket's objects that are kept on the local disk (MICROMEGAS_CACHE_BYTES)")
	stringFlag(fs, &c.NATSURLs, "nats", "comma-separated `URLs` of NATS servers with JetStream (MICROMEGAS_NATS_URL; default: one inside this process)")
	fs.StringVar(&c.NATSCreds, "nats-creds", c.NATSCreds, "`file` with the credentials for NATS (MICROMEGAS_NATS_CREDS)")
	fs.StringVar(&c.NATSCA, "nats-ca", c.NATSCA, "`file` with the authorities that NATS' certificate is checked by (MICROMEGAS_NATS_CA)")
	fs.StringVar(&c.NATSCert, "nats-cert", c.NATSCert, "`file` with this client's certificate for NATS (MICROMEGAS_NATS_CERT)")
	fs.StringVar(&c.NATSKey, "nats-key", c.NATSKey, "`file` with its key (MICROMEGAS_NATS_KEY)")
	fs.StringVar(&c.NATSListen, "nats-listen", c.NATSListen, "`address` on which the inner NATS server takes other processes, who show MICROMEGAS_NATS_TOKEN as nats://token@host:port (default: none)")
	fs.IntVar(&c.BusShards, "bus-shards", c.BusShards, "streams of each class, decided once for a lake (MICROMEGAS_BUS_SHARDS; default: 1 with the inner NATS server, else 4)")
	fs.IntVar(&c.BusReplicas, "bus-replicas", c.BusReplicas, "servers that keep each stream (MICROMEGAS_BUS_REPLICAS; default: 3 in a cluster of three or more, else 1)")
	fs.StringVar(&busKeep, "bus-keep", busKeep, "`size` of what the bus keeps after it was archived, for readers that are late (MICROMEGAS_BUS_KEEP_BYTES)")
	fs.DurationVar(&c.StartTimeout, "start-timeout", c.StartTimeout, "`duration` for which catalog, bucket and bus may be out of reach at the start")
	fs.BoolVar(&c.DisableAuth, "disable-auth", c.DisableAuth, "serve without keys on an address that is not loopback")
	fs.StringVar(&memory, "query-memory", memory, "memory `size` of the SQL engine, such as 512MiB or 2GiB")
	fs.DurationVar(&c.QueryTimeout, "query-timeout", c.QueryTimeout, "longest `duration` of a query")
	fs.IntVar(&c.QueryConcurrency, "query-concurrency", c.QueryConcurrency, "queries that run at once; more wait")
	fs.IntVar(&c.QueryThreads, "query-threads", c.QueryThreads, "threads of the SQL engine")
	fs.DurationVar(&c.Grace, "grace", c.Grace, "`duration` that requests get to finish when the server stops")
	fs.StringVar(&c.Telemetry, "telemetry", c.Telemetry, "where this server's own log, measures and spans go: off, self, or the `URL` of a gateway (MICROMEGAS_SERVICE_TELEMETRY)")
	fs.StringVar(&level, "log-level", level, "debug, info, warn or error")
	fs.StringVar(&c.LogFormat, "log-format", c.LogFormat, "text or json")

	return func() error {
		errs := env.errs
		var err error
		if parsed, err := parseRoles(roles); err != nil {
			errs = append(errs, err)
		} else {
			c.Roles = parsed
		}
		if err := c.LogLevel.UnmarshalText([]byte(level)); err != nil {
			errs = append(errs, configError{fmt.Sprintf("--log-level %q is unknown", level), "use debug, info, warn or error"})
		}
		if c.QueryMemory, err = parseSize(memory); err != nil {
			errs = append(errs, fmt.Errorf("--query-memory: %w", err))
		}
		if c.CacheBytes, err = parseSize(cache); err != nil {
			errs = append(errs, fmt.Errorf("--cache-size: %w", err))
		}
		if c.BusKeepBytes, err = parseSize(busKeep); err != nil {
			errs = append(errs, fmt.Errorf("--bus-keep: %w", err))
		}
		return errors.Join(append(errs, c.Validate())...)
	}
}

// minQueryMemory is what DuckDB needs to open files and sort a little.
const minQueryMemory = 64 << 20

// hasRole says whether this process takes r.
func (c *Config) hasRole(r Role) bool { return slices.Contains(c.Roles, r) }

// keys are the credentials that callers may show; nil when none are configured.
func (c *Config) keys() (*identity.Keys, error) {
	if c.APIKeys == "" {
		return nil, nil
	}
	return identity.ParseKeys(c.APIKeys)
}

// lakeURI is where the lake's objects are.
func (c *Config) lakeURI() (string, error) {
	if c.ObjectStoreURI != "" {
		return c.ObjectStoreURI, nil
	}
	uri, err := lake.FolderURI(filepath.Join(c.DataDir, "lake"))
	if err != nil {
		return "", fmt.Errorf("name the lake's folder: %w", err)
	}
	return uri, nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func joinRoles(roles []Role) string {
	var b strings.Builder
	for i, r := range roles {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(string(r))
	}
	return b.String()
}

func parseRoles(text string) ([]Role, error) {
	if text == "all" {
		return slices.Clone(allRoles), nil
	}
	var roles []Role
	for name := range strings.SplitSeq(text, ",") {
		r := Role(strings.TrimSpace(name))
		if !slices.Contains(allRoles, r) {
			return nil, configError{fmt.Sprintf("--roles names %q", string(r)), "the roles are gateway, workers, materializers, query, or all"}
		}
		if !slices.Contains(roles, r) {
			roles = append(roles, r)
		}
	}
	return roles, nil
}

// stringFlag declares a flag whose default may hold a password, which --help must not print.
func stringFlag(fs *flag.FlagSet, dst *string, name, usage string) {
	fs.Func(name, usage, func(v string) error {
		*dst = v
		return nil
	})
}

// envReader collects the mistakes of environment variables.
type envReader struct {
	getenv func(string) string
	errs   []error
}

func (e *envReader) text(name string, dst *string) {
	if v := e.getenv(name); v != "" {
		*dst = v
	}
}

func (e *envReader) count(name string, dst *int) {
	v := e.getenv(name)
	if v == "" {
		return
	}
	n, err := strconv.ParseUint(v, 10, 31)
	if err != nil {
		e.errs = append(e.errs, configError{fmt.Sprintf("%s is %q", name, v), "write a number"})
		return
	}
	*dst = int(n)
}

func (e *envReader) seconds(name string, dst *time.Duration) {
	v := e.getenv(name)
	if v == "" {
		return
	}
	n, err := strconv.ParseUint(v, 10, 31)
	if err != nil {
		e.errs = append(e.errs, configError{fmt.Sprintf("%s is %q", name, v), "write a number of seconds"})
		return
	}
	*dst = time.Duration(n) * time.Second
}

// sizeUnits are the suffixes of a size, largest first.
var sizeUnits = []struct {
	suffix string
	bytes  int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"B", 1}, {"", 1}}

// parseSize reads a number with a unit, or of bytes without one.
func parseSize(text string) (int64, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 0 {
		return n, nil
	}
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err != nil || n <= 0 || n > (1<<62)/u.bytes {
			break
		}
		return n * u.bytes, nil
	}
	return 0, configError{fmt.Sprintf("%q is no size", text), "write a number of bytes, or one with a unit, such as 512MiB"}
}

func sizeText(n int64) string {
	for _, u := range sizeUnits[:3] {
		if n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}
