package lake

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/semaphore"
)

// CopyHold is how long a copy stays after its path was given out: longer than a query may run (60 s by default)
// plus the time between planning and opening.
const CopyHold = 3 * time.Minute

// maxWarm is the largest object that is kept as it is written. Larger ones are made by merges: much of them may never be read.
const maxWarm = 64 << 20

// writeAttempts is how often a copy is written whose folder vanishes meanwhile.
const writeAttempts = 4

// ErrCacheFull says that the cache folder's bound is taken by copies in use.
var ErrCacheFull = errors.New("cache folder is full of copies in use; raise its bound or narrow the query")

// CacheStats counts what the copies of a remote bucket's objects did since the start.
type CacheStats struct {
	Hits         int64 `json:"hits"`          // whole objects asked for that were there
	Misses       int64 `json:"misses"`        // and that were not
	RangeHits    int64 `json:"range_hits"`    // segments of objects
	RangeMisses  int64 `json:"range_misses"`  //
	FetchedBytes int64 `json:"fetched_bytes"` // that came from the bucket
	Warmed       int64 `json:"warmed"`        // objects kept as they were written
	Evicted      int64 `json:"evicted"`       // copies that made room
	Damaged      int64 `json:"damaged"`       // copies that were not what had been written
	Full         int64 `json:"full"`          // objects for which no room was left (ErrCacheFull)
	Copies       int64 `json:"copies"`        // now
	Bytes        int64 `json:"bytes"`         // now
	MaxBytes     int64 `json:"max_bytes"`     // the bound of Bytes
}

// cache keeps copies of objects, and of segments of objects, as files in a folder that anybody may empty at any time. A file's name
// carries its CRC-32C and length. A copy that is read here is checked each time; one whose path is given out is checked before its
// first use and whenever its file was written to since.
type cache struct {
	dir      string
	maxBytes int64
	bucket   Bucket
	paths    flights[string]
	ranges   flights[[]byte]
	requests chan struct{}       // a token for each request under way
	inFlight *semaphore.Weighted // bytes being fetched

	mu    sync.Mutex
	byID  map[string]*list.Element // of *fileCopy
	order *list.List               // most recently used first
	stats CacheStats
}

type fileCopy struct {
	id      string // of the key, or of the segment
	crc     uint32
	size    int64
	checked time.Time // the file's time of change when it was checked; zero: not yet
	coming  bool      // counted, and its file is not in place yet
	held    time.Time // when its path was last given out
}

func openCache(dir string, maxBytes int64, b Bucket) (*cache, error) {
	c := &cache{
		dir: dir, maxBytes: maxBytes, bucket: b,
		requests: make(chan struct{}, maxFetches), inFlight: semaphore.NewWeighted(maxInFlight),
		byID: map[string]*list.Element{}, order: list.New(),
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

// close ends fetches under way.
func (c *cache) close() {
	c.paths.end()
	c.ranges.end()
}

func (c *cache) snapshot() CacheStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Copies, s.MaxBytes = int64(len(c.byID)), c.maxBytes
	return s
}

// count changes the statistics.
func (c *cache) count(change func(*CacheStats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.stats)
}

// copyID is the part of a file's name that stands for a key, or for a segment of it.
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

// find returns what is known of a copy, and marks it as used.
func (c *cache) find(id string, hold bool) (fileCopy, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byID[id]
	if !ok || e.Value.(*fileCopy).coming {
		return fileCopy{}, false
	}
	f := e.Value.(*fileCopy)
	if hold {
		f.held = time.Now()
	}
	c.order.MoveToFront(e)
	return *f, true
}

// path finds a good copy whose file the engine can open. Size is the object's, negative when it is not known.
func (c *cache) path(id string, size int64) (string, bool) {
	f, ok := c.find(id, true)
	if !ok {
		return "", false
	}
	path := filepath.Join(c.dir, f.name())
	info, err := os.Stat(path)
	if err != nil || info.Size() != f.size || size >= 0 && size != f.size {
		c.discard(f, err == nil)
		return "", false
	}
	if info.ModTime().Equal(f.checked) {
		return path, true
	}
	if crc, err := fileCRC(path); err != nil || crc != f.crc {
		c.discard(f, err == nil)
		return "", false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byID[id]; ok && e.Value.(*fileCopy).crc == f.crc {
		e.Value.(*fileCopy).checked = info.ModTime()
	}
	return path, true
}

// read returns the bytes of a good copy.
func (c *cache) read(id string) ([]byte, bool) {
	f, ok := c.find(id, false)
	if !ok {
		return nil, false
	}
	data, err := os.ReadFile(filepath.Join(c.dir, f.name()))
	if err != nil || int64(len(data)) != f.size || crcOf(data) != f.crc {
		c.discard(f, err == nil)
		return nil, false
	}
	return data, true
}

// discard forgets a copy that was found bad.
func (c *cache) discard(f fileCopy, damaged bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if damaged {
		c.stats.Damaged++
	}
	if e, ok := c.byID[f.id]; ok && !e.Value.(*fileCopy).coming && e.Value.(*fileCopy).name() == f.name() {
		c.drop(e)
	}
}

// forget removes the copy of an object that is deleted.
func (c *cache) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byID[id]; ok && !e.Value.(*fileCopy).coming {
		c.drop(e)
	}
}

// keep makes a copy of bytes that are at hand, whose checksum is crc, if there is room. Held: the path is about to be given out.
func (c *cache) keep(id string, data []byte, crc uint32, held bool) (string, error) {
	return c.store(id, int64(len(data)), held, func(file *os.File) (uint32, error) {
		_, err := file.Write(data)
		return crc, err
	})
}

// store makes a copy of size bytes that fill writes, and returns its path. It is counted before it is written, so that others
// at the same time see it. The file is put in place at once, and not fsynced: a copy that a power loss spoiled fails its check.
func (c *cache) store(id string, size int64, held bool, fill func(*os.File) (crc uint32, err error)) (string, error) {
	f := &fileCopy{id: id, size: size, coming: true}
	now := time.Now()
	if held {
		f.held = now
	}
	if err := c.admit(f, now); err != nil {
		return "", err
	}
	path, err := c.write(f, fill)
	for n := 1; n < writeAttempts && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist)); n++ {
		path, err = c.write(f, fill) // somebody removes the folder at this moment
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f.coming = false
	if err != nil {
		if e, ok := c.byID[id]; ok && e.Value == f {
			c.drop(e)
		}
		return "", fmt.Errorf("write copy: %w", err)
	}
	return path, nil
}

