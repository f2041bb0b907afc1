package deploy

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/micromegas-go/micromegas/schemas/bus"
)

// maxQueryTimeout bounds the configured one: the garbage of a lake lives as long as its longest query.
const maxQueryTimeout = 24 * time.Hour

// mistakes collects what is wrong with a configuration, and what to do about it.
type mistakes []error

func (m *mistakes) add(what, mend string) { *m = append(*m, configError{what, mend}) }

// Validate returns every mistake of c, joined.
func (c *Config) Validate() error {
	var m mistakes
	if c.DataDir == "" {
		m.add("the data folder has no name", "set --data or MICROMEGAS_DATA")
	}
	if len(c.Name) > 200 || strings.ContainsFunc(c.Name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		m.add("--name is longer than 200 bytes or not printable", "use letters, digits and dashes")
	}
	c.checkAddresses(&m)
	c.checkStores(&m)
	c.checkBus(&m)
	c.checkRoles(&m)
	c.checkQuery(&m)
	c.checkTelemetry(&m)
	if c.Grace < 0 {
		m.add("--grace is negative", "the default is 25s")
	}
	if c.StartTimeout < 0 {
		m.add("--start-timeout is negative", "the default is 30s")
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		m.add(fmt.Sprintf("--log-format %q is unknown", c.LogFormat), "use text or json")
	}
	return errors.Join(m...)
}

// checkAddresses looks for what cannot be listened on, and for what would be open to strangers.
func (c *Config) checkAddresses(m *mistakes) {
	keys, err := c.keys()
	if err != nil {
		m.add("MICROMEGAS_API_KEYS: "+err.Error(), `write it as [{"name":"ci","key":"secret"}]`)
	}
	check := func(flag, addr string) (host string, ok bool) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			m.add(fmt.Sprintf("%s %q is no address", flag, addr), "write host:port, such as 127.0.0.1:9000")
		}
		return host, err == nil
	}
	served := []struct{ flag, addr string }{{"--http", c.HTTPAddr}}
	if c.hasRole(RoleQuery) {
		served = append(served, struct{ flag, addr string }{"--flight", c.FlightAddr})
	}
	for _, a := range served {
		if host, ok := check(a.flag, a.addr); ok && !isLoopback(host) && keys == nil && !c.DisableAuth {
			m.add(fmt.Sprintf("%s %s is open to the network and there is no key", a.flag, a.addr), "set MICROMEGAS_API_KEYS, or say --disable-auth")
		}
	}
	if c.NATSListen == "" {
		return
	}
	if host, ok := check("--nats-listen", c.NATSListen); ok && !isLoopback(host) && c.NATSToken == "" && !c.DisableAuth {
		m.add(fmt.Sprintf("--nats-listen %s would open the bus to the network without a credential", c.NATSListen), "set MICROMEGAS_NATS_TOKEN, listen on loopback, or say --disable-auth on a network you trust")
	}
}

// bucketSchemes are those of object stores; "" is the folder below the data folder.
var bucketSchemes = []string{"", "file", "mem", "s3", "gs", "azblob"}

// bucketScheme is the kind of the lake's bucket.
func (c *Config) bucketScheme() string {
	scheme, _, _ := strings.Cut(c.ObjectStoreURI, ":")
	return scheme
}

// sharedCatalog says whether the catalog is a server that many processes use.
func (c *Config) sharedCatalog() bool {
	return c.CatalogURI != "" && !strings.HasPrefix(c.CatalogURI, "sqlite:")
}

// checkStores looks at catalog and bucket. Their URIs are not repeated: they may hold secrets.
func (c *Config) checkStores(m *mistakes) {
	if c.sharedCatalog() && !strings.HasPrefix(c.CatalogURI, "postgres://") && !strings.HasPrefix(c.CatalogURI, "postgresql://") {
		m.add("--catalog (MICROMEGAS_SQL_CONNECTION_STRING) is no URI of a known kind", "write postgres://user:password@host:port/database, or leave it out for SQLite in the data folder")
	}
	if path, ok := strings.CutPrefix(c.CatalogURI, "sqlite:"); ok && path != "" {
		m.add("--catalog names a file for SQLite", "the file is catalog.db in the data folder: write sqlite: and set --data")
	}
	if _, err := url.Parse(c.ObjectStoreURI); err != nil || !slices.Contains(bucketSchemes, c.bucketScheme()) {
		m.add(fmt.Sprintf("the object store of scheme %q cannot be opened", c.bucketScheme()), "use file:///folder, mem://, s3://bucket, gs://bucket or azblob://container")
	}
	if c.sharedCatalog() && c.bucketScheme() == "mem" {
		m.add("--object-store mem:// is lost with this process, the catalog in PostgreSQL is not", "name a bucket that lasts as long: s3://bucket, or file:///folder on a shared disk")
	}
	if c.CacheBytes < 1 {
		m.add("--cache-size is not positive", "the default is 8GiB")
	}
}

