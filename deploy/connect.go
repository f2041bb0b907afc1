package deploy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/lake"
)

// openPostgres opens the catalog's server.
func openPostgres(context.Context, string, *slog.Logger) (catalog.Catalog, error) {
	return nil, configError{"this program has no PostgreSQL in it", "unset MICROMEGAS_SQL_CONNECTION_STRING"}
}

// natsTry bounds one try to connect; patiently tries again.
const natsTry = 5 * time.Second

// connectNATS connects to the servers that the configuration names.
func (c *Config) connectNATS(ctx context.Context, log *slog.Logger) (*nats.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, natsTry)
	defer cancel()
	conn, err := bus.Connect(ctx, bus.ConnectOptions{
		URLs: c.NATSURLs, CredsFile: c.NATSCreds, CAFile: c.NATSCA, CertFile: c.NATSCert, KeyFile: c.NATSKey, Log: log,
	})
	switch {
	case errors.Is(err, bus.ErrCredentials):
		return nil, configError{err.Error(), "check MICROMEGAS_NATS_CREDS, or the user and password in MICROMEGAS_NATS_URL"}
	case errors.Is(err, bus.ErrUntrusted):
		return nil, configError{err.Error(), "check MICROMEGAS_NATS_CA, MICROMEGAS_NATS_CERT and MICROMEGAS_NATS_KEY"}
	case errors.Is(err, bus.ErrNoJetStream):
		return nil, configError{err.Error(), "start the server with JetStream and a store folder (nats-server -js -sd FOLDER)"}
	}
	return conn, err
}

// mayComeUp reports whether an error says that a part is not there, or not ready, rather than that it refuses.
func mayComeUp(err error) bool {
	if _, ok := errors.AsType[configError](err); ok {
		return false
	}
	if _, ok := errors.AsType[*busHeldError](err); ok { // by a process that may have been killed a moment ago
		return true
	}
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		return api.Code == http.StatusServiceUnavailable // a cluster that has no leader yet
	}
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, bus.ErrUnreachable) || errors.Is(err, lake.ErrUnreachable) || errors.Is(err, nats.ErrTimeout) ||
		errors.Is(err, nats.ErrNoResponders) || errors.Is(err, context.DeadlineExceeded)
}
