package bus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// What keeps Connect from a bus. The text of the errors says where, and never holds a password or a token.
var (
	// ErrCredentials says that a server did not let us in, or that there is no file of credentials that could be shown.
	ErrCredentials = errors.New("the NATS server refuses our credentials")
	// ErrUntrusted says that the two ends do not trust each other's certificate, or that one wants TLS and the other not.
	ErrUntrusted = errors.New("no trusted TLS connection to the NATS server")
	// ErrUnreachable says that no server answered at any address.
	ErrUnreachable = errors.New("no NATS server answers")
	// ErrNoJetStream says that there is a server, but none that keeps streams.
	ErrNoJetStream = errors.New("JetStream is not enabled on the NATS server, or not for this account")
)

const (
	// connectPatience is how long Connect tries when its context has no deadline.
	connectPatience = 30 * time.Second
	// dialTimeout bounds one try at one server.
	dialTimeout = 2 * time.Second
	// connectPause is between two tries of the first connection.
	connectPause = 250 * time.Millisecond
	// reconnectWait and the jitters space the tries to come back, so that a server that restarts is not met by all at once.
	reconnectWait      = 50 * time.Millisecond
	reconnectJitter    = 100 * time.Millisecond
	reconnectJitterTLS = 500 * time.Millisecond
	// pingInterval and pingsOut find a server that is there but silent: after pingInterval × (pingsOut + 1) another is tried.
	pingInterval = 2 * time.Second
	pingsOut     = 2
	// writeTimeout is how long a write may find no place at a server's end. Publishers wait behind it.
	writeTimeout = 3 * time.Second
	// noJetStreamPatience is how long a server may be without JetStream: in a cluster that starts it comes later.
	noJetStreamPatience = 5 * time.Second
)

// ConnectOptions says where a bus of its own is, and how it lets us in.
type ConnectOptions struct {
	URLs      string // of one server or more, separated by commas; nats://user:password@host:port, tls://…
	CredsFile string // a NATS credentials file (JWT and seed); empty: none
	CAFile    string // PEM of the authorities to trust; empty: the system's
	CertFile  string // PEM of our certificate, for servers that ask for one; with KeyFile
	KeyFile   string
	Log       *slog.Logger // nil = silent
}

// ConnOptions is how every connection under a Bus must be: it comes back by itself, forever; and while it is cut,
// publishing fails at once instead of being buffered, for what was buffered would be published after the publisher was
// told that it was not.
func ConnOptions(log *slog.Logger) []nats.Option {
	return []nats.Option{
		nats.Name("micromegas"),
		nats.MaxReconnects(-1),
		nats.ReconnectBufSize(-1),
		nats.IgnoreAuthErrorAbort(), // a server that forgets its users for a moment must not end us
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			log.Debug("nats connection", "error", err) // without a handler the client prints to stderr
		}),
	}
}

// Connect returns a connection to a bus of its own, with JetStream; the caller closes it. Where no server answers it tries
// again until ctx is done, or for 30 s when ctx has no deadline; a refusal (ErrCredentials, ErrUntrusted, ErrNoJetStream) is
// returned at once, for trying again would not help.
//
// Later losses of the connection are the Bus's to survive: it goes to whichever server of the cluster answers, also to
// those that only other servers told it of.
func Connect(ctx context.Context, o ConnectOptions) (*nats.Conn, error) {
	if _, set := ctx.Deadline(); !set {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, connectPatience)
		defer cancel()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	d, err := o.dialer()
	if err != nil {
		return nil, fmt.Errorf("connect to the bus: %w", err)
	}
	for {
		nc, err := d.dial(ctx)
		if err == nil {
			return nc, nil
		}
		if !errors.Is(err, ErrUnreachable) {
			return nil, fmt.Errorf("connect to the bus at %s: %w", d.shown, err)
		}
		o.Log.Debug("bus not reached", "servers", d.shown, "error", err)
		select {
		case <-time.After(connectPause):
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to the bus at %s: %w (is it running, and is this its address?)", d.shown, err)
		}
	}
}

// dialer is ConnectOptions, understood.
type dialer struct {
	urls    []string
	shown   string // urls without secrets
	options []nats.Option
}

