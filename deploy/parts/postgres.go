package parts

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// PostgresRole is the login that URL names: an ordinary role that owns its databases and may nothing else, as a managed
// service gives out.
const PostgresRole = "micromegas"

const (
	postgresAdmin = "postgres"
	// postgresPoll is how often a starting or ending server is looked at.
	postgresPoll = 10 * time.Millisecond
	// postgresEnd bounds the wait for a server that was told to end.
	postgresEnd = 10 * time.Second
	// postgresPorts is how many ports are tried: another program may take a free one before the server does.
	postgresPorts = 5
)

// PostgresOptions says how a server runs. The zero value is a server that syncs every commit to disk.
type PostgresOptions struct {
	// NoFsync leaves the syncing to the system. A killed server loses nothing either way; a machine without power would.
	NoFsync bool
	// Settings are further lines of postgresql.conf. ALTER SYSTEM by an administrator (AdminURL) overrides them.
	Settings map[string]string
}

// Postgres is a running server with its own cluster. Its methods are safe for concurrent use.
type Postgres struct {
	bin             string
	base            string // holds data; readable for account
	log             string
	account         *syscall.Credential // nil: that of this process
	port            int
	password, admin string

	control sync.Mutex // held by whoever starts or ends the server

	mu      sync.Mutex // guards what follows
	running *postmaster
	past    time.Duration // CPU time of postmasters that ended
	made    map[string]bool
}

// postmaster is one life of the server.
type postmaster struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process was waited for
}

// StartPostgres creates a cluster and starts a server on it, which answers when StartPostgres returns. Logins need a password
// (SCRAM), so that wrong credentials are refused as they are in production. The server's output goes to postgres.log in dir.
//
// PostgreSQL refuses to run as root: then it runs as the user postgres or nobody, and its data lie below the system's temporary
// folder where dir is not open to that user. The error is ErrNotInstalled when there is no PostgreSQL.
func StartPostgres(ctx context.Context, dir string, options PostgresOptions) (*Postgres, error) {
	bin, err := findPostgres(ctx)
	if err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	p := &Postgres{bin: bin, log: filepath.Join(dir, "postgres.log"), password: rand.Text(), admin: rand.Text(), made: map[string]bool{}}
	if p.account, err = unprivileged(); err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	if p.base, err = openTo(dir, p.account); err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	if err := p.create(ctx, options); err != nil {
		return nil, errors.Join(fmt.Errorf("start postgres: %w", err), p.Stop())
	}
	return p, nil
}

func (p *Postgres) data() string { return filepath.Join(p.base, "data") }

