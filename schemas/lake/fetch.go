package lake

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sync/errgroup"
)

const (
	// maxFetches bounds the requests of one process for objects and segments: with 20 ms between request and reply, 100 small
	// objects come in two rounds.
	maxFetches = 64
	// maxInFlight bounds the bytes of those requests, each of which is in memory until it is written out.
	maxInFlight = 128 << 20
	// fetchPart is the size of the pieces in which a large object is fetched side by side.
	fetchPart = 8 << 20
	// segmentBytes is the size of the aligned pieces of which ranges are made: a few dozen bodies of blocks, so that neighbours
	// come along, in a request that costs little more than a body's alone.
	segmentBytes = 1 << 20
	// maxCachedRange is the longest range that goes through segments. Who reads more than that at once reads it once.
	maxCachedRange = 8 << 20
)

// Ref names an object whose size is known, from the catalog's row.
type Ref struct {
	Key  string
	Size int64 // negative: not known, which costs a request more
}

// request waits until one more request of n bytes may be made.
func (c *cache) request(ctx context.Context, n int64) (done func(), err error) {
	n = min(n, maxInFlight)
	if err := c.inFlight.Acquire(ctx, n); err != nil {
		return nil, err
	}
	select {
	case c.requests <- struct{}{}:
		return func() { <-c.requests; c.inFlight.Release(n) }, nil
	case <-ctx.Done():
		c.inFlight.Release(n)
		return nil, ctx.Err()
	}
}

// fetch makes a copy of a whole object.
func (c *cache) fetch(ctx context.Context, id string, o Ref) (string, error) {
	if o.Size < 0 {
		found, err := c.bucket.Stat(ctx, o.Key)
		if err != nil {
			return "", err
		}
		o.Size = found.Size
	}
	if o.Size > fetchPart {
		return c.fetchLarge(ctx, id, o)
	}
	done, err := c.request(ctx, o.Size)
	if err != nil {
		return "", err
	}
	defer done()
	data, err := c.bucket.Read(ctx, o.Key, 0, -1) // as a whole, so that the store's checksum is compared
	if err != nil {
		return "", err
	}
	c.count(func(s *CacheStats) { s.FetchedBytes += int64(len(data)) })
	if int64(len(data)) != o.Size {
		return "", fmt.Errorf("the object has %d bytes, %d are expected: %w", len(data), o.Size, io.ErrUnexpectedEOF)
	}
	crc := crcOf(data)
	if err := checkCRC(o.Key, crc); err != nil {
		return "", err
	}
	return c.keep(id, data, crc, true)
}

// fetchLarge writes the pieces of an object to its copy as they come.
func (c *cache) fetchLarge(ctx context.Context, id string, o Ref) (string, error) {
	return c.store(id, o.Size, true, func(file *os.File) (uint32, error) {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(partsAtOnce)
		for off := int64(0); off < o.Size; off += fetchPart {
			g.Go(func() error { return c.fetchPiece(ctx, file, o.Key, off, min(fetchPart, o.Size-off)) })
		}
		if err := g.Wait(); err != nil {
			return 0, err
		}
		crc, err := readCRC(io.NewSectionReader(file, 0, o.Size))
		if err != nil {
			return 0, err
		}
		return crc, checkCRC(o.Key, crc)
	})
}

func (c *cache) fetchPiece(ctx context.Context, file *os.File, key string, off, n int64) error {
	done, err := c.request(ctx, n)
	if err != nil {
		return err
	}
	defer done()
	data, err := c.bucket.Read(ctx, key, off, n)
	if err != nil {
		return err
	}
	if int64(len(data)) != n {
		return fmt.Errorf("%d bytes came of %d at %d: %w", len(data), n, off, io.ErrUnexpectedEOF)
	}
	c.count(func(s *CacheStats) { s.FetchedBytes += n })
	_, err = file.WriteAt(data, off)
	return err
}

// readRange reads n bytes at off out of segments, fetching those that are not there.
func (c *cache) readRange(ctx context.Context, key string, off, n int64) ([]byte, error) {
	first, last := off/segmentBytes, (off+n-1)/segmentBytes
	segments := make([][]byte, last-first+1)
	g, ctx := errgroup.WithContext(ctx)
	for i := range segments {
		g.Go(func() (err error) {
			segments[i], err = c.segment(ctx, key, first+int64(i))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	data := make([]byte, 0, n)
	for i, s := range segments {
		at := (first + int64(i)) * segmentBytes
		from, to := max(off-at, 0), min(off+n-at, segmentBytes)
		if to > int64(len(s)) {
			return nil, fmt.Errorf("range of %d bytes at %d is outside the object: %w", n, off, io.ErrUnexpectedEOF)
		}
		data = append(data, s[from:to]...)
	}
	return data, nil
}

// segment returns the aligned piece of an object of that number; the object's last one is shorter. Its bytes are shared.
func (c *cache) segment(ctx context.Context, key string, no int64) ([]byte, error) {
	name := segmentName(key, no)
	id := copyID(name)
	if data, ok := c.read(id); ok {
		c.count(func(s *CacheStats) { s.RangeHits++ })
		return data, nil
	}
	return c.ranges.do(ctx, name, func(ctx context.Context) ([]byte, error) {
		if data, ok := c.read(id); ok { // it came in between
			c.count(func(s *CacheStats) { s.RangeHits++ })
			return data, nil
		}
		c.count(func(s *CacheStats) { s.RangeMisses++ })
		done, err := c.request(ctx, segmentBytes)
		if err != nil {
			return nil, err
		}
		defer done()
		data, err := readSome(ctx, c.bucket, key, no*segmentBytes, segmentBytes)
		if err != nil {
			return nil, err
		}
		c.count(func(s *CacheStats) { s.FetchedBytes += int64(len(data)) })
		_, _ = c.keep(id, data, crcOf(data), false) // what cannot be kept is fetched again
		return data, nil
	})
}

// segmentName is a key with a number; no key has the byte between them.
func segmentName(key string, no int64) string { return key + "#" + strconv.FormatInt(no, 10) }

// readSome reads a range, less where the object ends before.
func readSome(ctx context.Context, b Bucket, key string, off, n int64) ([]byte, error) {
	if t, ok := b.(tailReader); ok {
		return t.ReadSome(ctx, key, off, n)
	}
	o, err := b.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	n = max(min(n, o.Size-off), 0)
	data, err := b.Read(ctx, key, off, n)
	if err == nil && int64(len(data)) != n {
		err = fmt.Errorf("%d bytes came of %d at %d: %w", len(data), n, off, io.ErrUnexpectedEOF)
	}
	return data, err
}
