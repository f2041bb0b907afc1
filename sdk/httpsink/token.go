package httpsink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Bounds of tokens.
const (
	maxTokenAnswer  = 64 << 10
	defaultLifetime = 5 * time.Minute // of a token whose answer does not tell
)

// tokens fetches tokens by client credentials and keeps the last one until shortly before it expires.
type tokens struct {
	cfg       OIDC
	transport http.RoundTripper
	timeout   time.Duration
	turn      chan struct{} // one goroutine at a time; it guards what follows
	token     string
	renew     time.Time
}

func newTokens(cfg OIDC, transport http.RoundTripper, timeout time.Duration) *tokens {
	return &tokens{cfg: cfg, transport: transport, timeout: timeout, turn: make(chan struct{}, 1)}
}

// get returns a token that is good for a while. Of several callers one fetches it, the others wait.
func (t *tokens) get(ctx context.Context) (string, error) {
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		return "", fmt.Errorf("wait for a token: %w", ctx.Err())
	}
	defer func() { <-t.turn }()
	if t.token != "" && time.Now().Before(t.renew) {
		return t.token, nil
	}
	token, lifetime, err := t.fetch(ctx)
	if err != nil {
		return "", fmt.Errorf("token from %s: %w", redactURL(t.cfg.TokenEndpoint), err)
	}
	t.token, t.renew = token, time.Now().Add(lifetime-min(t.cfg.Buffer, lifetime/2))
	return token, nil
}

// forget drops a token that the gateway did not take, unless it was replaced already.
func (t *tokens) forget(token string) {
	t.turn <- struct{}{}
	defer func() { <-t.turn }()
	if t.token == token {
		t.token = ""
	}
}

func (t *tokens) fetch(ctx context.Context) (token string, lifetime time.Duration, err error) {
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {t.cfg.ClientID}, "client_secret": {string(t.cfg.ClientSecret)}}
	if t.cfg.Audience != "" {
		form.Set("audience", t.cfg.Audience)
	}
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.cfg.TokenEndpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return "", 0, errors.New("endpoint is not an address") // the reason would quote it
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	resp, err := t.transport.RoundTrip(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer))
	if err != nil {
		return "", 0, fmt.Errorf("read answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", 0, fmt.Errorf("status %d", resp.StatusCode) // the body may echo the credentials
	}
	return parseToken(body)
}

func parseToken(body []byte) (token string, lifetime time.Duration, err error) {
	var answer struct {
		AccessToken string  `json:"access_token"`
		ExpiresIn   float64 `json:"expires_in"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.AccessToken == "" || strings.ContainsAny(answer.AccessToken, "\r\n\x00") {
		return "", 0, fmt.Errorf("answer of %d bytes holds no token", len(body))
	}
	lifetime = defaultLifetime
	if s := answer.ExpiresIn; s > 0 {
		lifetime = seconds(int64(min(s, 1e9)))
	}
	return answer.AccessToken, lifetime, nil
}
