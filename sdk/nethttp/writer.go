package nethttp

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync/atomic"
)

// writer sees status and size of a response. What the writer below can do beside, http.ResponseController finds through Unwrap; code that
// asks for http.Flusher or http.Hijacker itself gets one exactly if there is one below, see wrapped.
type writer struct {
	http.ResponseWriter
	status int          // 0 = not written
	bytes  atomic.Int64 // a handler may write on another goroutine
}

// Unwrap is what http.ResponseController asks for.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter. Responses before the last one, such as 103, are not the status.
func (w *writer) WriteHeader(status int) {
	if w.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	w.implied()
	n, err := w.ResponseWriter.Write(p)
	w.bytes.Add(int64(n))
	return n, err
}

// WriteString implements io.StringWriter.
func (w *writer) WriteString(s string) (int, error) {
	w.implied()
	n, err := io.WriteString(w.ResponseWriter, s)
	w.bytes.Add(int64(n))
	return n, err
}

// ReadFrom implements io.ReaderFrom, which a server of HTTP/1 has and answers with sendfile.
func (w *writer) ReadFrom(r io.Reader) (int64, error) {
	w.implied()
	n, err := io.Copy(w.ResponseWriter, r)
	w.bytes.Add(n)
	return n, err
}

// implied is the status of a response that is written without one.
func (w *writer) implied() {
	if w.status == 0 {
		w.status = http.StatusOK
	}
}

// FlushError is what http.ResponseController asks for: a flush writes the head.
func (w *writer) FlushError() error {
	err := http.NewResponseController(w.ResponseWriter).Flush()
	if err == nil {
		w.implied()
	}
	return err
}

// wrapped returns the writer with the optional interfaces of the one below.
func (w *writer) wrapped() http.ResponseWriter {
	_, flushes := w.ResponseWriter.(http.Flusher)
	_, hijacks := w.ResponseWriter.(http.Hijacker)
	switch {
	case flushes && hijacks:
		return both{w, flusher{w}, hijacker{w}}
	case flushes:
		return struct {
			*writer
			flusher
		}{w, flusher{w}}
	case hijacks:
		return struct {
			*writer
			hijacker
		}{w, hijacker{w}}
	}
	return w
}

type both struct {
	*writer
	flusher
	hijacker
}

type flusher struct{ to *writer }

// Flush implements http.Flusher.
func (f flusher) Flush() {
	f.to.implied()
	f.to.ResponseWriter.(http.Flusher).Flush()
}

type hijacker struct{ to *writer }

// Hijack implements http.Hijacker. The response counts as a change of protocol, whatever is written to the connection.
func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := h.to.ResponseWriter.(http.Hijacker).Hijack()
	if err == nil && h.to.status == 0 {
		h.to.status = http.StatusSwitchingProtocols
	}
	return conn, rw, err
}
