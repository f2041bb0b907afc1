package deploy

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

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

	ObjectStoreURI string // the lake's bucket; empty: a folder below DataDir
	NATSURLs       string // a bus of its own; empty: the embedded server
	NATSListen     string // address on which the embedded server takes other processes; empty: none

	APIKeys     string // JSON [{"name","key"}]
	DisableAuth bool

	QueryMemory      int64         // bytes that the engine may use in all
	QueryTimeout     time.Duration // longest query
	QueryConcurrency int           // queries at once
	QueryThreads     int

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
		QueryMemory:      1 << 30,
		QueryTimeout:     60 * time.Second,
		QueryConcurrency: 4,
		QueryThreads:     runtime.GOMAXPROCS(0),
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
	env.text("MICROMEGAS_NATS_URL", &c.NATSURLs)
	env.text("MICROMEGAS_API_KEYS", &c.APIKeys)
	env.seconds("MICROMEGAS_SHUTDOWN_GRACE_PERIOD_SECONDS", &c.Grace)
	roles := joinRoles(c.Roles)
	env.text("MICROMEGAS_MONOLITH_ROLES", &roles)
	catalogURI := getenv("MICROMEGAS_SQL_CONNECTION_STRING")
	level := c.LogLevel.String()
	memory := sizeText(c.QueryMemory)

	fs.StringVar(&c.DataDir, "data", c.DataDir, "`folder` for everything that is kept (MICROMEGAS_DATA)")
	fs.StringVar(&c.HTTPAddr, "http", c.HTTPAddr, "listen `address` of ingestion, /health, /ready and /status")
	fs.StringVar(&c.FlightAddr, "flight", c.FlightAddr, "listen `address` of Arrow FlightSQL")
	fs.StringVar(&roles, "roles", roles, "comma-separated `roles` of this process: gateway, workers, materializers, query, or all")
	fs.StringVar(&c.ObjectStoreURI, "object-store", c.ObjectStoreURI, "`URI` of the lake's bucket, file:///folder or mem:// (MICROMEGAS_OBJECT_STORE_URI; default: lake/ in the data folder)")
	fs.StringVar(&c.NATSURLs, "nats", c.NATSURLs, "comma-separated `URLs` of a NATS server with JetStream (MICROMEGAS_NATS_URL; default: one inside this process)")
	fs.StringVar(&c.NATSListen, "nats-listen", c.NATSListen, "`address` on which the inner NATS server takes connections (default: none)")
	fs.BoolVar(&c.DisableAuth, "disable-auth", c.DisableAuth, "serve without keys on an address that is not loopback")
	fs.StringVar(&memory, "query-memory", memory, "memory `size` of the SQL engine, such as 512MiB or 2GiB")
	fs.DurationVar(&c.QueryTimeout, "query-timeout", c.QueryTimeout, "longest `duration` of a query")
	fs.IntVar(&c.QueryConcurrency, "query-concurrency", c.QueryConcurrency, "queries that run at once; more wait")
	fs.IntVar(&c.QueryThreads, "query-threads", c.QueryThreads, "threads of the SQL engine")
	fs.DurationVar(&c.Grace, "grace", c.Grace, "`duration` that requests get to finish when the server stops")
	fs.StringVar(&level, "log-level", level, "debug, info, warn or error")
	fs.StringVar(&c.LogFormat, "log-format", c.LogFormat, "text or json")

	return func() error {
		errs := env.errs
		var err error
		if c.Roles, err = parseRoles(roles); err != nil {
			errs = append(errs, err)
		}
		if err := c.LogLevel.UnmarshalText([]byte(level)); err != nil {
			errs = append(errs, configError{fmt.Sprintf("--log-level %q is unknown", level), "use debug, info, warn or error"})
		}
		if c.QueryMemory, err = parseSize(memory); err != nil {
			errs = append(errs, fmt.Errorf("--query-memory: %w", err))
		}
		if catalogURI != "" && !strings.HasPrefix(catalogURI, "sqlite:") {
			errs = append(errs, configError{"MICROMEGAS_SQL_CONNECTION_STRING names a server", "this release keeps its catalog in SQLite below the data folder; unset the variable"})
		}
		return errors.Join(append(errs, c.Validate())...)
	}
}

// Validate returns every mistake of c, joined.
func (c *Config) Validate() error {
	var errs []error
	fail := func(what, mend string) { errs = append(errs, configError{what, mend}) }
	if c.DataDir == "" {
		fail("the data folder has no name", "set --data or MICROMEGAS_DATA")
	}
	keys, err := c.keys()
	if err != nil {
		fail("MICROMEGAS_API_KEYS: "+err.Error(), `write it as [{"name":"ci","key":"secret"}]`)
	}
	for _, a := range []struct{ flag, addr string }{{"--http", c.HTTPAddr}, {"--flight", c.FlightAddr}, {"--nats-listen", c.NATSListen}} {
		if a.addr == "" && a.flag == "--nats-listen" {
			continue
		}
		host, _, err := net.SplitHostPort(a.addr)
		if err != nil {
			fail(fmt.Sprintf("%s %q is no address", a.flag, a.addr), "write host:port, such as 127.0.0.1:9000")
			continue
		}
		if a.flag != "--nats-listen" && !isLoopback(host) && keys == nil && !c.DisableAuth {
			fail(fmt.Sprintf("%s %s is open to the network and there is no key", a.flag, a.addr), "set MICROMEGAS_API_KEYS, or say --disable-auth")
		}
		if a.flag == "--nats-listen" && !isLoopback(host) && !c.DisableAuth {
			fail(fmt.Sprintf("%s %s would open the bus to the network without a credential", a.flag, a.addr), "listen on loopback, or say --disable-auth on a network you trust")
		}
	}
	if len(c.Roles) > 0 && len(c.Roles) < len(allRoles) {
		fail("--roles "+joinRoles(c.Roles)+" splits the pipeline over processes", "the SQLite catalog belongs to one process: use --roles all")
	}
	if c.ObjectStoreURI != "" {
		u, err := url.Parse(c.ObjectStoreURI)
		if err != nil || (u.Scheme != "file" && u.Scheme != "mem") {
			scheme, _, _ := strings.Cut(c.ObjectStoreURI, ":") // the rest may hold a secret
			fail(fmt.Sprintf("the object store of scheme %q cannot be opened", scheme), "use file:///folder or mem://")
		}
	}
	if c.QueryMemory < minQueryMemory {
		fail("--query-memory is below "+sizeText(minQueryMemory), "give the engine more")
	}
	if c.QueryTimeout <= 0 {
		fail("--query-timeout must be positive", "the default is 60s")
	}
	if c.QueryConcurrency < 1 || c.QueryThreads < 1 {
		fail("--query-concurrency and --query-threads must be at least 1", "leave them out for the defaults")
	}
	if c.Grace < 0 {
		fail("--grace is negative", "the default is 25s")
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		fail(fmt.Sprintf("--log-format %q is unknown", c.LogFormat), "use text or json")
	}
	return errors.Join(errs...)
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
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"B", 1}}

func parseSize(text string) (int64, error) {
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
	return 0, configError{fmt.Sprintf("%q is no size", text), "write a number with a unit, such as 512MiB"}
}

func sizeText(n int64) string {
	for _, u := range sizeUnits[:3] {
		if n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}
