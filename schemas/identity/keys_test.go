package identity_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/identity"
)

func TestCheckAcceptsExactlyTheListedKeys(t *testing.T) {
	keys, err := identity.ParseKeys(`[{"name":"game","key":"alpha-secret"},{"name":"tools","key":"beta secret"}]`)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ header, want string }{
		{"Bearer alpha-secret", "game"},
		{"Bearer beta secret", "tools"},
		{"", ""},
		{"Bearer", ""},
		{"Bearer ", ""},
		{"bearer alpha-secret", ""},
		{"BEARER alpha-secret", ""},
		{"Bearer  alpha-secret", ""},
		{" Bearer alpha-secret", ""},
		{"Bearer\talpha-secret", ""},
		{"Bearer alpha-secret ", ""},
		{"Bearer alpha-secre", ""},
		{"Bearer Alpha-secret", ""},
		{"alpha-secret", ""},
		{"Basic alpha-secret", ""},
		{"Bearer alpha-secret\x00", ""},
		{"Bearer " + strings.Repeat("x", identity.MaxKeyBytes+1), ""},
	} {
		name, err := keys.Check(c.header)
		if name != c.want {
			t.Errorf("Check(%.40q) = %q, want %q", c.header, name, c.want)
		}
		if (err == nil) != (c.want != "") {
			t.Errorf("Check(%.40q) error = %v", c.header, err)
		}
		if err != nil && !errors.Is(err, identity.ErrUnauthorized) {
			t.Errorf("Check(%.40q) error = %v, want ErrUnauthorized", c.header, err)
		}
	}
}

func TestParseKeysRefusesWhatItCannotUse(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		_, err := identity.ParseKeys(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseKeys(%.60s) error = %v, want one with %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("ParseKeys(%.60s) error shows the key: %v", text, err)
		}
	}
	f(``, "want a JSON list")
	f(`canary`, "want a JSON list")
	f(`"canary"`, "want a JSON list")
	f(`{"name":"a","key":"canary"}`, "want a JSON list")
	f(`[{"name":"a","key":"canary"}] trailing`, "want a JSON list")
	f(`[{"name":"a","key":"canary","canary":1}]`, "want a JSON list")
	f(`[{"name":"a","key":7}]`, "want a JSON list")
	f(`[]`, "empty")
	f(`null`, "empty")
	f(`[{"key":"canary"}]`, "key 0: no name")
	f(`[{"name":"a","key":"canary"},{"name":"b"}]`, `key 1 ("b"): no key`)
	f(`[{"name":"a","key":"canary"},{"name":"b","key":"canary"}]`, "same key as number 0")
	f(`[{"name":"a","key":"canary`+strings.Repeat("x", identity.MaxKeyBytes)+`"}]`, "bytes long")
	f(`[`+strings.Repeat(`{"name":"a","key":"canary"},`, identity.MaxKeys)+`{"name":"a","key":"canary"}]`, "at most 1024")
	f(`[{"key":"canary"},{"name":"b"}]`, `key 1 ("b"): no key`) // every mistake at once
}

func TestKeysNeverPrintASecret(t *testing.T) {
	keys, err := identity.ParseKeys(`[{"name":"game","key":"canary-5157"}]`)
	if err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("keys", "keys", keys)
	for _, text := range []string{logged.String(), fmt.Sprintf("%v %+v %#v %s", keys, keys, keys, keys), keys.String()} {
		if strings.Contains(text, "canary") || !strings.Contains(text, "1 API keys") {
			t.Errorf("printed as %q", text)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	keys, err := identity.ParseKeys(`[{"name":"game","key":"alpha-secret-of-some-length-0123456789"},{"name":"b","key":"beta"}]`)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := keys.Check("Bearer alpha-secret-of-some-length-0123456789"); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add(`[{"name":"a","key":"b"}]`, "Bearer b")
	f.Fuzz(func(t *testing.T, text, header string) {
		keys, err := identity.ParseKeys(text)
		if err != nil {
			return
		}
		if name, err := keys.Check(header); err == nil && name == "" {
			t.Fatal("a key without a name was accepted")
		}
	})
}
