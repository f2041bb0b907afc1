package bus_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/micromegas-go/micromegas/deploy/parts"
	"github.com/micromegas-go/micromegas/schemas/bus"
)

// startNATS starts servers that end with the test.
func startNATS(t *testing.T, n int, options ...parts.NATSOptions) *parts.NATS {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := parts.StartNATS(ctx, t.TempDir(), n, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for i := range n {
				text, _ := os.ReadFile(c.Log(i)) // a file that is missing says nothing
				t.Logf("%s:\n%s", c.Log(i), text[max(0, len(text)-4000):])
			}
		}
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

const secret = "pass-word"

// tryConnect is bus.Connect within a second.
func tryConnect(t *testing.T, o bus.ConnectOptions) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	nc, err := bus.Connect(ctx, o)
	if err == nil {
		nc.Close()
	}
	return err
}

func TestConnectSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	guarded := startNATS(t, 1, parts.NATSOptions{User: "user", Password: secret})
	private := startNATS(t, 1, parts.NATSOptions{TLS: true, VerifyClients: true})
	plain := startNATS(t, 1, parts.NATSOptions{NoJetStream: true})
	withUser := func(user string) string { return strings.Replace(guarded.URL(0), "user", user, 1) }
	nobody := "nats://user:" + secret + "@127.0.0.1:1"
	missing := filepath.Join(t.TempDir(), "missing")
	ca, cert, key := private.CAFile(), private.CertFile(), private.KeyFile()
	for _, test := range []struct {
		name string
		o    bus.ConnectOptions
		want error
	}{
		{"right password", bus.ConnectOptions{URLs: guarded.URL(0)}, nil},
		{"a dead server first", bus.ConnectOptions{URLs: nobody + "," + guarded.URL(0)}, nil},
		{"wrong user", bus.ConnectOptions{URLs: withUser("other")}, bus.ErrCredentials},
		{"wrong user, then a dead server", bus.ConnectOptions{URLs: withUser("other") + ", " + nobody}, bus.ErrCredentials},
		{"no user", bus.ConnectOptions{URLs: guarded.Addr(0)}, bus.ErrCredentials},
		{"no file of credentials", bus.ConnectOptions{URLs: guarded.URL(0), CredsFile: missing}, bus.ErrCredentials},
		{"nobody there", bus.ConnectOptions{URLs: nobody}, bus.ErrUnreachable},
		{"certificates", bus.ConnectOptions{URLs: private.URL(0), CAFile: ca, CertFile: cert, KeyFile: key}, nil},
		{"unknown authority", bus.ConnectOptions{URLs: private.URL(0), CertFile: cert, KeyFile: key}, bus.ErrUntrusted},
		{"no client certificate", bus.ConnectOptions{URLs: private.URL(0), CAFile: ca}, bus.ErrUntrusted},
		{"half a client certificate", bus.ConnectOptions{URLs: private.URL(0), CAFile: ca, CertFile: cert}, bus.ErrUntrusted},
		{"no authority in the file", bus.ConnectOptions{URLs: private.URL(0), CAFile: key}, bus.ErrUntrusted},
		{"no TLS there", bus.ConnectOptions{URLs: "tls://" + plain.Addr(0)}, bus.ErrUntrusted},
		{"no JetStream", bus.ConnectOptions{URLs: plain.URL(0)}, bus.ErrNoJetStream},
	} {
		err := tryConnect(t, test.o)
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error tells the password: %v", test.name, err)
		}
	}
	for _, urls := range []string{"", " , ", "nats://user:" + secret + "%@host:4222", "nats://:" + secret + "@"} {
		if err := tryConnect(t, bus.ConnectOptions{URLs: urls}); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("URLs %q: %v", urls, err)
		}
	}
}

// TestConnectWithCredentialsFile runs a server of an operator, whose accounts and users are signed.
func TestConnectWithCredentialsFile(t *testing.T) {
	t.Parallel()
	newKeys := func(make func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
		pair, err := make()
		if err != nil {
			t.Fatal(err)
		}
		public, err := pair.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		return pair, public
	}
	sign := func(claims interface {
		Encode(nkeys.KeyPair) (string, error)
	}, by nkeys.KeyPair,
	) string {
		text, err := claims.Encode(by)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	operator, operatorID := newKeys(nkeys.CreateOperator)
	account, accountID := newKeys(nkeys.CreateAccount)
	_, systemID := newKeys(nkeys.CreateAccount)
	user, userID := newKeys(nkeys.CreateUser)
	operatorClaims := jwt.NewOperatorClaims(operatorID)
	operatorClaims.SystemAccount = systemID
	accountClaims := jwt.NewAccountClaims(accountID)
	accountClaims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1}
	c := startNATS(t, 1, parts.NATSOptions{Extra: fmt.Sprintf("operator: %s\nsystem_account: %s\nresolver: MEMORY\nresolver_preload {\n %s: %s\n %s: %s\n}",
		sign(operatorClaims, operator), systemID, accountID, sign(accountClaims, operator), systemID, sign(jwt.NewAccountClaims(systemID), operator))})
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	text, err := jwt.FormatUserConfig(sign(jwt.NewUserClaims(userID), account), seed)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "user.creds")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := tryConnect(t, bus.ConnectOptions{URLs: c.URL(0), CredsFile: file}); err != nil {
		t.Error(err)
	}
	if err := tryConnect(t, bus.ConnectOptions{URLs: c.URL(0)}); !errors.Is(err, bus.ErrCredentials) {
		t.Errorf("without the file: %v", err)
	}
}

// TestConnectWaitsForTheServer connects before there is one.
func TestConnectWaitsForTheServer(t *testing.T) {
	t.Parallel()
	c := startNATS(t, 1)
	if err := c.Kill(0); err != nil {
		t.Fatal(err)
	}
	connected := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		nc, err := bus.Connect(ctx, bus.ConnectOptions{URLs: c.URLs()})
		if err == nil {
			nc.Close()
		}
		connected <- err
	}()
	if err := c.Launch(0); err != nil {
		t.Fatal(err)
	}
	if err := <-connected; err != nil {
		t.Error(err)
	}
}

// TestSilentServerIsLeft connects to a server that is paused then: the connection goes to another one.
func TestSilentServerIsLeft(t *testing.T) {
	t.Parallel()
	c := startNATS(t, 3)
	nc, err := bus.Connect(testContext(t), bus.ConnectOptions{URLs: c.URL(0)}) // the others are known from it
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	events := nc.StatusChanged(nats.CONNECTED)
	if err := c.Pause(0); err != nil {
		t.Fatal(err)
	}
	select {
	case <-events:
	case <-testContext(t).Done():
		t.Fatal("the connection stays with the silent server")
	}
	if nc.ConnectedAddr() == c.Addr(0) {
		t.Errorf("connected to %s again", nc.ConnectedAddr())
	}
	if _, _, err := net.SplitHostPort(nc.ConnectedAddr()); err != nil {
		t.Error(err)
	}
}
