// Package httpsink is the sink that posts requests to a gateway, with an API key or with tokens of an OAuth 2 client.
//
// What is queued, dropped and tried again is said in package deliver. Here is what a single attempt means: any 2xx delivers; a 4xx refuses for
// good, except 408, 425 and 429; 401 and 403 make a client of OAuth 2 fetch a new token once, then refuse. Everything else is tried again:
// 429, 502, 503, 504, redirects and connections that were never made with the patience for a gateway that is away, other
// 5xx, time-outs and broken connections as failures that may be the request's own.
//
// A redirect is never followed: it would carry the key elsewhere. The sink has a transport of its own, so that a program that instruments
// http.DefaultTransport does not record telemetry about sending telemetry. Keys and secrets are in no error and no formatted Config.
package httpsink

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/micromegas-go/micromegas/sdk/deliver"
)

// Secret is a text that does not show when it is formatted.
type Secret string

const redacted = "[redacted]"

// String returns a placeholder, or "" for an empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString returns what String does, quoted.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// MarshalText returns what String does.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Config says where requests go and how.
type Config struct {
	URL  string // base of the gateway, without /ingestion
	Key  Secret // bearer key; "" = none, or OIDC
	OIDC OIDC   // where tokens come from when there is no key

	RequestTimeout time.Duration // of one attempt, the answer included
	TLS            *tls.Config   // nil = the defaults of crypto/tls

	Delivery deliver.Config
}

// OIDC is a client of OAuth 2 that gets tokens by its credentials. The zero value is none.
type OIDC struct {
	TokenEndpoint string
	ClientID      string
	ClientSecret  Secret
	Audience      string        // "" = not sent
	Buffer        time.Duration // a token is renewed so long before it expires
}

// String describes the client without its secret.
func (o OIDC) String() string {
	if o.none() {
		return "no client"
	}
	return fmt.Sprintf("client %q of %s", o.ClientID, redactURL(o.TokenEndpoint))
}

// GoString returns what String does.
func (o OIDC) GoString() string { return o.String() }

func (o OIDC) none() bool { return o.TokenEndpoint == "" && o.ClientID == "" && o.ClientSecret == "" }

// ErrNoURL is the error of FromEnv when the environment names no gateway.
var ErrNoURL = errors.New("MICROMEGAS_TELEMETRY_URL is not set")

const (
	maxRequestTimeout = 10 * time.Minute
	defaultBuffer     = 3 * time.Minute
)

// DefaultConfig returns the defaults of everything but the URL.
func DefaultConfig() Config {
	return Config{RequestTimeout: 10 * time.Second, OIDC: OIDC{Buffer: defaultBuffer}, Delivery: deliver.DefaultConfig()}
}

// Validate returns every mistake at once.
func (c Config) Validate() error {
	var errs []error
	if !isHTTP(c.URL) {
		errs = append(errs, fmt.Errorf("URL %q is not like http://host:port or https://host", redactURL(c.URL)))
	}
	if c.RequestTimeout <= 0 || c.RequestTimeout > maxRequestTimeout {
		errs = append(errs, fmt.Errorf("request timeout of %s: want more than 0, up to %s", c.RequestTimeout, maxRequestTimeout))
	}
	if strings.ContainsAny(string(c.Key), "\r\n\x00") {
		errs = append(errs, errors.New("key has a line break in it"))
	}
	if o := c.OIDC; !o.none() {
		if !isHTTP(o.TokenEndpoint) {
			errs = append(errs, fmt.Errorf("token endpoint %q is not like http://host or https://host", redactURL(o.TokenEndpoint)))
		}
		if o.ClientID == "" || o.ClientSecret == "" {
			errs = append(errs, errors.New("token endpoint, client id and client secret go together"))
		}
		if o.Buffer < 0 {
			errs = append(errs, fmt.Errorf("token buffer of %s: want 0 or more", o.Buffer))
		}
	}
	return errors.Join(append(errs, c.Delivery.Validate())...)
}

