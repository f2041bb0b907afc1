package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// maxConns bounds the connections of one process, unless the connection string has pool_max_conns: managed services allow
	// some hundred for all.
	maxConns = 8
	// maxIdle is when a connection that nobody used is closed.
	maxIdle = 5 * time.Minute
	// connectTimeout bounds making one connection, unless the connection string has connect_timeout.
	connectTimeout = 5 * time.Second
	// pingTimeout bounds the check of a connection that was idle.
	pingTimeout = 3 * time.Second
)

// keepAlive has the kernel find a host that vanished while a connection is idle, after half a minute.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// What Open can find wrong. Each is a sentence to an operator.
var (
	// ErrConnString: the connection string has not the right form.
	ErrConnString = errors.New("the connection string is not of the form postgres://user:password@host:port/database?sslmode=…; " +
		"percent-encode special characters in user and password")
	// ErrUnreachable: no server answers.
	ErrUnreachable = errors.New("no PostgreSQL answers there: check host, port, sslmode, and that the server runs")
	// ErrPasswordRefused: the server refuses user or password.
	ErrPasswordRefused = errors.New("the server refuses this user or password: check the credentials in the connection string")
	// ErrDatabaseMissing: the server has no such database.
	ErrDatabaseMissing = errors.New("the database does not exist: create it, owned by the user of the connection string")
	// ErrForbidden: the role may not do what the catalog needs.
	ErrForbidden = errors.New("the user may not create or change tables: make it the owner of the database, or of the schema that comes first in its search_path")
	// ErrReadOnly: the server takes no writes. A commit may meet it too, after a failover.
	ErrReadOnly = errors.New("the server takes no writes: it is a standby, or default_transaction_read_only is on; name the primary, or all hosts")
)

// configure reads a connection string. Its errors do not quote it, since a wrong one may have its password anywhere.
func configure(connString string) (*pgxpool.Config, error) {
	plain, err := pgx.ParseConfig(connString)
	if err != nil {
		return nil, ErrConnString
	}
	_, sized := plain.RuntimeParams["pool_max_conns"]
	_, idle := plain.RuntimeParams["pool_max_conn_idle_time"]
	cfg, err := pgxpool.ParseConfig(connString)
	if err != nil {
		return nil, ErrConnString
	}
	if !sized {
		cfg.MaxConns = maxConns
	}
	if !idle {
		cfg.MaxConnIdleTime = maxIdle
	}
	cfg.PingTimeout = pingTimeout
	c := cfg.ConnConfig
	if !strings.Contains(connString, "connect_timeout") {
		c.ConnectTimeout = connectTimeout
		c.DialFunc = (&net.Dialer{Timeout: connectTimeout, KeepAliveConfig: keepAlive}).DialContext
	} else {
		c.DialFunc = (&net.Dialer{Timeout: c.ConnectTimeout, KeepAliveConfig: keepAlive}).DialContext
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "micromegas"
	}
	if c.ValidateConnect == nil && len(hosts(c)) > 1 {
		c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	return cfg, nil
}

// hosts returns the addresses of a configuration, each once: pgx also lists one with and without TLS.
func hosts(c *pgx.ConnConfig) []string {
	address := func(host string, port uint16) string { return net.JoinHostPort(host, strconv.Itoa(int(port))) }
	all := []string{address(c.Host, c.Port)}
	for _, f := range c.Fallbacks {
		if a := address(f.Host, f.Port); a != all[len(all)-1] {
			all = append(all, a)
		}
	}
	return all
}

// describe names the place of the catalog, without the password.
func describe(c *pgx.ConnConfig) string {
	u := url.URL{Scheme: "postgres", User: url.User(c.User), Host: strings.Join(hosts(c), ","), Path: "/" + c.Database}
	return u.String()
}

// prepare checks that the catalog can be worked with, migrates it, and returns the server's time.
func prepare(ctx context.Context, cfg *pgx.ConnConfig) (now int64, err error) {
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return 0, startError(err)
	}
	defer func() {
		if cerr := conn.Close(context.WithoutCancel(ctx)); err == nil && cerr != nil {
			err = fmt.Errorf("close the first connection: %w", cerr)
		}
	}()
	if err := migrate(ctx, conn); err != nil {
		return 0, startError(err)
	}
	if err := conn.QueryRow(ctx, "SELECT "+storeClock).Scan(&now); err != nil {
		return 0, fmt.Errorf("read the server's clock: %w", err)
	}
	return now, nil
}

// startError says which thing is wrong. pgx's errors name user, database and host, and no password.
func startError(err error) error {
	var pg *pgconn.PgError
	var connect *pgconn.ConnectError
	switch {
	case errors.As(err, &pg):
		switch pg.Code {
		case "28P01", "28000": // invalid_password; also no such role, no entry in pg_hba.conf
			return fmt.Errorf("%w (%s)", ErrPasswordRefused, pg.Message)
		case "3D000":
			return fmt.Errorf("%w (%s)", ErrDatabaseMissing, pg.Message)
		case "42501", "3F000": // insufficient_privilege; no schema to create in
			return fmt.Errorf("%w (%s)", ErrForbidden, pg.Message)
		case codeReadOnly:
			return fmt.Errorf("%w (%s)", ErrReadOnly, pg.Message)
		}
	case errors.As(err, &connect):
		if strings.Contains(err.Error(), "read only connection") {
			return fmt.Errorf("%w (%w)", ErrReadOnly, err)
		}
		return fmt.Errorf("%w (%w)", ErrUnreachable, err)
	}
	return err
}
