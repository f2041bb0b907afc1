// Package lake is the lake's bucket: packs of bus frames, Parquet files of views and oversize bodies, their keys and
// their garbage collection, behind one URI (a folder, S3, GCS, Azure, memory). LAYOUT.md describes every byte.
// Written by workers/archive (packs), materializers (Parquet) and gateway through bus (oversize bodies); read by all stages.
//
// Invariants: an object is durable when Put returns, is whole or absent, and never changes: keys that are made here
// are unique. An object exists for readers only when a catalog row names it, so objects are written first and a crash in
// between leaves an orphan for GC. Every byte of a pack is under a CRC-32C, which is checked on every read.
package lake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// lookups bounds the objects of one call that are looked at side by side.
const lookups = 256

// Options are the optional settings of a lake.
type Options struct {
	// CacheDir is the folder for copies of objects; other local caches of the same data folder may live beside them.
	// Without one a temporary folder is made, and removed by Close.
	CacheDir string
	// CacheBytes bounds the copies; 0 means DefaultCacheBytes.
	CacheBytes int64
	// WarmOnPut keeps copies of the views' files that this process writes: for one that answers queries too.
	WarmOnPut bool
	// FS replaces the file system that a folder bucket writes to; nil means the machine's.
	FS FS
}

// DefaultCacheBytes bounds the copies of objects in the cache folder when Options do not say otherwise.
const DefaultCacheBytes = 8 << 30

// Lake is a bucket with the formats of what is in it. It is safe for concurrent use.
type Lake struct {
	bucket   Bucket
	root     string
	cacheDir string
	ownCache bool                                       // cacheDir is temporary and ours
	cache    *cache                                     // nil where objects are files already
	local    func(context.Context, Ref) (string, error) // the path of one object: of its own file, or of a copy
	warm     bool
	buffers  sync.Pool // *[]byte, for packs being written
}

// Open opens the bucket at a URI: file:///folder (made when it is not there), s3://, gs:// or azblob://bucket/prefix, mem:// (a new,
// empty one). LAYOUT.md lists what a URI may say. It asks a store beyond a network nothing: Ping does.
func Open(ctx context.Context, uri string, opts Options) (*Lake, error) {
	b, err := openBucket(ctx, uri, opts)
	if err != nil {
		return nil, err
	}
	l, err := New(b, opts)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return l, nil
}

// New makes a lake of a bucket, which Close closes.
func New(b Bucket, opts Options) (*Lake, error) {
	l := &Lake{bucket: b, cacheDir: opts.CacheDir, warm: opts.WarmOnPut}
	if f, ok := b.(*Folder); ok {
		l.root = f.Root()
	}
	if err := l.openCache(opts.CacheBytes); err != nil {
		return nil, fmt.Errorf("open lake cache: %w", err)
	}
	return l, nil
}

func (l *Lake) openCache(maxBytes int64) error {
	if l.cacheDir == "" {
		dir, err := os.MkdirTemp("", "micromegas-lake-")
		if err != nil {
			return err
		}
		l.cacheDir, l.ownCache = dir, true
	}
	dir, err := filepath.Abs(l.cacheDir)
	if err != nil {
		return err
	}
	l.cacheDir = dir
	if maxBytes <= 0 {
		maxBytes = DefaultCacheBytes
	}
	if b, ok := l.bucket.(localBucket); ok {
		l.local = b.Local
		return os.MkdirAll(dir, 0o755)
	}
	if l.cache, err = openCache(filepath.Join(dir, "objects"), maxBytes, l.bucket); err != nil {
		return err
	}
	l.local = l.cache.local
	return nil
}

// Close closes the bucket and removes a temporary cache folder.
func (l *Lake) Close() error {
	if l.cache != nil {
		l.cache.close()
	}
	err := l.bucket.Close()
	if l.ownCache {
		err = errors.Join(err, os.RemoveAll(l.cacheDir))
	}
	return err
}

// Put writes an object; it is durable when Put returns nil. An existing object is replaced, so the same bytes again
// do no harm; after an error the object may be there or not. Data is not kept.
func (l *Lake) Put(ctx context.Context, key string, data []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if err := l.bucket.Put(ctx, key, data); err != nil {
		return fmt.Errorf("put %s (%d bytes): %w", key, len(data), err)
	}
	if l.warm && l.cache != nil && strings.HasPrefix(key, ViewPrefix) {
		l.cache.warm(key, data)
	}
	return nil
}