func isHTTP(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// redactURL returns an address without its user, query and fragment.
func redactURL(s string) string {
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Opaque != "" {
		return redacted // where its secrets are nobody knows
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// String describes the config without its secrets.
func (c Config) String() string {
	auth := "no key"
	switch {
	case c.Key != "":
		auth = "key " + redacted
	case !c.OIDC.none():
		auth = c.OIDC.String()
	}
	return fmt.Sprintf("httpsink.Config{%s, %s, timeout %s, %d in flight, %d/%d bytes}", redactURL(c.URL), auth, c.RequestTimeout,
		c.Delivery.MaxInFlight, c.Delivery.SoftBytes, c.Delivery.HardBytes)
}

// GoString returns what String does.
func (c Config) GoString() string { return c.String() }

// FromEnv returns the defaults, changed by the variables that the Rust client reads too:
//
//	MICROMEGAS_TELEMETRY_URL                       base of the gateway; ErrNoURL when it is not set
//	MICROMEGAS_INGESTION_API_KEY                   bearer key
//	MICROMEGAS_OIDC_TOKEN_ENDPOINT, _CLIENT_ID,
//	  _CLIENT_SECRET, _AUDIENCE,
//	  _TOKEN_BUFFER_SECONDS                        tokens, when there is no key
//	MICROMEGAS_TELEMETRY_MAX_QUEUE_BYTES           Delivery.SoftBytes
//	MICROMEGAS_TELEMETRY_HARD_QUEUE_BYTES          Delivery.HardBytes
//	MICROMEGAS_TELEMETRY_MAX_IN_FLIGHT_REQUESTS    Delivery.MaxInFlight
//	MICROMEGAS_TELEMETRY_REQUEST_TIMEOUT_SECS      RequestTimeout
//
// The error names every variable that cannot be read.
func FromEnv() (Config, error) {
	c := DefaultConfig()
	if c.URL = os.Getenv("MICROMEGAS_TELEMETRY_URL"); c.URL == "" {
		return c, ErrNoURL
	}
	return c.fromEnv()
}

// fromEnv reads all variables but the URL.
func (c Config) fromEnv() (Config, error) {
	c.Key = Secret(os.Getenv("MICROMEGAS_INGESTION_API_KEY"))
	c.OIDC.TokenEndpoint = os.Getenv("MICROMEGAS_OIDC_TOKEN_ENDPOINT")
	c.OIDC.ClientID = os.Getenv("MICROMEGAS_OIDC_CLIENT_ID")
	c.OIDC.ClientSecret = Secret(os.Getenv("MICROMEGAS_OIDC_CLIENT_SECRET"))
	c.OIDC.Audience = os.Getenv("MICROMEGAS_OIDC_AUDIENCE")
	if c.OIDC.TokenEndpoint == "" || c.Key != "" { // a client id alone is there for the tools that query
		c.OIDC = OIDC{Buffer: defaultBuffer}
	}
	var e env
	e.integer("MICROMEGAS_TELEMETRY_MAX_QUEUE_BYTES", func(n int64) { c.Delivery.SoftBytes = n })
	e.integer("MICROMEGAS_TELEMETRY_HARD_QUEUE_BYTES", func(n int64) { c.Delivery.HardBytes = n })
	switch soft, hard := os.Getenv("MICROMEGAS_TELEMETRY_MAX_QUEUE_BYTES") != "", os.Getenv("MICROMEGAS_TELEMETRY_HARD_QUEUE_BYTES") != ""; {
	case soft && !hard: // a bound that stands alone moves the other one out of its way
		c.Delivery.HardBytes = max(c.Delivery.HardBytes, c.Delivery.SoftBytes)
	case hard && !soft:
		c.Delivery.SoftBytes = min(c.Delivery.SoftBytes, c.Delivery.HardBytes)
	}
	e.integer("MICROMEGAS_TELEMETRY_MAX_IN_FLIGHT_REQUESTS", func(n int64) { c.Delivery.MaxInFlight = int(min(n, 1<<30)) })
	e.integer("MICROMEGAS_TELEMETRY_REQUEST_TIMEOUT_SECS", func(n int64) { c.RequestTimeout = seconds(n) })
	e.integer("MICROMEGAS_OIDC_TOKEN_BUFFER_SECONDS", func(n int64) { c.OIDC.Buffer = seconds(n) })
	return c, errors.Join(append(e.errs, c.Validate())...)
}

// seconds is at most a year, so that it never overflows.
func seconds(n int64) time.Duration { return time.Duration(min(n, 365*24*3600)) * time.Second }

// env reads variables and collects what is wrong with them.
type env struct{ errs []error }

func (e *env) integer(name string, set func(int64)) {
	s := os.Getenv(name)
	if s == "" {
		return
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		e.errs = append(e.errs, fmt.Errorf("%s is %q, not a number", name, s))
		return
	}
	set(n)
}