// create makes the cluster, starts it on a free port and makes the role.
func (p *Postgres) create(ctx context.Context, options PostgresOptions) error {
	if err := p.initdb(ctx); err != nil {
		return err
	}
	if err := p.configure(options); err != nil {
		return err
	}
	var err error
	for range postgresPorts {
		if p.port, err = freePort(); err != nil {
			return err
		}
		if err = p.start(ctx); !errors.Is(err, errPortTaken) {
			break
		}
	}
	if err != nil {
		return err
	}
	return p.asAdmin(ctx, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", PostgresRole, p.password))
}

func (p *Postgres) initdb(ctx context.Context) error {
	secret := filepath.Join(p.base, "password")
	if err := os.WriteFile(secret, []byte(p.admin), 0o600); err != nil {
		return err
	}
	defer os.Remove(secret)
	if p.account != nil {
		if err := os.Chown(secret, int(p.account.Uid), int(p.account.Gid)); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, "initdb"), "--pgdata", p.data(), "--username", postgresAdmin, "--pwfile", secret,
		"--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync")
	p.prepare(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

// prepare gives a command of the server its account and an environment in which no PG variable of the caller counts.
func (p *Postgres) prepare(cmd *exec.Cmd) {
	cmd.Dir = p.base
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.base, "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = serverAttr(p.account)
}

// configure appends to postgresql.conf; of a setting that comes twice the last counts.
func (p *Postgres) configure(options PostgresOptions) error {
	conf, err := os.OpenFile(filepath.Join(p.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	settings := map[string]string{
		"listen_addresses":           "127.0.0.1",
		"unix_socket_directories":    "",
		"dynamic_shared_memory_type": "mmap", // below data: a killed server leaves nothing behind elsewhere
		"max_connections":            "200",
		"timezone":                   "UTC",
		"jit":                        "off",
		"log_line_prefix":            "%m [%p] ",
	}
	if options.NoFsync {
		settings["fsync"] = "off"
	}
	maps.Copy(settings, options.Settings)
	var b strings.Builder
	for k, v := range settings {
		fmt.Fprintf(&b, "\n%s = '%s'", k, strings.ReplaceAll(v, "'", "''"))
	}
	_, err = conf.WriteString(b.String() + "\n")
	return errors.Join(err, conf.Close())
}

var errPortTaken = errors.New("the port is taken")

// start starts the postmaster and waits until it answers.
func (p *Postgres) start(ctx context.Context) error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own
	before, err := log.Stat()
	if err != nil {
		return err
	}
	m := &postmaster{cmd: exec.Command(filepath.Join(p.bin, "postgres"), "-D", p.data(), "-p", strconv.Itoa(p.port)), exited: make(chan struct{})}
	m.cmd.Stdout, m.cmd.Stderr = log, log
	p.prepare(m.cmd)
	if err := m.cmd.Start(); err != nil {
		return err
	}
	go func() {
		_ = m.cmd.Wait() // how it ended is in its log
		p.mu.Lock()
		p.past += m.cmd.ProcessState.UserTime() + m.cmd.ProcessState.SystemTime()
		p.mu.Unlock()
		close(m.exited)
	}()
	p.mu.Lock()
	p.running = m
	p.mu.Unlock()
	return p.untilReady(ctx, m, before.Size())
}

func (p *Postgres) untilReady(ctx context.Context, m *postmaster, logFrom int64) error {
	tick := time.NewTicker(postgresPoll)
	defer tick.Stop()
	for {
		err := p.asAdmin(ctx, "SELECT 1")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until it answers: %w (%w)", ctx.Err(), err)
		case <-m.exited:
			said := readFrom(p.log, logFrom)
			if strings.Contains(said, "in use") {
				return fmt.Errorf("%w:\n%s", errPortTaken, said)
			}
			return fmt.Errorf("the server ended: %s\n%s", m.cmd.ProcessState, said)
		case <-tick.C:
		}
	}
}

func readFrom(path string, offset int64) string {
	text, err := os.ReadFile(path)
	if err != nil || offset > int64(len(text)) {
		return ""
	}
	return string(text[offset:])
}

func (p *Postgres) asAdmin(ctx context.Context, statement string) error {
	return p.execIn(ctx, "postgres", statement)
}

func (p *Postgres) execIn(ctx context.Context, db, statement string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, postgresEnd)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.AdminURL(db))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	_, err = conn.Exec(ctx, statement)
	return err
}

// URL returns the connection string of a database, which it creates when it is missing. When that fails, as it does while the
// server is down, the string is good all the same, and who connects is told that the database does not exist.
func (p *Postgres) URL(db string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.made[db] {
		err := p.asAdmin(context.Background(), fmt.Sprintf("CREATE DATABASE %s OWNER %s", pgx.Identifier{db}.Sanitize(), PostgresRole))
		p.made[db] = err == nil
	}
	return p.address(PostgresRole, p.password, db)
}

// AdminURL returns the connection string of the cluster's superuser for a database, which must exist.
func (p *Postgres) AdminURL(db string) string { return p.address(postgresAdmin, p.admin, db) }

func (p *Postgres) address(role, password, db string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(role, password), Host: p.Addr(), Path: "/" + db, RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Addr returns host:port, the same for all lives of the server.
func (p *Postgres) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)) }

// Log returns the path of the file with the server's output.
func (p *Postgres) Log() string { return p.log }

func (p *Postgres) alive() *postmaster {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		return nil
	}
	select {
	case <-p.running.exited:
		return nil
	default:
		return p.running
	}
}

