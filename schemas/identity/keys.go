// Package identity says who is calling.
// Used by gateway (HTTP ingestion) and query (FlightSQL); its one input is the key list of MICROMEGAS_API_KEYS.
//
// Invariants: a secret is never kept, printed or put into an error (only its SHA-256 is kept); a check takes the
// same time whichever key matches, or none.
package identity

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// ErrUnauthorized is what Check returns for a missing, malformed or unknown credential. It does not say which,
// because the caller may show it to a stranger.
var ErrUnauthorized = errors.New("unknown or missing bearer credential")

// bearerPrefix is compared exactly: upper and lower case count, and so does the one space.
const bearerPrefix = "Bearer "

// Bounds of the key list. Every check walks the whole list, so its length is part of the cost of a request.
const (
	// MaxKeys is the largest number of keys in one list.
	MaxKeys = 1024
	// MaxKeyBytes is the longest key.
	MaxKeyBytes = 4096
)

// Keys is a fixed list of named API keys. It is safe for concurrent use and holds no secret.
type Keys struct {
	keys []key
}

type key struct {
	name string
	sum  [sha256.Size]byte
}

// ParseKeys reads a JSON list of API keys, [{"name":"...","key":"..."}]. It reports every mistake at once, by
// position in the list, and never quotes the text.
func ParseKeys(text string) (*Keys, error) {
	var list []struct {
		Name string `json:"name"`
		Key  string `json:"key"`
	}
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&list); err != nil || dec.More() {
		// The cause is left out on purpose: encoding/json quotes what it could not use, and that may be a key.
		return nil, fmt.Errorf(`API keys: want a JSON list like [{"name":"game","key":"..."}], the text is something else near byte %d`, dec.InputOffset())
	}
	if len(list) == 0 {
		return nil, errors.New("API keys: the list is empty, so nobody could ever call; leave it unset or add a key")
	}
	if len(list) > MaxKeys {
		return nil, fmt.Errorf("API keys: %d keys, at most %d are allowed", len(list), MaxKeys)
	}
	k := &Keys{keys: make([]key, 0, len(list))}
	seen := make(map[[sha256.Size]byte]int, len(list))
	var mistakes []error
	for i, e := range list {
		sum := sha256.Sum256([]byte(e.Key))
		switch first, dup := seen[sum]; {
		case e.Name == "":
			mistakes = append(mistakes, fmt.Errorf("API key %d: no name", i))
		case e.Key == "":
			mistakes = append(mistakes, fmt.Errorf("API key %d (%q): no key", i, e.Name))
		case len(e.Key) > MaxKeyBytes:
			mistakes = append(mistakes, fmt.Errorf("API key %d (%q): %d bytes long, at most %d are allowed", i, e.Name, len(e.Key), MaxKeyBytes))
		case dup:
			mistakes = append(mistakes, fmt.Errorf("API key %d (%q): the same key as number %d", i, e.Name, first))
		}
		seen[sum] = i
		k.keys = append(k.keys, key{name: e.Name, sum: sum})
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	return k, nil
}

// Check returns the name of the key that an Authorization header carries, or ErrUnauthorized. The digest of the
// token is compared with every key, so the time taken does not depend on which one matches.
func (k *Keys) Check(authorizationHeader string) (name string, err error) {
	token, ok := strings.CutPrefix(authorizationHeader, bearerPrefix)
	if !ok || token == "" || len(token) > MaxKeyBytes {
		return "", ErrUnauthorized
	}
	sum := sha256.Sum256([]byte(token))
	match := -1
	for i := range k.keys {
		if subtle.ConstantTimeCompare(sum[:], k.keys[i].sum[:]) == 1 {
			match = i
		}
	}
	if match < 0 {
		return "", ErrUnauthorized
	}
	return k.keys[match].name, nil
}

// Names lists the names of the keys in the order given.
func (k *Keys) Names() []string {
	names := make([]string, len(k.keys))
	for i := range k.keys {
		names[i] = k.keys[i].name
	}
	return names
}

// String tells how many keys there are, nothing of them.
func (k *Keys) String() string { return fmt.Sprintf("%d API keys", len(k.keys)) }

// GoString is String: a %#v must not print digests.
func (k *Keys) GoString() string { return k.String() }

// LogValue is String for slog.
func (k *Keys) LogValue() slog.Value { return slog.StringValue(k.String()) }
