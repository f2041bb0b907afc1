package lake_test

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/micromegas-go/micromegas/deploy/parts"
	"github.com/micromegas-go/micromegas/schemas/lake"
)

// freeAddr is an address where nobody listens.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestPingSaysWhatIsWrong sets up every mistake that a first start meets.
func TestPingSaysWhatIsWrong(t *testing.T) {
	s := startS3(t)
	nowhere := "http://" + freeAddr(t)
	stranger := httptest.NewUnstartedServer(http.NotFoundHandler())
	stranger.Config.ErrorLog = log.New(io.Discard, "", 0)
	stranger.StartTLS() // with a certificate of an authority that nobody knows
	defer stranger.Close()
	for _, c := range []struct {
		name, uri string
		env       map[string]string
		want      error
		text      string
	}{
		{"all well", s.URI("lake"), nil, nil, ""},
		{"wrong secret", s.URI("lake"), map[string]string{"AWS_SECRET_ACCESS_KEY": "hush-hush"}, lake.ErrCredentials, "(SignatureDoesNotMatch); check them: AWS_ACCESS_KEY_ID"},
		{"unknown key", s.URI("lake"), map[string]string{"AWS_ACCESS_KEY_ID": "nobody"}, lake.ErrCredentials, "check them: AWS_ACCESS_KEY_ID"},
		{"no credentials", s.URI("lake"), map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, lake.ErrCredentials, "(no credentials were found); AWS_ACCESS_KEY_ID and"},
		{"no bucket", strings.Replace(s.URI("lake"), "s3://lake", "s3://none", 1), nil, lake.ErrNoBucket, "bucket s3://none: there is no such bucket (NoSuchBucket); create it"},
		{"nobody there", s.URIAt(nowhere, "lake"), nil, lake.ErrUnreachable, "connection refused"},
		{"no such name", s.URIAt("http://store.invalid", "lake"), nil, lake.ErrUnreachable, "store.invalid"},
		{"not to be trusted", s.URIAt(stranger.URL, "lake"), nil, lake.ErrUnreachable, "certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			l := openLake(t, c.uri, lake.Options{})
			begun := time.Now()
			err := l.Ping(t.Context())
			if !errors.Is(err, c.want) || c.want == nil && err != nil {
				t.Fatalf("Ping = %v, want %v", err, c.want)
			}
			if took := time.Since(begun); took > 16*time.Second {
				t.Errorf("it took %s to say so", took)
			}
			if err == nil {
				return
			}
			var told *lake.StoreError
			if !errors.As(err, &told) || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 300 {
				t.Errorf("Ping = %v\nwant one sentence with %q", err, c.text)
			}
			for _, secret := range []string{"hush-hush", strings.TrimPrefix(s.Env()[1], "AWS_SECRET_ACCESS_KEY=")} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("Ping shows a secret: %v", err)
				}
			}
		})
	}
}

// A bucket that vanishes, and credentials that are withdrawn, must not look like objects that are missing: their readers would
// take acknowledged data for lost.
func TestMissingBucketIsNoMissingObject(t *testing.T) {
	s := startS3(t)
	for name, uri := range map[string]string{
		"no bucket":   strings.Replace(s.URI("lake"), "s3://lake", "s3://none", 1),
		"no server":   s.URIAt("http://"+freeAddr(t), "lake"),
		"wrong place": s.URIAt("http://store.invalid", "lake"),
	} {
		l := openLake(t, uri, lake.Options{})
		if _, err := l.Get(t.Context(), "packs/a"); err == nil || errors.Is(err, lake.ErrNotFound) {
			t.Errorf("%s: Get = %v", name, err)
		}
	}
}

// TestWrongClock has a store whose clock is an hour ahead or behind, as a machine sees it whose own clock is wrong. The client learns
// the store's time from its first refusal.
func TestWrongClock(t *testing.T) {
	s := startS3(t)
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		front, refused := shiftedClock(t, s, off)
		l := openLake(t, s.URIAt(front, "lake"), lake.Options{})
		if err := l.Ping(t.Context()); err != nil {
			t.Fatalf("a clock that is %s off: %v", off, err)
		}
		if n := refused.Load(); n != 1 {
			t.Errorf("%d refusals, want 1: the store's time was not learnt, or not kept", n)
		}
		if err := l.Put(t.Context(), "packs/a", []byte("x")); err != nil {
			t.Error(err)
		}
		if got, err := l.Get(t.Context(), "packs/a"); err != nil || string(got) != "x" {
			t.Errorf("Get = %q, %v", got, err)
		}
		if n := refused.Load(); n != 1 {
			t.Errorf("%d refusals after more requests, want 1", n)
		}
	}
}

// shiftedClock is a server whose clock is off: it refuses requests that were signed for another time than its own, as S3 does, and signs
// the others anew for the server behind it.
func shiftedClock(t *testing.T, s *parts.S3, off time.Duration) (endpoint string, refused *atomic.Int64) {
	t.Helper()
	refused = new(atomic.Int64)
	target, err := url.Parse(s.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for _, v := range s.Env() {
		name, value, _ := strings.Cut(v, "=")
		env[name] = value
	}
	login := aws.Credentials{AccessKeyID: env["AWS_ACCESS_KEY_ID"], SecretAccessKey: env["AWS_SECRET_ACCESS_KEY"]}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Header.Del("Authorization")
			if err := signer.SignHTTP(r.Out.Context(), login, r.Out, r.In.Header.Get("X-Amz-Content-Sha256"), "s3", parts.S3Region, time.Now()); err != nil {
				t.Error(err)
			}
		},
		ModifyResponse: func(res *http.Response) error {
			res.Header.Set("Date", time.Now().Add(off).UTC().Format(http.TimeFormat))
			return nil
		},
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := time.Now().Add(off)
		signed, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
		if err != nil || signed.Sub(now).Abs() > 15*time.Minute {
			refused.Add(1)
			w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusForbidden)
			w.Write([]byte(`<?xml version="1.0" encoding="UTF-8"?><Error><Code>RequestTimeTooSkewed</Code><Message>The difference between the request time and the current time is too large.</Message></Error>`))
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	return front.URL, refused
}

// A store that goes on refusing is told as what it is.
func TestHopelessClock(t *testing.T) {
	s := startS3(t)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		w.Write([]byte(`<Error><Code>RequestTimeTooSkewed</Code><Message>no</Message></Error>`))
	}))
	defer front.Close()
	l := openLake(t, s.URIAt(front.URL, "lake"), lake.Options{})
	if err := l.Ping(t.Context()); !errors.Is(err, lake.ErrClock) || !strings.Contains(err.Error(), "NTP") {
		t.Errorf("Ping = %v", err)
	}
}
