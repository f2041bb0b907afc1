package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/bus/embedded"
)

const timeout = 20 * time.Second

func start(t *testing.T, o embedded.Options) *embedded.Server {
	t.Helper()
	if o.StoreDir == "" {
		o.StoreDir = t.TempDir()
	}
	s, err := embedded.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

func connect(t *testing.T, s *embedded.Server) jetstream.JetStream {
	t.Helper()
	nc, err := s.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// eventually repeats try until it succeeds or time is up.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(timeout)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(5 * time.Millisecond) // a poll with a deadline: the other side is the server's own goroutines
	}
}

func makeStream(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "s", Subjects: []string{"s"}, Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew})
	if err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, js jetstream.JetStream) (n uint64) {
	t.Helper()
	eventually(t, "stream info", func() error {
		s, err := js.Stream(t.Context(), "s")
		if err == nil {
			n = s.CachedInfo().State.Msgs
		}
		return err
	})
	return n
}

func TestConnectionsSurviveRestart(t *testing.T) {
	s := start(t, embedded.Options{})
	js := connect(t, s)
	makeStream(t, js)
	for i := range 3 {
		eventually(t, "publish", func() error {
			_, err := js.Publish(t.Context(), "s", []byte("x"), jetstream.WithMsgID(string(rune('a'+i))))
			return err
		})
		if err := s.Healthy(); err != nil {
			t.Fatalf("healthy: %v", err)
		}
		if err := s.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	if got := count(t, js); got != 3 {
		t.Errorf("%d messages, want 3", got)
	}
}

func TestShutdownIsNoticedAndRestartable(t *testing.T) {
	s := start(t, embedded.Options{})
	s.Shutdown()
	s.Shutdown()
	if err := s.Healthy(); !errors.Is(err, embedded.ErrStopped) {
		t.Errorf("healthy: %v, want ErrStopped", err)
	}
	if _, err := s.Connect(); err == nil {
		t.Error("connect: no error")
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := s.Healthy(); err != nil {
		t.Errorf("healthy: %v", err)
	}
}

func TestListenServesOtherProcessesOnTheSamePort(t *testing.T) {
	s := start(t, embedded.Options{Listen: "127.0.0.1:0"})
	url := s.ClientURL()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	if got := s.ClientURL(); got != url {
		t.Errorf("after Restart it listens on %s, before on %s", got, url)
	}
	if inProcess := start(t, embedded.Options{}); inProcess.ClientURL() != "" {
		t.Errorf("in process only, but listens on %s", inProcess.ClientURL())
	}
}

// TestTokenOfOtherProcesses: they need it, and this one does not.
func TestTokenOfOtherProcesses(t *testing.T) {
	s := start(t, embedded.Options{Listen: "0.0.0.0:0", Token: "secret-token"})
	makeStream(t, connect(t, s))
	if strings.Contains(s.ClientURL(), "secret") {
		t.Errorf("the URL tells the token: %s", s.ClientURL())
	}
	_, port, err := net.SplitHostPort(strings.TrimPrefix(s.ClientURL(), "nats://"))
	if err != nil {
		t.Fatal(err)
	}
	for credentials, want := range map[string]error{"": bus.ErrCredentials, "wrong@": bus.ErrCredentials, "secret-token@": nil} {
		nc, err := bus.Connect(t.Context(), bus.ConnectOptions{URLs: "nats://" + credentials + "127.0.0.1:" + port})
		if !errors.Is(err, want) {
			t.Errorf("with %q: %v, want %v", credentials, err, want)
		}
		if err == nil {
			nc.Close()
		}
	}
	start(t, embedded.Options{Listen: "0.0.0.0:0", Anybody: true})
}

func TestBadOptionsAreRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, o := range map[string]embedded.Options{
		"no folder":      {},
		"folder a file":  {StoreDir: file},
		"address":        {StoreDir: t.TempDir(), Listen: "nowhere"},
		"port":           {StoreDir: t.TempDir(), Listen: "127.0.0.1:99999"},
		"port in use":    {StoreDir: t.TempDir(), Listen: taken.Addr().String()},
		"open":           {StoreDir: t.TempDir(), Listen: "0.0.0.0:0"},
		"open, any host": {StoreDir: t.TempDir(), Listen: ":0"},
	} {
		if s, err := embedded.Start(o); err == nil {
			s.Shutdown()
			t.Errorf("%s: no error", name)
		}
	}
}

// TestDiskFull fills a small file system: publishing is refused, Healthy says so, and Restart serves again with every
// acknowledged message once there is space.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", dir).CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no right to mount a tmpfs, run as root: %v %s", err, out)
		}
		t.Skipf("no right to mount a tmpfs, run as root for this test: %v %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	})
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, embedded.Options{StoreDir: filepath.Join(dir, "store")})
	js := connect(t, s)
	makeStream(t, js)
	payload := bytes.Repeat([]byte("0123456789abcdef"), 32<<10)
	acked := uint64(0)
	for acked < 1000 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // a full disk answers by silence
		_, err := js.Publish(ctx, "s", payload)
		cancel()
		if err != nil {
			break
		}
		acked++
	}
	if acked == 0 || acked == 1000 {
		t.Fatalf("%d messages taken by a disk of 24 MB", acked)
	}
	eventually(t, "full disk noticed", func() error {
		if s.Healthy() == nil {
			return errors.New("healthy on a full disk")
		}
		return nil
	})
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := s.Healthy(); err != nil {
		t.Errorf("healthy after Restart: %v", err)
	}
	if got := count(t, js); got < acked || got > acked+1 { // the refused one may be there
		t.Errorf("%d messages after the restart, %d were acknowledged", got, acked)
	}
	eventually(t, "publish", func() error {
		_, err := js.Publish(t.Context(), "s", payload)
		return err
	})
	t.Logf("served again %v after Restart", time.Since(begin))
}
