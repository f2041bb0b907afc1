package parts

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// S3Region is the region that the server answers for.
	S3Region = "us-east-1"

	s3Health = "/health"
)

// S3 is a running versitygw over a folder. Its methods are safe for concurrent use.
type S3 struct {
	program, root, sidecar string
	log                    string
	addr                   string // host:port, the same for all lives
	key, secret            string

	mu      sync.Mutex // held by whoever starts or ends the server
	running *child     // nil when it does not run
}

// StartS3 starts an S3 server whose buckets are below dir; it answers when StartS3 returns. Its credentials are random, its output
// goes to s3.log in dir. What was written before a Kill is there after a Restart.
func StartS3(ctx context.Context, dir string) (*S3, error) {
	program, err := Binary(ctx, VersityGW)
	if err != nil {
		return nil, fmt.Errorf("start s3: %w", err)
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("start s3: %w", err)
	}
	s := &S3{
		program: program, root: filepath.Join(dir, "s3"), log: filepath.Join(dir, "s3.log"),
		key: "K" + rand.Text()[:19], secret: rand.Text() + rand.Text(),
	}
	if err := os.MkdirAll(s.root, 0o755); err != nil {
		return nil, fmt.Errorf("start s3: %w", err)
	}
	if !hasXattrs(s.root) {
		s.sidecar = filepath.Join(dir, "s3-metadata")
		if err := os.MkdirAll(s.sidecar, 0o755); err != nil {
			return nil, fmt.Errorf("start s3: %w", err)
		}
	}
	for range childPorts {
		if s.addr, err = freeAddr(); err != nil {
			break
		}
		if err = s.start(ctx); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start s3: %w", err), s.Stop())
	}
	return s, nil
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// start starts the process and waits until it answers. The caller holds mu, or is StartS3.
func (s *S3) start(ctx context.Context) error {
	args := []string{
		"--port", s.addr, "--region", S3Region, "--health", s3Health, "--keep-alive", "--quiet", "--access", s.key, "--secret", s.secret, "posix",
	}
	if s.sidecar != "" {
		args = append(args, "--sidecar", s.sidecar)
	}
	c, err := startChild(s.program, s.log, append(args, s.root)...)
	if err != nil {
		return err
	}
	s.running = c
	return c.until(ctx, s.healthy)
}

func (s *S3) healthy(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint()+s3Health, http.NoBody)
	if err != nil {
		return err
	}
	res, err := lookClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the server answers %s", res.Status)
	}
	return nil
}

// Endpoint is the server's URL, the same for all its lives.
func (s *S3) Endpoint() string { return "http://" + s.addr }

// URI is the lake's URI for a bucket, which it makes when it is missing. Names have 3 to 63 of [0-9a-z.-].
func (s *S3) URI(bucket string) string { return s.URIAt(s.Endpoint(), bucket) }

// URIAt is URI by way of another endpoint, such as a proxy in front of the server.
func (s *S3) URIAt(endpoint, bucket string) string {
	_ = os.Mkdir(filepath.Join(s.root, bucket), 0o755) // a bucket is a folder; a failure shows as a bucket that is missing
	q := url.Values{"region": {S3Region}, "endpoint": {endpoint}, "path_style": {"true"}}
	return (&url.URL{Scheme: "s3", Host: bucket, RawQuery: q.Encode()}).String()
}

// Env is what a process needs in its environment to be let in, and nothing else of the user's AWS settings.
func (s *S3) Env() []string {
	return []string{
		"AWS_ACCESS_KEY_ID=" + s.key, "AWS_SECRET_ACCESS_KEY=" + s.secret, "AWS_EC2_METADATA_DISABLED=true",
		"AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull,
	}
}

// Setenv calls set for each variable of Env: with testing.T's Setenv a test's own process is let in.
func (s *S3) Setenv(set func(name, value string)) {
	for _, v := range s.Env() {
		name, value, _ := strings.Cut(v, "=")
		set(name, value)
	}
}

// Log is the path of the file with the server's output.
func (s *S3) Log() string { return s.log }

// Kill ends the server at once, as kill -9 does, and returns when it is gone.
func (s *S3) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kill()
}

func (s *S3) kill() error {
	c := s.running
	if c == nil {
		return nil
	}
	s.running = nil
	if err := c.kill(); err != nil {
		return fmt.Errorf("end s3: %w", err)
	}
	return nil
}

// Pause stops the process: connections stay open, and nothing answers.
func (s *S3) Pause() error { return s.signal(syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (s *S3) Resume() error { return s.signal(syscall.SIGCONT) }

func (s *S3) signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		return errors.New("signal s3: it does not run")
	}
	return s.running.signal(sig)
}

// Restart starts the server again on its buckets, ending it first when it runs. It answers when Restart returns.
func (s *S3) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.kill(); err != nil {
		return err
	}
	if err := s.start(ctx); err != nil {
		return fmt.Errorf("restart s3: %w", err)
	}
	return nil
}

// CPU returns the processor time that the running server has used since it was started.
func (s *S3) CPU() (time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		return 0, nil
	}
	t, err := cpuTime(s.running.cmd.Process.Pid)
	if err != nil {
		return 0, fmt.Errorf("processor time of s3: %w", err)
	}
	return t, nil
}

// Stop ends the server; its files stay.
func (s *S3) Stop() error { return s.Kill() }
