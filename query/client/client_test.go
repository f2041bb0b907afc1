package client

import "testing"

func TestParseAddress(t *testing.T) {
	f := func(address, want string, secure bool) {
		t.Helper()
		got, tls, err := parseAddress(address)
		if (err != nil) != (want == "") || got != want || tls != secure {
			t.Errorf("%q: %q %v %v, want %q %v", address, got, tls, err, want, secure)
		}
	}
	f("grpc://localhost:50051", "localhost:50051", false)
	f("localhost:50051", "localhost:50051", false)
	f("http://127.0.0.1:1", "127.0.0.1:1", false)
	f("grpc+tls://example.org:443", "example.org:443", true)
	f("https://[::1]:443", "[::1]:443", true)
	f("ftp://x:1", "", false)
	f("grpc://localhost", "", false)
	f("", "", false)
	f("grpc://:50051", "", false)
	f("://", "", false)
}
