package lake

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/catalog"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Prefixes of the keys in a bucket. Every object of the lake is under one of them; garbage collection looks nowhere
// else, so other files that somebody puts into the bucket are left alone.
const (
	PackPrefix  = "packs/"
	ViewPrefix  = "views/"
	ClaimPrefix = bus.ClaimPrefix
)

// collectedPrefixes are where garbage collection looks.
var collectedPrefixes = []string{PackPrefix, ViewPrefix, ClaimPrefix}

// collected tells whether garbage collection looks at the key.
func collected(key string) bool {
	return slices.ContainsFunc(collectedPrefixes, func(p string) bool { return strings.HasPrefix(key, p) })
}

// MaxKey is the longest key in bytes: S3 allows 1,024, a folder bucket's path needs room for its root.
const MaxKey = 512

// maxSegment is the longest part of a key between two slashes, the limit of common file systems.
const maxSegment = 255

// seqsPerFolder is how many sequence numbers share a folder of packs, so that no folder grows past a size that
// file systems list comfortably.
const seqsPerFolder = 1 << 14

// PackKey is a new key for the pack of shard s whose first frame has sequence number first. No two calls return the
// same key: an owner that lost its lease and does not know it yet can never overwrite the pack of its successor,
// which may start at the same sequence number and end at another.
//
//	packs/<class>/<generation>/<shard>/<first / 16384, hex>/<first>-<uuid>.pack
func PackKey(s catalog.ShardID, first uint64) string {
	return fmt.Sprintf("%s%c/%d/%d/%08x/%020d-%s.pack", PackPrefix, s.Class, s.Gen, s.Shard, first/seqsPerFolder, first, uuid.NewString())
}

// viewSuffix ends the keys of views' files.
const viewSuffix = ".parquet"

// ViewKey is a new, unique key for a Parquet file of a view. Bucket is the start of the file's event-time bucket; only the
// reader of a listing is served by it, the catalog's row says what the file holds. Data are the file's bytes, whose CRC-32C
// the key ends with: who reads the whole file compares it.
//
//	views/<view>/<date of the bucket>/<hour and minute>-<uuid>-<CRC, 8 hex digits>.parquet
func ViewKey(view string, bucket int64, data []byte) string {
	t := time.Unix(0, bucket).UTC()
	return fmt.Sprintf("%s%s/%s/%s-%s-%08x%s", ViewPrefix, view, t.Format("2006-01-02"), t.Format("1504"), uuid.NewString(), crcOf(data), viewSuffix)
}

// ClaimKey is the key of a body that was too large for a frame. The id must be a new one for each body (not the block's
// id: a client may send two different bodies under one block id, and the second must not replace the first).
func ClaimKey(id telemetry.ID) string { return bus.ClaimKey(id) }

// IsClaimKey tells whether key names a single body rather than a pack.
func IsClaimKey(key string) bool { return strings.HasPrefix(key, ClaimPrefix) }

// errBadKey is wrapped by every refusal of a key.
var errBadKey = errors.New("bad object key")

// checkKey refuses keys that could leave a folder bucket or that some store would spell differently: parts of
// [0-9A-Za-z._-] with single slashes between them, none starting with a dot.
func checkKey(key string) error {
	if key == "" || len(key) > MaxKey {
		return fmt.Errorf("%w: %d bytes, want 1 to %d", errBadKey, len(key), MaxKey)
	}
	for part := range strings.SplitSeq(key, "/") {
		if part == "" || part[0] == '.' || len(part) > maxSegment {
			return fmt.Errorf("%w: %q has an empty, hidden or too long part", errBadKey, key)
		}
		for i := range len(part) {
			if !keyByte(part[i]) {
				return fmt.Errorf("%w: %q has a byte outside [0-9A-Za-z._-/]", errBadKey, key)
			}
		}
	}
	return nil
}

// checkPrefix is checkKey for the prefix of a listing: it may be empty or end anywhere.
func checkPrefix(prefix string) error {
	whole := strings.TrimSuffix(prefix, "/")
	if whole == "" && prefix == "" {
		return nil
	}
	return checkKey(whole)
}

func keyByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-'
}
