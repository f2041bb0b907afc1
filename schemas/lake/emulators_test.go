package lake_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/deploy/parts"
	"github.com/micromegas-go/micromegas/schemas/lake"
	"github.com/micromegas-go/micromegas/schemas/lake/laketest"
)

// startEmulator starts a program that is installed behind a proxy, and ends it with the test. A test whose emulator is not there is
// skipped: the modules of this repository have none for these stores.
func startEmulator(t *testing.T, program, howTo string, args func(port, proxy string) []string) *parts.HTTPFaults {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("this test needs %s in the PATH: %s", program, howTo)
	}
	addr := freeAddr(t)
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	proxy, err := parts.StartHTTPFaults("http://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proxy.Stop() })
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() // the child has its own
	cmd := exec.CommandContext(t.Context(), path, args(port, hostOf(proxy))...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			if said, err := os.ReadFile(log.Name()); err == nil {
				t.Logf("%s said: %.4000s", program, said)
			}
		}
	})
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if res, err := http.Get("http://" + addr + "/"); err == nil {
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
			return proxy
		}
	}
	t.Fatalf("%s does not answer", program)
	return nil
}

func hostOf(proxy *parts.HTTPFaults) string { return strings.TrimPrefix(proxy.URL(), "http://") }

// tryStore runs the suite, missing buckets and faults on a store whose buckets are below a scheme. Reach leads the store's client to an
// address.
func tryStore(t *testing.T, scheme string, reach func(addr string), f *parts.HTTPFaults) {
	reach(hostOf(f))
	var counter atomic.Int64
	open := func(t *testing.T) lake.Bucket {
		t.Helper()
		name := fmt.Sprintf("bucket-%d", counter.Add(1))
		uri := scheme + "://" + name + "/some/prefix"
		if err := lake.MakeBucket(t.Context(), uri, name); err != nil {
			t.Fatal(err)
		}
		b, err := lake.OpenBucket(t.Context(), uri)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	laketest.Run(t, open)
	t.Run("new_only", func(t *testing.T) {
		b := open(t).(interface {
			lake.Bucket
			Create(ctx context.Context, key string, data []byte) (bool, error)
		})
		for i, want := range []bool{true, false} {
			if mine, err := b.Create(t.Context(), "a", []byte{byte(i)}); mine != want || err != nil {
				t.Errorf("Create = %t, %v; want %t", mine, err, want)
			}
		}
	})
	t.Run("no_bucket", func(t *testing.T) {
		l := openLake(t, scheme+"://none-such", lake.Options{})
		if err := l.Ping(t.Context()); !errors.Is(err, lake.ErrNoBucket) {
			t.Errorf("Ping = %v", err)
		}
	})
	t.Run("nobody_there", func(t *testing.T) {
		reach(freeAddr(t))
		defer reach(hostOf(f))
		l := openLake(t, scheme+"://bucket-1", lake.Options{})
		if err := l.Ping(t.Context()); !errors.Is(err, lake.ErrUnreachable) || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("Ping = %v", err)
		}
	})
	t.Run("faults", func(t *testing.T) {
		b := open(t)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		l := openLake(t, fmt.Sprintf("%s://bucket-%d/some/prefix", scheme, counter.Load()), lake.Options{})
		f.Set(parts.Every(0.15, 0), 2)
		defer f.Set(parts.Faults{}, 1)
		for i, size := range []int{0, 10, 100_000, 3 << 20, 20 << 20} {
			for j := range 5 {
				key, data := fmt.Sprintf("packs/%d-%d", i, j), laketest.Bytes(uint64(i*10+j), size)
				if err := l.Put(t.Context(), key, data); err != nil {
					t.Error(err)
				}
				if got, err := l.Get(t.Context(), key); err != nil || !bytes.Equal(got, data) {
					t.Errorf("object of %d bytes: %d came, %v", size, len(got), err)
				}
			}
		}
		t.Logf("%+v, %+v", f.Counts(), l.Stats().Requests)
		if s := l.Stats().Requests; f.Counts().Faults() == 0 || s.Failures != 0 {
			t.Errorf("requests = %+v", s)
		}
	})
}

func TestGCSBucket(t *testing.T) {
	proxy := startEmulator(t, "fake-gcs-server", "go install github.com/fsouza/fake-gcs-server@latest", func(port, proxy string) []string {
		return []string{"-scheme", "http", "-host", "127.0.0.1", "-port", port, "-backend", "memory", "-public-host", proxy, "-log-level", "warn"}
	})
	tryStore(t, "gs", func(addr string) { t.Setenv("STORAGE_EMULATOR_HOST", addr) }, proxy)
}

func TestAzureBucket(t *testing.T) {
	proxy := startEmulator(t, "azurite-blob", "npm install --global azurite", func(port, _ string) []string {
		return []string{"--blobHost", "127.0.0.1", "--blobPort", port, "--skipApiVersionCheck", "--inMemoryPersistence", "--silent"}
	})
	t.Setenv("AZURE_STORAGE_ACCOUNT", "devstoreaccount1") // the emulator's, and everybody's
	t.Setenv("AZURE_STORAGE_KEY", "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==")
	t.Setenv("AZURE_STORAGE_PROTOCOL", "http")
	tryStore(t, "azblob", func(addr string) { t.Setenv("AZURE_STORAGE_DOMAIN", addr) }, proxy)
	t.Run("wrong_key", func(t *testing.T) {
		t.Setenv("AZURE_STORAGE_KEY", "d3Jvbmc=")
		l := openLake(t, "azblob://bucket-1", lake.Options{})
		if err := l.Ping(t.Context()); !errors.Is(err, lake.ErrCredentials) {
			t.Errorf("Ping = %v", err)
		}
	})
}