func (o ConnectOptions) dialer() (*dialer, error) {
	d := &dialer{options: append(ConnOptions(o.Log),
		nats.Timeout(dialTimeout),
		nats.ReconnectWait(reconnectWait), nats.ReconnectJitter(reconnectJitter, reconnectJitterTLS),
		nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(pingsOut),
		nats.FlusherTimeout(writeTimeout), nats.ReconnectOnFlusherError(),
	)}
	var shown []string
	for text := range strings.SplitSeq(o.URLs, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		u, err := parseServer(text)
		if err != nil {
			return nil, err
		}
		d.urls = append(d.urls, u.String())
		shown = append(shown, u.Scheme+"://"+u.Host)
		if password, ok := u.User.Password(); ok && len(d.urls) == 1 { // for servers that only other servers name
			d.options = append(d.options, nats.UserInfo(u.User.Username(), password))
		} else if u.User != nil && len(d.urls) == 1 {
			d.options = append(d.options, nats.Token(u.User.Username()))
		}
	}
	if len(d.urls) == 0 {
		return nil, errors.New("no URL of a NATS server")
	}
	d.shown = strings.Join(shown, ",")
	return d, d.readFiles(o)
}

// parseServer understands one server's URL. Its errors do not quote it: it may hold a password.
func parseServer(text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		text = "nats://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return nil, errors.New("the URL of a NATS server is not understood: it is like nats://user:password@host:4222, special characters as %XX")
	}
	return u, nil
}

// readFiles makes options of the files; each is read now, so that a wrong one is known at once.
func (d *dialer) readFiles(o ConnectOptions) error {
	if o.CredsFile != "" {
		if _, err := os.ReadFile(o.CredsFile); err != nil {
			return fmt.Errorf("%w: credentials file: %w", ErrCredentials, err)
		}
		d.options = append(d.options, nats.UserCredentials(o.CredsFile))
	}
	if o.CAFile != "" {
		text, err := os.ReadFile(o.CAFile)
		if err != nil {
			return fmt.Errorf("%w: authorities: %w", ErrUntrusted, err)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(text) {
			return fmt.Errorf("%w: %s holds no certificate (PEM)", ErrUntrusted, o.CAFile)
		}
		d.options = append(d.options, nats.RootCAs(o.CAFile))
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		return fmt.Errorf("%w: a certificate and its key go together", ErrUntrusted)
	}
	if o.CertFile != "" {
		if _, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile); err != nil {
			return fmt.Errorf("%w: our certificate: %w", ErrUntrusted, err)
		}
		d.options = append(d.options, nats.ClientCert(o.CertFile, o.KeyFile))
	}
	return nil
}

// dial tries every server once. Of several failures it returns the one that an operator must mend.
func (d *dialer) dial(ctx context.Context) (*nats.Conn, error) {
	nc, err := nats.Connect(strings.Join(d.urls, ","), d.options...)
	if err == nil {
		if err = checkJetStream(ctx, nc); err != nil {
			nc.Close()
			return nil, err
		}
		return nc, nil
	}
	worst := classify(err)
	// The client tells of the last server only.
	for _, u := range d.urls {
		if len(d.urls) == 1 || !errors.Is(worst, ErrUnreachable) || ctx.Err() != nil {
			break
		}
		one, err := nats.Connect(u, append(d.options, nats.NoReconnect())...)
		if err == nil {
			one.Close()
			break // it came up meanwhile
		}
		worst = classify(err)
	}
	return nil, worst
}

// classify says which thing is wrong.
func classify(err error) error {
	var (
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
		verify    *tls.CertificateVerificationError
		alert     tls.AlertError
		record    tls.RecordHeaderError
	)
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked),
		errors.Is(err, nats.ErrAccountAuthExpired), errors.Is(err, nats.ErrNkeysNotSupported):
		return fmt.Errorf("%w: %w", ErrCredentials, err)
	case errors.As(err, &authority), errors.As(err, &host), errors.As(err, &invalid), errors.As(err, &verify), errors.As(err, &alert),
		errors.As(err, &record), errors.Is(err, nats.ErrSecureConnRequired), errors.Is(err, nats.ErrSecureConnWanted),
		strings.Contains(err.Error(), "tls: "):
		return fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// checkJetStream waits until JetStream answers. A cluster that starts has no leader for some seconds, and answers nothing.
func checkJetStream(ctx context.Context, nc *nats.Conn) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	patience := time.Now().Add(noJetStreamPatience)
	for {
		asked, cancel := context.WithTimeout(ctx, dialTimeout)
		_, err := js.AccountInfo(asked)
		cancel()
		absent := errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount)
		switch {
		case err == nil:
			return nil
		case absent && (nc.ConnectedClusterName() == "" || time.Now().After(patience)):
			return fmt.Errorf("%w: %w", ErrNoJetStream, err)
		}
		select {
		case <-time.After(connectPause):
		case <-ctx.Done():
			return fmt.Errorf("%w: JetStream has no leader: %w", ErrUnreachable, err)
		}
	}
}