// checkBus looks at what concerns NATS.
func (c *Config) checkBus(m *mistakes) {
	if c.NATSURLs != "" && c.NATSListen != "" {
		m.add("--nats names a server, and --nats-listen opens one inside this process", "use one of the two")
	}
	for _, f := range []struct{ flag, name string }{{"--nats-creds", c.NATSCreds}, {"--nats-ca", c.NATSCA}, {"--nats-cert", c.NATSCert}, {"--nats-key", c.NATSKey}} {
		if f.name == "" {
			continue
		}
		if c.NATSURLs == "" {
			m.add(f.flag+" is for a server that --nats names, and there is none", "set --nats too, or leave it out")
		} else if _, err := os.Stat(f.name); err != nil {
			m.add(fmt.Sprintf("%s: %v", f.flag, err), "name a file that this process can read")
		}
	}
	if (c.NATSCert == "") != (c.NATSKey == "") {
		m.add("--nats-cert and --nats-key belong together", "set both or none")
	}
	if c.BusShards < 0 || c.BusShards > bus.MaxShards {
		m.add(fmt.Sprintf("--bus-shards %d is not in 1..%d", c.BusShards, bus.MaxShards), "leave it out for the default")
	}
	if c.BusReplicas < 0 || c.BusReplicas > 5 {
		m.add(fmt.Sprintf("--bus-replicas %d is not in 1..5", c.BusReplicas), "leave it out for the default")
	}
	if c.BusReplicas > 1 && c.NATSURLs == "" {
		m.add(fmt.Sprintf("--bus-replicas %d needs as many NATS servers, and the one inside this process is alone", c.BusReplicas), "name a cluster with --nats")
	}
}

// checkRoles refuses a pipeline whose processes could not meet.
func (c *Config) checkRoles(m *mistakes) {
	if len(c.Roles) == 0 || len(c.Roles) == len(allRoles) {
		return
	}
	what := "--roles " + joinRoles(c.Roles) + " splits the pipeline over processes"
	if !c.sharedCatalog() {
		m.add(what, "the SQLite catalog belongs to one process: use --roles all, or name a PostgreSQL with MICROMEGAS_SQL_CONNECTION_STRING")
	}
	if c.NATSURLs == "" && c.NATSListen == "" {
		m.add(what+" and nobody can reach its bus", "name a NATS server with --nats, or let others join with --nats-listen")
	}
	if c.ObjectStoreURI == "" {
		m.add(what+" and each would have a lake of its own", "name one bucket for all with --object-store: s3://bucket, or file:///folder on a shared disk")
	}
}

// checkTelemetry refuses to record this process for nobody.
func (c *Config) checkTelemetry(m *mistakes) {
	switch u, err := url.Parse(c.Telemetry); {
	case c.Telemetry == "" || c.Telemetry == telemetryOff:
	case c.Telemetry == telemetrySelf:
		if !c.hasRole(RoleGateway) {
			m.add("--telemetry self, but this process is no gateway", "name the URL of one")
		}
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		m.add("--telemetry is neither off nor self nor an address", "write http://host:port")
	}
}

// checkQuery looks at the engine's limits.
func (c *Config) checkQuery(m *mistakes) {
	if c.QueryMemory < minQueryMemory {
		m.add("--query-memory is below "+sizeText(minQueryMemory), "give the engine more")
	}
	if c.QueryTimeout <= 0 || c.QueryTimeout > maxQueryTimeout {
		m.add(fmt.Sprintf("--query-timeout %s is not above 0 and at most %s", c.QueryTimeout, maxQueryTimeout), "the default is 60s")
	}
	if c.QueryConcurrency < 1 || c.QueryThreads < 1 {
		m.add("--query-concurrency and --query-threads must be at least 1", "leave them out for the defaults")
	}
}
