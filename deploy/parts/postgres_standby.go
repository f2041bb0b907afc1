package parts

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// StartStandby copies a running server and starts a second one that follows it and answers reading statements. Accounts and
// passwords are the primary's.
func StartStandby(ctx context.Context, dir string, primary *Postgres) (*Postgres, error) {
	p := &Postgres{
		bin: primary.bin, account: primary.account, password: primary.password, admin: primary.admin,
		log: filepath.Join(dir, "postgres.log"), made: map[string]bool{},
	}
	var err error
	if p.base, err = openTo(dir, p.account); err != nil {
		return nil, fmt.Errorf("start standby: %w", err)
	}
	if err := p.follow(ctx, primary); err != nil {
		return nil, errors.Join(fmt.Errorf("start standby: %w", err), p.Stop())
	}
	return p, nil
}

// follow copies the primary's data and starts on them.
func (p *Postgres) follow(ctx context.Context, primary *Postgres) error {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, "pg_basebackup"), "--pgdata", p.data(), "--host", "127.0.0.1",
		"--port", strconv.Itoa(primary.port), "--username", postgresAdmin, "--write-recovery-conf", "--wal-method", "stream", "--checkpoint", "fast")
	p.prepare(cmd)
	cmd.Env = append(cmd.Env, "PGPASSWORD="+p.admin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pg_basebackup: %w\n%s", err, out)
	}
	var err error
	for range postgresPorts {
		if p.port, err = freePort(); err != nil {
			return err
		}
		if err = p.start(ctx); !errors.Is(err, errPortTaken) {
			return err
		}
	}
	return err
}

// Synchronous makes the primary acknowledge a commit only when a standby has it too: then a failover loses none.
func (p *Postgres) Synchronous(ctx context.Context) error {
	return p.Exec(ctx, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
}

// Promote makes a standby a primary; it takes writes when Promote returns.
func (p *Postgres) Promote(ctx context.Context) error { return p.Exec(ctx, "SELECT pg_promote()") }

// Exec runs statements as the superuser, each on a connection of its own.
func (p *Postgres) Exec(ctx context.Context, statements ...string) error {
	return p.ExecIn(ctx, "postgres", statements...)
}

// ExecIn is Exec in a database.
func (p *Postgres) ExecIn(ctx context.Context, db string, statements ...string) error {
	for _, s := range statements {
		if err := p.execIn(ctx, db, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// Ask returns the one number that a statement answers with in a database.
func (p *Postgres) Ask(ctx context.Context, db, statement string) (n int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, postgresEnd)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.AdminURL(db))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", statement, err)
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	if err := conn.QueryRow(ctx, statement).Scan(&n); err != nil {
		return 0, fmt.Errorf("%s: %w", statement, err)
	}
	return n, nil
}
