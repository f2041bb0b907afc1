package lake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// cloud is a bucket of any kind that gocloud.dev/blob drives. A Put is durable as the store's 200 is.
type cloud struct {
	bucket *blob.Bucket
}

// NewCloud wraps a bucket of gocloud.dev/blob and closes it in the end.
func NewCloud(b *blob.Bucket) Bucket { return &cloud{bucket: b} }

func (c *cloud) Put(ctx context.Context, key string, data []byte) error {
	// The content type is given so that the library does not guess it from the bytes.
	return c.bucket.WriteAll(ctx, key, data, &blob.WriterOptions{ContentType: "application/octet-stream"})
}

func (c *cloud) Read(ctx context.Context, key string, off, n int64) ([]byte, error) {
	if off < 0 {
		return nil, fmt.Errorf("range at %d: %w", off, io.ErrUnexpectedEOF)
	}
	r, err := c.bucket.NewRangeReader(ctx, key, off, n, nil)
	if err != nil {
		return nil, missing(err)
	}
	defer func() { _ = r.Close() }() // nothing was written
	if n, err = clipRange(r.Size(), off, n); err != nil {
		return nil, err
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, fmt.Errorf("read %d bytes at %d: %w", n, off, err)
	}
	return data, nil
}

func (c *cloud) Stat(ctx context.Context, key string) (Object, error) {
	a, err := c.bucket.Attributes(ctx, key)
	if err != nil {
		return Object{}, missing(err)
	}
	return Object{Key: key, Size: a.Size, ModTime: a.ModTime}, nil
}

func (c *cloud) Delete(ctx context.Context, key string) error {
	if err := c.bucket.Delete(ctx, key); err != nil && gcerrors.Code(err) != gcerrors.NotFound {
		return err
	}
	return nil
}

func (c *cloud) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		it := c.bucket.List(&blob.ListOptions{Prefix: prefix})
		for {
			o, err := it.Next(ctx)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(Object{}, err)
				return
			}
			if !yield(Object{Key: o.Key, Size: o.Size, ModTime: o.ModTime}, nil) {
				return
			}
		}
	}
}

func (c *cloud) Close() error { return c.bucket.Close() }

// missing turns the library's word for a missing object into ErrNotFound.
func missing(err error) error {
	if gcerrors.Code(err) == gcerrors.NotFound {
		return fmt.Errorf("%w (%w)", ErrNotFound, err)
	}
	return err
}