// Kill ends the server and all its processes at once, as kill -9 does, and returns when they are gone.
func (p *Postgres) Kill() error {
	p.control.Lock()
	defer p.control.Unlock()
	return p.kill()
}

func (p *Postgres) kill() error {
	m := p.alive()
	if m == nil {
		return nil
	}
	pids := stopTree(m.cmd.Process.Pid) // nothing is born any more
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL) // the one error is that it is gone
	}
	<-m.exited
	return untilGone(pids[1:], postgresEnd)
}

// Restart starts the server again on its data, ending it first (at once) when it runs. It answers when Restart returns.
func (p *Postgres) Restart(ctx context.Context) error {
	p.control.Lock()
	defer p.control.Unlock()
	if err := p.quit(); err != nil {
		return fmt.Errorf("restart postgres: %w", err)
	}
	if err := p.start(ctx); err != nil {
		return fmt.Errorf("restart postgres: %w", err)
	}
	return nil
}

// quit has the server end at once without a checkpoint; it recovers at its next start.
func (p *Postgres) quit() error {
	m := p.alive()
	if m == nil {
		return nil
	}
	pids := tree(m.cmd.Process.Pid)
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGCONT) // it may be paused
	}
	if err := m.cmd.Process.Signal(syscall.SIGQUIT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-m.exited:
		return untilGone(pids[1:], postgresEnd)
	case <-time.After(postgresEnd):
		return p.kill()
	}
}

// Pause stops all processes of the server: connections stay open, and nothing answers.
func (p *Postgres) Pause() error {
	m := p.alive()
	if m == nil {
		return errors.New("pause postgres: it does not run")
	}
	stopTree(m.cmd.Process.Pid)
	return nil
}

// Resume lets a paused server go on.
func (p *Postgres) Resume() error {
	m := p.alive()
	if m == nil {
		return errors.New("resume postgres: it does not run")
	}
	for _, pid := range tree(m.cmd.Process.Pid) {
		_ = syscall.Kill(pid, syscall.SIGCONT) // the one error is that it is gone
	}
	return nil
}

// Pids returns the processes of the server, the postmaster first; nil when it does not run.
func (p *Postgres) Pids() []int {
	m := p.alive()
	if m == nil {
		return nil
	}
	return tree(m.cmd.Process.Pid)
}

// CPU returns the processor time that the server has used since StartPostgres, its ended processes and earlier lives included.
func (p *Postgres) CPU() (time.Duration, error) {
	m := p.alive()
	p.mu.Lock()
	sum := p.past
	p.mu.Unlock()
	if m == nil {
		return sum, nil
	}
	for _, pid := range tree(m.cmd.Process.Pid) {
		t, err := cpuTime(pid)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, fmt.Errorf("processor time of postgres: %w", err)
		}
		sum += t
	}
	return sum, nil
}

// Stop ends the server at once and removes its data; the log stays.
func (p *Postgres) Stop() error {
	p.control.Lock()
	defer p.control.Unlock()
	err := p.quit()
	removeSharedMemory(filepath.Join(p.data(), "postmaster.pid"))
	return errors.Join(err, os.RemoveAll(p.base))
}

// unprivileged returns the account that a server of root's runs under, nil when this process is not root's.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err, err2); err != nil {
			return nil, fmt.Errorf("account %s: %w", name, err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is no user postgres or nobody to run it as")
}

// openTo makes a folder that belongs to the account: in dir, which is made when it is missing, or in the temporary folder where dir is closed to it.
func openTo(dir string, account *syscall.Credential) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if account != nil && !openToAll(dir) {
		dir = os.TempDir()
		if !openToAll(dir) {
			return "", fmt.Errorf("%s is not open to all users: set TMPDIR to a folder that is", dir)
		}
	}
	base, err := os.MkdirTemp(dir, "postgres-")
	if err != nil {
		return "", err
	}
	if account != nil {
		err = os.Chown(base, int(account.Uid), int(account.Gid))
	}
	return base, err
}

// openToAll says whether everybody may pass through a folder and all above it.
func openToAll(dir string) bool {
	for {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return true
		}
		dir = parent
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
