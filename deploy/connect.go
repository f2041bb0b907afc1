package deploy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/catalog/postgres"
	"github.com/micromegas-go/micromegas/schemas/lake"
)

// openPostgres opens the catalog's server. Its errors say what is wrong and what to do; none holds the password.
func openPostgres(ctx context.Context, uri string, log *slog.Logger) (catalog.Catalog, error) {
	db, err := postgres.Open(ctx, uri, log)
	if err != nil {
		return nil, err
	}
	return db, nil
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

// startingStates are what PostgreSQL answers while it starts, stops, recovers, or has given all its connections away.
var startingStates = []string{"57P03", "57P01", "57P02", "53300"}

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
	var sql interface{ SQLState() string }
	if errors.As(err, &sql) && slices.Contains(startingStates, sql.SQLState()) {
		return true
	}
	if errors.Is(err, postgres.ErrUnreachable) || errors.Is(err, postgres.ErrReadOnly) { // the latter while a standby takes over
		return true
	}
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, bus.ErrUnreachable) || errors.Is(err, lake.ErrUnreachable) || errors.Is(err, nats.ErrTimeout) ||
		errors.Is(err, nats.ErrNoResponders) || errors.Is(err, context.DeadlineExceeded)
}
