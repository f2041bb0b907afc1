package lake

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/singleflight"
)

const (
	// CopyHold is how long a copy stays after its path was given out: longer than a query may run (60 s by default)
	// plus the time between planning and opening.
	CopyHold = 3 * time.Minute
	// maxFetches bounds the objects that are fetched at once; each is in memory while it is written out.
	maxFetches = 4
)

// ErrCacheFull says that the cache folder's bound is taken by copies in use.
var ErrCacheFull = errors.New("cache folder is full of copies in use; raise its bound or narrow the query")

// copies keeps copies of objects as files in a folder that anybody may empty at any time. A file's name carries
// its CRC-32C and length: a file that this process wrote is checked by its length on each use, one that was found at the
// start is read through and checked once, before its first use.
type copies struct {
	dir      string
	maxBytes int64
	bucket   Bucket
	flights  singleflight.Group
	fetches  chan struct{} // one token for each fetch under way

	mu    sync.Mutex
	byID  map[string]*list.Element // of *fileCopy
	order *list.List               // most recently used first
	bytes int64
}

type fileCopy struct {
	id      string // of the key
	crc     uint32
	size    int64
	checked bool
	coming  bool // counted, and its file is not in place yet: its fetch is under way
	used    time.Time
}

func openCopies(dir string, maxBytes int64, b Bucket) (*copies, error) {
	c := &copies{
		dir: dir, maxBytes: maxBytes, bucket: b,
		fetches: make(chan struct{}, maxFetches),
		byID:    map[string]*list.Element{}, order: list.New(),
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		info, err := e.Info()
		f, ok := parseCopyName(e.Name())
		if err != nil || !ok || !info.Mode().IsRegular() || info.Size() != f.size {
			// Not a copy, or half of one: the folder is ours, nothing else lives here.
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return nil, err
			}
			continue
		}
		c.add(f)
	}
	c.evict(0, time.Now())
	return c, nil
}

// copyID is the part of a file's name that stands for the key.
func copyID(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:16])
}

func (f *fileCopy) name() string { return fmt.Sprintf("%s-%08x-%d", f.id, f.crc, f.size) }

func parseCopyName(name string) (*fileCopy, bool) {
	parts := strings.Split(name, "-")
	if len(parts) != 3 || len(parts[0]) != 32 || len(parts[1]) != 8 {
		return nil, false
	}
	crc, err1 := strconv.ParseUint(parts[1], 16, 32)
	size, err2 := strconv.ParseInt(parts[2], 10, 64)
	return &fileCopy{id: parts[0], crc: uint32(crc), size: size}, err1 == nil && err2 == nil && size >= 0
}

// path returns the copy's path, fetching the object when there is no good copy.
func (c *copies) path(ctx context.Context, key string) (string, error) {
	if path, ok := c.lookup(copyID(key)); ok {
		return path, nil
	}
	// One fetch serves all who wait, so it outlives the one that began it.
	done := c.flights.DoChan(key, func() (any, error) {
		if path, ok := c.lookup(copyID(key)); ok {
			return path, nil
		}
		return c.fetch(context.WithoutCancel(ctx), key)
	})
	select {
	case r := <-done:
		if r.Err != nil {
			return "", r.Err
		}
		return r.Val.(string), nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// lookup finds a good copy and marks it as used. A file that is gone or has changed is forgotten.
func (c *copies) lookup(id string) (string, bool) {
	c.mu.Lock()
	e, ok := c.byID[id]
	if !ok || e.Value.(*fileCopy).coming {
		c.mu.Unlock()
		return "", false
	}
	f := *e.Value.(*fileCopy)
	e.Value.(*fileCopy).used = time.Now()
	c.order.MoveToFront(e)
	c.mu.Unlock()

	path := filepath.Join(c.dir, f.name())
	if f.checked {
		if info, err := os.Stat(path); err == nil && info.Size() == f.size {
			return path, true
		}
	} else if data, err := os.ReadFile(path); err == nil && int64(len(data)) == f.size && crc32.Checksum(data, castagnoli) == f.crc {
		c.mu.Lock()
		if e, ok := c.byID[id]; ok {
			e.Value.(*fileCopy).checked = true
		}
		c.mu.Unlock()
		return path, true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now, ok := c.byID[id]; ok && now == e {
		c.drop(e)
	}
	return "", false
}

func (c *copies) fetch(ctx context.Context, key string) (string, error) {
	c.fetches <- struct{}{}
	defer func() { <-c.fetches }()
	data, err := c.bucket.Read(ctx, key, 0, -1)
	if err != nil {
		return "", err
	}
	f := &fileCopy{id: copyID(key), crc: crc32.Checksum(data, castagnoli), size: int64(len(data)), checked: true, coming: true, used: time.Now()}
	c.mu.Lock()
	ok := c.evict(f.size, f.used)
	if ok {
		c.add(f) // counted before it is written, so that fetches at the same time see it
	}
	c.mu.Unlock()
	if !ok {
		return "", ErrCacheFull
	}
	path := filepath.Join(c.dir, f.name())
	err = c.write(path, data)
	c.mu.Lock()
	defer c.mu.Unlock()
	f.coming = false
	if err != nil {
		if e, ok := c.byID[f.id]; ok && e.Value == f {
			c.drop(e)
		}
		return "", err
	}
	return path, nil
}

// write puts the file in place at once. It is not fsynced: a copy that a power loss spoiled fails its check.
func (c *copies) write(path string, data []byte) error {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return err
	}
	temp := filepath.Join(c.dir, uuid.NewString())
	if err := os.WriteFile(temp, data, 0o644); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return nil
}

// add counts a copy. The caller holds mu, or is the constructor.
func (c *copies) add(f *fileCopy) {
	if old, ok := c.byID[f.id]; ok {
		c.drop(old)
	}
	c.byID[f.id] = c.order.PushFront(f)
	c.bytes += f.size
}

// drop forgets a copy and removes its file. The caller holds mu.
func (c *copies) drop(e *list.Element) {
	f := c.order.Remove(e).(*fileCopy)
	delete(c.byID, f.id)
	c.bytes -= f.size
	_ = os.Remove(filepath.Join(c.dir, f.name())) // gone already, or removed at the next start: it is only a copy
}

// evict makes room for n more bytes out of copies that nobody can be about to open, and tells whether there is room.
func (c *copies) evict(n int64, now time.Time) bool {
	for c.bytes+n > c.maxBytes {
		e := c.order.Back()
		if e == nil || now.Sub(e.Value.(*fileCopy).used) < CopyHold {
			return false
		}
		c.drop(e)
	}
	return true
}
