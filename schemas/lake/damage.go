package lake

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
)

// ErrDamaged says that the bytes of an object are not those that were written under its key.
var ErrDamaged = errors.New("object is damaged")

const (
	// checksAtOnce is how many files of a folder bucket are read through side by side: a few are as fast as the disk.
	checksAtOnce = 4
	// maxSound bounds the files that are known to be sound. Beyond it the set starts anew, which costs reading, not correctness.
	maxSound = 1 << 17
)

// keySum returns the checksum that the key of a view's file ends with. Keys of packs have none (a pack has its own), nor have those that were
// made before keys had any.
func keySum(key string) (sum uint32, ok bool) {
	name, ok := strings.CutSuffix(key, viewSuffix)
	if !ok {
		return 0, false
	}
	const digits = 8 // the last part of a UUID has 12
	at := strings.LastIndexByte(name, '-')
	if len(name)-at-1 != digits {
		return 0, false
	}
	n, err := strconv.ParseUint(name[at+1:], 16, 32)
	return uint32(n), err == nil
}

// checkSum compares the checksum of an object's bytes with the one in its key.
func checkSum(key string, sum uint32) error {
	if want, ok := keySum(key); ok && sum != want {
		return fmt.Errorf("checksum is %08x, not %08x: %w", sum, want, ErrDamaged)
	}
	return nil
}

// soundFiles knows which files of a folder bucket were read through and found to be what was written. A file that is written to
// since is not among them.
type soundFiles struct {
	mu      sync.Mutex
	changed map[string]int64 // key → time of the file's last change, as it was when it was read
}

func (s *soundFiles) has(o Object) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.changed[o.Key]
	return ok && at == o.ModTime.UnixNano()
}

func (s *soundFiles) add(o Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil || len(s.changed) >= maxSound {
		s.changed = map[string]int64{}
	}
	s.changed[o.Key] = o.ModTime.UnixNano()
}

// ownPaths returns the files of a folder bucket's objects. Each is read through before its first use and whenever it was written to since: the
// engine would take many a flipped bit for a value.
func (l *Lake) ownPaths(ctx context.Context, bucket localBucket, files []Ref) ([]string, error) {
	paths := make([]string, len(files))
	var g errgroup.Group
	g.SetLimit(checksAtOnce)
	var failed error
	for i, f := range files {
		o, err := l.bucket.Stat(ctx, f.Key)
		if err != nil {
			failed = fmt.Errorf("local path of %s: %w", f.Key, err)
			break
		}
		paths[i] = bucket.LocalPath(f.Key)
		if f.Size >= 0 && f.Size != o.Size {
			failed = fmt.Errorf("%s has %d bytes, not %d: %w", paths[i], o.Size, f.Size, ErrDamaged)
			break
		}
		if !l.sound.has(o) {
			g.Go(func() error { return l.readThrough(paths[i], o) })
		}
	}
	if err := errors.Join(failed, g.Wait()); err != nil {
		return nil, err
	}
	return paths, nil
}

// readThrough compares a file with its key.
func (l *Lake) readThrough(path string, o Object) error {
	if _, ok := keySum(o.Key); ok {
		sum, err := fileCRC(path)
		if errors.Is(err, os.ErrNotExist) {
			err = ErrNotFound
		}
		if err == nil {
			err = checkSum(o.Key, sum)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
	}
	l.sound.add(o)
	return nil
}

// sumOf is the checksum of keys and copies.
func sumOf(data []byte) uint32 { return crc32.Checksum(data, castagnoli) }
