package lake

import (
	"context"
	"fmt"
	"sync"
)

const (
	// checksAtOnce is how many files of a folder bucket are read through side by side: a few are as fast as the disk.
	checksAtOnce = 4
	// maxSound bounds the files that are known to be sound. Beyond it the set starts anew, which costs reading, not correctness.
	maxSound = 1 << 17
)

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

// Local returns the path of an object's own file. The file is read through before its first use and whenever it was written to since: the
// engine would take many a flipped bit for a value.
func (f *Folder) Local(ctx context.Context, ref Ref) (string, error) {
	o, err := f.Stat(ctx, ref.Key)
	if err != nil {
		return "", err
	}
	path := f.path(ref.Key)
	if ref.Size >= 0 && ref.Size != o.Size {
		return "", fmt.Errorf("%s has %d bytes, not %d: %w", path, o.Size, ref.Size, ErrDamaged)
	}
	if f.sound.has(o) {
		return path, nil
	}
	if err := f.readThrough(ctx, ref.Key); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	f.sound.add(o)
	return path, nil
}

// readThrough compares a file with its key.
func (f *Folder) readThrough(ctx context.Context, key string) error {
	if _, ok := keyCRC(key); !ok {
		return nil
	}
	if err := f.reading.Acquire(ctx, 1); err != nil {
		return err
	}
	defer f.reading.Release(1)
	crc, err := fileCRC(f.path(key))
	if err != nil {
		return notFound(err)
	}
	return checkCRC(key, crc)
}