// admit counts a copy that is about to be written.
func (c *cache) admit(f *fileCopy, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.byID[f.id]; ok && e.Value.(*fileCopy).coming {
		return fmt.Errorf("another copy is being written: %w", fs.ErrExist)
	}
	if !c.evict(f.size, now) {
		c.stats.Full++
		return ErrCacheFull
	}
	c.add(f)
	return nil
}

func (c *cache) write(f *fileCopy, fill func(*os.File) (uint32, error)) (path string, err error) {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return "", err
	}
	temp := filepath.Join(c.dir, uuid.NewString())
	file, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return "", err
	}
	crc, err := fill(file)
	var info os.FileInfo
	if err == nil {
		info, err = file.Stat()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		_ = os.Remove(temp)
		return "", err
	}
	c.mu.Lock()
	f.crc, f.checked = crc, info.ModTime()
	c.mu.Unlock()
	path = filepath.Join(c.dir, f.name())
	if err := os.Rename(temp, path); err != nil {
		_ = os.Remove(temp) // it is gone with its folder, or is removed at the next start
		return "", err
	}
	return path, nil
}

// add counts a copy. The caller holds mu, or is the constructor.
func (c *cache) add(f *fileCopy) {
	if old, ok := c.byID[f.id]; ok {
		c.drop(old)
	}
	c.byID[f.id] = c.order.PushFront(f)
	c.stats.Bytes += f.size
}

// drop forgets a copy and removes its file. The caller holds mu.
func (c *cache) drop(e *list.Element) {
	f := c.order.Remove(e).(*fileCopy)
	delete(c.byID, f.id)
	c.stats.Bytes -= f.size
	if !f.coming {
		_ = os.Remove(filepath.Join(c.dir, f.name())) // gone already, or removed at the next start: it is only a copy
	}
}

// evict makes room for n more bytes out of copies that nobody can be about to open, and tells whether there is room. The caller holds mu.
func (c *cache) evict(n int64, now time.Time) bool {
	for e := c.order.Back(); e != nil && c.stats.Bytes+n > c.maxBytes; {
		before := e.Prev()
		if f := e.Value.(*fileCopy); !f.coming && now.Sub(f.held) >= CopyHold {
			c.drop(e)
			c.stats.Evicted++
		}
		e = before
	}
	return c.stats.Bytes+n <= c.maxBytes
}

// warm keeps an object that was written just now. A copy that cannot be made is one that will be fetched.
func (c *cache) warm(key string, data []byte) {
	if int64(len(data)) > min(maxWarm, c.maxBytes/4) {
		return
	}
	if _, err := c.keep(copyID(key), data, crcOf(data), false); err == nil {
		c.count(func(s *CacheStats) { s.Warmed++ })
	}
}

// local returns the path of a copy of a whole object, fetching it when there is no good one.
func (c *cache) local(ctx context.Context, o Ref) (string, error) {
	id := copyID(o.Key)
	if path, ok := c.path(id, o.Size); ok {
		c.count(func(s *CacheStats) { s.Hits++ })
		return path, nil
	}
	return c.paths.do(ctx, o.Key, func(ctx context.Context) (string, error) {
		if path, ok := c.path(id, o.Size); ok { // it came in between
			c.count(func(s *CacheStats) { s.Hits++ })
			return path, nil
		}
		c.count(func(s *CacheStats) { s.Misses++ })
		return c.fetch(ctx, id, o)
	})
}
