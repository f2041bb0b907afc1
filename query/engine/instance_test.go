package engine

import (
	"errors"
	"io"
	"log/slog"
	"testing"
)

// TestFatalErrorOpensANewInstance plays a fatal error: the open connection ends in peace, the
// next one gets a new instance.
func TestFatalErrorOpensANewInstance(t *testing.T) {
	e, err := Open(DefaultConfig(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	before, err := e.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fatal := parseError(`{"exception_type":"FATAL","exception_message":"database has been invalidated"}`)
	err = before.link.run(t.Context(), func() *Error { return fatal })
	if !errors.Is(err, fatal) || !fatal.Retryable() || fatal.Class != Internal {
		t.Fatalf("%+v", err)
	}
	after, err := e.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if before.link.inst == after.link.inst {
		t.Error("the dead instance goes on")
	}
	for _, c := range []*Conn{after, before} {
		res, err := c.Query(t.Context(), "SELECT property_get('{\"a\":\"1\"}', 'a') AS v", QueryOptions{})
		if err != nil {
			t.Fatal(err)
		}
		batch, err := res.Next()
		if err != nil {
			t.Fatal(err)
		}
		batch.Release()
		if _, err := res.Next(); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		res.Close()
		c.Close()
	}
}

func TestErrorTexts(t *testing.T) {
	for _, c := range []struct {
		text, class, message string
		position             int
	}{
		{`{"exception_type":"Binder","exception_message":"m","error_subtype":"COLUMN_NOT_FOUND","name":"nope","candidates":"a,b","position":"7"}`, "bind", "No field named nope. Did you mean a, b?", 7},
		{`{"exception_type":"Catalog","exception_message":"m","error_subtype":"MISSING_ENTRY","type":"Scalar Function","name":"f"}`, "bind", "Invalid function 'f'", -1},
		{`{"exception_type":"Catalog","exception_message":"m","error_subtype":"MISSING_ENTRY","type":"Table","name":"t","candidates":"pg_x"}`, "bind", "table 't' not found", -1},
		{`Parser Error: {"exception_type":"Parser","exception_message":"syntax error","position":"3"}`, "parse", "syntax error", 3},
		{`Invalid Input Error: limit: too much`, "resource", "too much", -1},
		{`Out of Memory Error: failed to allocate`, "resource", "failed to allocate", -1},
		{`{"exception_type":"Out of Memory","exception_message":"failed to allocate"}`, "resource", "failed to allocate", -1},
		{`{"exception_type":"INTERRUPT","exception_message":"Interrupted!"}`, "interrupted", "Interrupted!", -1},
		{`{"exception_type":"INTERNAL","exception_message":"Assertion"}`, "internal", "Assertion", -1},
		{`{"exception_type":"Invalid","exception_message":"Out of buffer"}`, "internal", "Out of buffer", -1}, // thrown without a class
		{`{"exception_type":"Invalid Input","exception_message":"Incorrect stats size for type INTEGER"}`, "internal", "Incorrect stats size for type INTEGER", -1},
		{`{"exception_type":"Invalid Input","exception_message":"Failed to cast value"}`, "execution", "Failed to cast value", -1},
		{"something { else", "internal", "something { else", -1},
		{"", "internal", "", -1},
	} {
		e := parseError(c.text)
		if e.Class.String() != c.class || e.Message != c.message || e.Position != c.position {
			t.Errorf("%s: %+v", c.text, *e)
		}
	}
}
