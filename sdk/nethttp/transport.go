package nethttp

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
)

var (
	clientSpan     = sdk.NewSpan("", sdk.Target("http.client"))
	clientDuration = sdk.NewFloat("http_client_duration", "ms")
	clientErrors   = sdk.NewCounter("http_client_errors", "count")
)

// Transport returns a transport that records the requests that next sends, and sends the header traceparent with them, in place of one that
// is there. nil is http.DefaultTransport. A span ends when the body of the response is read to its end or closed, or with the error.
func Transport(next http.RoundTripper) http.RoundTripper {
	if next == nil {
		next = http.DefaultTransport
	}
	return &transport{next}
}

type transport struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	began := time.Now()
	method := methodOf(r)
	ctx, span := clientSpan.StartNamed(r.Context(), method)
	out := r
	if parent := sdk.TraceParent(ctx); parent != "" {
		out = r.WithContext(ctx) // a request belongs to the caller: neither it nor its header may change
		if out.Header = r.Header.Clone(); out.Header == nil {
			out.Header = http.Header{}
		}
		out.Header.Set("Traceparent", parent)
	}
	if r.URL != nil {
		span.SetText("host", r.URL.Host)
	}
	response, err := t.next.RoundTrip(out)
	if err != nil {
		clientErrors.Add(1)
		props := propsOf(method, "", 0)
		clientDuration.With(props).Record(milliseconds(time.Since(began)))
		span.Set(props)
		span.SetText("error", err.Error())
		span.End()
		return response, err
	}
	props := propsOf(method, "", response.StatusCode)
	clientDuration.With(props).Record(milliseconds(time.Since(began)))
	span.Set(props)
	if span == nil {
		return response, nil
	}
	if response.Request == out {
		response.Request = r
	}
	response.Body = watched(response.Body, span)
	return response, nil
}

// CloseIdleConnections is what http.Client asks for.
func (t *transport) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// watched returns a body that ends the span. That of a connection that changed its protocol is an io.Writer, too.
func watched(body io.ReadCloser, span *sdk.ContextSpan) io.ReadCloser {
	if body == nil || body == http.NoBody {
		span.End()
		return body
	}
	b := &responseBody{ReadCloser: body, span: span}
	if w, ok := body.(io.Writer); ok {
		return struct {
			*responseBody
			io.Writer
		}{b, w}
	}
	return b
}

// responseBody ends the span of a request.
type responseBody struct {
	io.ReadCloser
	span *sdk.ContextSpan
	once sync.Once
}

// Read implements io.Reader.
func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.end(err)
	}
	return n, err
}

// Close implements io.Closer.
func (b *responseBody) Close() error {
	err := b.ReadCloser.Close()
	b.end(io.EOF)
	return err
}

// end ends the span; io.EOF is no error.
func (b *responseBody) end(err error) {
	b.once.Do(func() {
		if !errors.Is(err, io.EOF) {
			clientErrors.Add(1)
			b.span.SetText("error", err.Error())
		}
		b.span.End()
	})
}