// Get reads a whole object. The error wraps ErrNotFound when there is none, ErrDamaged when it is not what was written.
func (l *Lake) Get(ctx context.Context, key string) ([]byte, error) {
	if l.cache != nil && strings.HasPrefix(key, ViewPrefix) { // a merge reads what this process may have written just now
		if data, ok := l.cache.read(copyID(key)); ok {
			return data, nil
		}
	}
	data, err := l.read(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	if err := checkData(key, data); err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	return data, nil
}

// GetRange reads n bytes from off, all of them or none. Where objects are not files here, it reads aligned segments and keeps
// them, so that the next range near by costs no request.
func (l *Lake) GetRange(ctx context.Context, key string, off, n int64) ([]byte, error) {
	if off < 0 || n < 0 {
		return nil, fmt.Errorf("get %s: range of %d bytes at %d", key, n, off)
	}
	if n == 0 {
		return []byte{}, nil
	}
	if l.cache == nil || n > maxCachedRange || off > math.MaxInt64-n {
		return l.read(ctx, key, off, n)
	}
	if err := checkKey(key); err != nil {
		return nil, err
	}
	data, err := l.cache.readRange(ctx, key, off, n)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	return data, nil
}

// Distrust forgets what is kept of a range whose bytes turned out damaged: the next GetRange asks the bucket again.
func (l *Lake) Distrust(key string, off, n int64) {
	if l.cache == nil || off < 0 || n <= 0 || n > maxCachedRange {
		return
	}
	for no := off / segmentBytes; no <= (off+n-1)/segmentBytes; no++ {
		l.cache.forget(copyID(segmentName(key, no)))
	}
}

func (l *Lake) read(ctx context.Context, key string, off, n int64) ([]byte, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	data, err := l.bucket.Read(ctx, key, off, n)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	if n >= 0 && int64(len(data)) != n {
		return nil, fmt.Errorf("get %s: %d bytes came of %d at %d: %w", key, len(data), n, off, io.ErrUnexpectedEOF)
	}
	return data, nil
}

// Stat describes an object. The error wraps ErrNotFound when there is none.
func (l *Lake) Stat(ctx context.Context, key string) (Object, error) {
	if err := checkKey(key); err != nil {
		return Object{}, err
	}
	o, err := l.bucket.Stat(ctx, key)
	if err != nil {
		return Object{}, fmt.Errorf("stat %s: %w", key, err)
	}
	return o, nil
}

// Exists tells whether there is an object of that key.
func (l *Lake) Exists(ctx context.Context, key string) (bool, error) {
	_, err := l.Stat(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Delete removes an object; a missing one is no error.
func (l *Lake) Delete(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if err := l.bucket.Delete(ctx, key); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	if l.cache != nil {
		l.cache.forget(copyID(key))
	}
	return nil
}

// List yields the objects whose key begins with prefix, in order of their keys. After an error it ends.
func (l *Lake) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		if err := checkPrefix(prefix); err != nil {
			yield(Object{}, err)
			return
		}
		for o, err := range l.bucket.List(ctx, prefix) {
			if err != nil {
				yield(Object{}, fmt.Errorf("list %s: %w", prefix, err))
				return
			}
			if !yield(o, nil) {
				return
			}
		}
	}
}

// Ping asks the bucket for its first object: what a start and /ready need to know. Of a bucket beyond a network the error is a
// *StoreError that says what is wrong.
func (l *Lake) Ping(ctx context.Context) error {
	if p, ok := l.bucket.(pinger); ok {
		return p.Ping(ctx)
	}
	for _, err := range l.List(ctx, "") {
		return err
	}
	return nil
}

// Root is the folder of a folder bucket, "" for other kinds.
func (l *Lake) Root() string { return l.root }

// CacheDir is the folder of local copies.
func (l *Lake) CacheDir() string { return l.cacheDir }

// Stats is what a lake has done since it was opened.
type Stats struct {
	Requests RemoteStats `json:"requests"` // to a bucket beyond a network; all zero for others
	Cache    CacheStats  `json:"cache"`    // all zero where objects are files already
}

// Stats counts requests and local copies.
func (l *Lake) Stats() Stats {
	s := Stats{Cache: l.CacheStats()}
	if b, ok := l.bucket.(remoteBucket); ok {
		s.Requests = b.RemoteStats()
	}
	return s
}

// CacheStats counts what local copies did.
func (l *Lake) CacheStats() CacheStats {
	if l.cache == nil {
		return CacheStats{}
	}
	return l.cache.snapshot()
}

// LocalPath is LocalPaths for one object whose size is not known.
func (l *Lake) LocalPath(ctx context.Context, key string) (string, error) {
	paths, err := l.LocalPaths(ctx, []Ref{{Key: key, Size: -1}})
	if err != nil {
		return "", err
	}
	return paths[0], nil
}

// LocalPaths returns paths under which the engine can open the objects, in their order: the objects' own files in a folder bucket, else
// copies in the cache folder. What is not there is fetched, many at a time, in one round trip each. A copy stays for at least CopyHold
// after the last call that returned its path. The error wraps ErrDamaged when an object is not what was written.
func (l *Lake) LocalPaths(ctx context.Context, files []Ref) ([]string, error) {
	for _, f := range files {
		if err := checkKey(f.Key); err != nil {
			return nil, err
		}
	}
	paths := make([]string, len(files))
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(lookups, len(files)) {
		g.Go(func() (err error) {
			for i := next.Add(1) - 1; i < int64(len(files)); i = next.Add(1) - 1 {
				if paths[i], err = l.local(ctx, files[i]); err != nil {
					return fmt.Errorf("local path of %s: %w", files[i].Key, err)
				}
			}
			return nil
		})
	}
	return paths, g.Wait()
}
