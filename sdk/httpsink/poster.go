package httpsink

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/deliver"
)

// Bounds of an exchange.
const (
	dialTimeout     = 5 * time.Second
	idleTimeout     = 90 * time.Second
	maxAnswerHeader = 64 << 10
	maxAnswerBody   = 64 << 10 // read so that the connection can be used again; what has more is closed
	maxReason       = 200      // bytes of an answer that an error quotes
)

// Poster posts single requests.
type Poster struct {
	transport *http.Transport
	urls      [sdk.KindBlock + 1]*url.URL
	timeout   time.Duration
	header    http.Header // of every request without a token
	tokens    *tokens     // nil = header has the key, if there is one
	secrets   []string    // kept out of errors
}

var _ deliver.Poster = (*Poster)(nil)

// NewPoster returns a poster for a valid config. It must be closed when no longer needed.
func NewPoster(cfg Config) (*Poster, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, errors.New("URL is not an address") // the reason would quote it
	}
	p := &Poster{timeout: cfg.RequestTimeout, transport: newTransport(cfg), header: http.Header{
		"Content-Type": {"application/octet-stream"},
		"User-Agent":   {"micromegas-go"},
		// Without a value it is not sent; it tells the transport that a request may be sent again when an idle connection turns out dead.
		"X-Idempotency-Key": {},
	}}
	switch {
	case cfg.Key != "":
		p.header.Set("Authorization", "Bearer "+string(cfg.Key))
		p.secrets = append(p.secrets, string(cfg.Key))
	case !cfg.OIDC.none():
		p.tokens = newTokens(cfg.OIDC, p.transport, cfg.RequestTimeout)
	case u.User != nil:
		password, _ := u.User.Password()
		basic := base64.StdEncoding.EncodeToString([]byte(u.User.Username() + ":" + password))
		p.header.Set("Authorization", "Basic "+basic)
		p.secrets = append(p.secrets, password, basic)
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	if u.Path == "" {
		u.Path = "/" // JoinPath makes a relative path of none, which the transport sends as it is
	}
	for kind := sdk.KindProcess; kind <= sdk.KindBlock; kind++ {
		p.urls[kind] = u.JoinPath(kind.Path())
	}
	return p, nil
}

func newTransport(cfg Config) *http.Transport {
	d := net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: d.DialContext, ForceAttemptHTTP2: true, DisableCompression: true,
		TLSHandshakeTimeout: dialTimeout, IdleConnTimeout: idleTimeout, MaxResponseHeaderBytes: maxAnswerHeader,
		MaxIdleConns: cfg.Delivery.MaxInFlight + 1, MaxIdleConnsPerHost: cfg.Delivery.MaxInFlight, MaxConnsPerHost: cfg.Delivery.MaxInFlight,
	}
	if cfg.TLS != nil {
		t.TLSClientConfig = cfg.TLS.Clone()
	}
	return t
}

// Close closes idle connections.
func (p *Poster) Close() { p.transport.CloseIdleConnections() }

// Post makes one attempt; with tokens a second one at once, when the server does not take the first token.
func (p *Poster) Post(ctx context.Context, r *sdk.Request) deliver.Answer {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	if p.tokens == nil {
		a, _ := p.post(ctx, r, p.header, nil)
		return a
	}
	var a deliver.Answer
	for range 2 {
		token, err := p.tokens.get(ctx)
		if err != nil {
			return deliver.Answer{Verdict: deliver.Away, Err: err}
		}
		header := p.header.Clone()
		header.Set("Authorization", "Bearer "+token)
		var status int
		if a, status = p.post(ctx, r, header, []string{token}); status != http.StatusUnauthorized && status != http.StatusForbidden {
			return a
		}
		p.tokens.forget(token)
	}
	return a
}

// post sends the request and returns its answer, with the status, 0 when there was none.
func (p *Poster) post(ctx context.Context, r *sdk.Request, header http.Header, secrets []string) (deliver.Answer, int) {
	u := p.urls[min(r.Kind, sdk.KindBlock)]
	// Made by hand, and given to the transport instead of a client: no redirects, no cookies, no parsing of an address per request.
	req := (&http.Request{
		Method: http.MethodPost, URL: u, Host: u.Host, Header: header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		ContentLength: int64(len(r.Body)), Body: http.NoBody,
	}).WithContext(ctx)
	if len(r.Body) > 0 {
		req.Body = io.NopCloser(bytes.NewReader(r.Body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(r.Body)), nil }
	}
	resp, err := p.transport.RoundTrip(req)
	if err != nil {
		return deliver.Answer{Verdict: verdictOfError(err), Err: fmt.Errorf("post %s: %w", u, err)}, 0
	}
	defer resp.Body.Close()
	return p.answer(resp, u, secrets), resp.StatusCode
}

// verdictOfError tells a server that was not reached from a connection that broke, perhaps by what was sent.
func verdictOfError(err error) deliver.Verdict {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return deliver.Away
	}
	return deliver.Failed
}

// answer judges a response. A body that breaks off does not matter: the status has come.
func (p *Poster) answer(resp *http.Response, u *url.URL, secrets []string) deliver.Answer {
	var reason bytes.Buffer
	_, err := io.CopyN(&reason, resp.Body, maxReason)
	if err == nil {
		_, _ = io.CopyN(io.Discard, resp.Body, maxAnswerBody)
	}
	a := deliver.Answer{Verdict: verdictOf(resp.StatusCode), RetryAfter: retryAfter(resp.Header.Get("Retry-After"))}
	if a.Verdict != deliver.Delivered {
		text := printable(reason.String())
		if to := resp.Header.Get("Location"); to != "" {
			text = "redirect to " + printable(redactURL(to)) + ", which is not followed: set the URL to where the gateway is"
		}
		for _, s := range append(secrets, p.secrets...) {
			if s != "" {
				text = strings.ReplaceAll(text, s, redacted)
			}
		}
		a.Err = fmt.Errorf("post %s: status %d: %s", u, resp.StatusCode, text)
	}
	return a
}

func verdictOf(status int) deliver.Verdict {
	switch {
	case status/100 == 2:
		return deliver.Delivered
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly:
		return deliver.Failed
	case status == http.StatusTooManyRequests, status == http.StatusBadGateway, status == http.StatusServiceUnavailable,
		status == http.StatusGatewayTimeout, status/100 == 3:
		return deliver.Away
	case status/100 == 4:
		return deliver.Refused
	}
	return deliver.Failed
}

// retryAfter reads the header: seconds or a date; 0 for anything else.
func retryAfter(s string) time.Duration {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return seconds(max(n, 0))
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(time.Until(t), 0)
	}
	return 0
}

// printable returns a foreign text fit for one line of a log.
func printable(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return ' '
		}
		return r
	}, s))
}
