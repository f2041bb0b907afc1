package lake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

const (
	contentType = "application/octet-stream"
	// listPage is how many objects one request for a listing brings: the most that S3 and Azure give.
	listPage = 1000
	// partBytes is the size of the pieces in which a large object travels, each tried again by itself.
	partBytes = 16 << 20
	// partsAtOnce bounds the pieces of one object under way: enough to fill a fast line.
	partsAtOnce = 4
)

// errShort says that fewer bytes came than were promised.
var errShort = fmt.Errorf("the reply was cut: %w", io.ErrUnexpectedEOF)

// cloud is a bucket of any kind that gocloud.dev/blob drives, one attempt at each operation. A Put is durable as the store's 200 is.
type cloud struct {
	bucket *blob.Bucket
	// reply is what the store answered when it made this error.
	reply func(error) reply
	// put and remove replace the library's ways where the store has better ones; may be nil.
	put    func(ctx context.Context, key string, data []byte, onlyNew bool) error
	remove func(ctx context.Context, key string) error
	// putLarge writes an object of several parts, each an operation of its own; nil: the library knows how to, part by part.
	putLarge func(ctx context.Context, r *retrier, key string, data []byte) error
	// sweep removes what large writes left behind that were interrupted before that time; may be nil.
	sweep func(ctx context.Context, before time.Time) (int, error)
}

// NewCloud wraps a bucket of gocloud.dev/blob and closes it in the end. Each operation is tried once.
func NewCloud(b *blob.Bucket) Bucket { return &cloud{bucket: b, reply: libraryReply} }

// libraryReply knows the few errors that the library tells apart for all stores.
func libraryReply(err error) reply {
	switch gcerrors.Code(err) {
	case gcerrors.NotFound:
		return reply{status: 404}
	case gcerrors.FailedPrecondition:
		return reply{status: 412}
	case gcerrors.InvalidArgument, gcerrors.Unimplemented:
		return reply{status: 400}
	}
	return reply{}
}

func (c *cloud) explained(err error) error {
	if err == nil {
		return nil
	}
	r := c.reply(err)
	return explain(err, judge(err, r), r)
}

func (c *cloud) putOnce(ctx context.Context, key string, data []byte, onlyNew bool) error {
	if c.put != nil {
		return c.put(ctx, key, data, onlyNew)
	}
	return c.bucket.Upload(ctx, key, bytes.NewReader(data), &blob.WriterOptions{
		// The content type is given so that the library does not guess it from the bytes.
		ContentType: contentType, BufferSize: partBytes, MaxConcurrency: partsAtOnce, IfNotExist: onlyNew,
	})
}

// readOnce returns at most n bytes from off, all from off when n < 0, and the object's size. Fewer than n came only when the
// object ends before.
func (c *cloud) readOnce(ctx context.Context, key string, off, n int64) ([]byte, int64, error) {
	r, err := c.bucket.NewRangeReader(ctx, key, off, n, nil)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = r.Close() }() // nothing was written
	size := r.Size()
	if n < 0 || n > size-off {
		n = max(size-off, 0)
	}
	allow(ctx, n)
	data := make([]byte, n)
	if got, err := io.ReadFull(r, data); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, 0, fmt.Errorf("%d bytes came of %d at %d: %w", got, n, off, errShort)
		}
		return nil, 0, fmt.Errorf("read %d bytes at %d: %w", n, off, err)
	}
	// Checksums that the store sends along are compared at the end.
	if n == 0 {
		return data, size, nil
	}
	if got, err := r.Read(make([]byte, 1)); got != 0 || !errors.Is(err, io.EOF) {
		return nil, 0, fmt.Errorf("read the end at %d: %d bytes more, %w", off+n, got, err)
	}
	return data, size, nil
}

func (c *cloud) statOnce(ctx context.Context, key string) (Object, error) {
	a, err := c.bucket.Attributes(ctx, key)
	if err != nil {
		return Object{}, err
	}
	return Object{Key: key, Size: a.Size, ModTime: a.ModTime}, nil
}

func (c *cloud) deleteOnce(ctx context.Context, key string) error {
	if c.remove != nil {
		return c.remove(ctx, key)
	}
	return c.bucket.Delete(ctx, key)
}

// pageOnce returns one page of a listing and the token of the next, empty at the end.
func (c *cloud) pageOnce(ctx context.Context, prefix string, token []byte, size int) ([]Object, []byte, error) {
	page, next, err := c.bucket.ListPage(ctx, token, size, &blob.ListOptions{Prefix: prefix})
	if err != nil {
		return nil, nil, err
	}
	objects := make([]Object, len(page))
	for i, o := range page {
		objects[i] = Object{Key: o.Key, Size: o.Size, ModTime: o.ModTime}
	}
	return objects, next, nil
}

// pages yields the objects of a listing, given a way to get a page.
func pages(prefix string, page func(prefix string, token []byte) ([]Object, []byte, error)) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		for token := blob.FirstPageToken; len(token) > 0; {
			objects, next, err := page(prefix, token)
			if err != nil {
				yield(Object{}, err)
				return
			}
			for _, o := range objects {
				if !yield(o, nil) {
					return
				}
			}
			token = next
		}
	}
}

// exactly is the answer to a read of n bytes, or of all from off when n < 0.
func exactly(data []byte, size, off, n int64) ([]byte, error) {
	n, err := clipRange(size, off, n)
	if err != nil {
		return nil, err
	}
	if int64(len(data)) != n {
		return nil, fmt.Errorf("%d bytes came of %d at %d: %w", len(data), n, off, io.ErrUnexpectedEOF)
	}
	return data, nil
}

func (c *cloud) Put(ctx context.Context, key string, data []byte) error {
	return c.explained(c.putOnce(ctx, key, data, false))
}

func (c *cloud) Create(ctx context.Context, key string, data []byte) (bool, error) {
	return created(c.explained(c.putOnce(ctx, key, data, true)))
}

// created turns the refusal to replace an object into an answer.
func created(err error) (bool, error) {
	if errors.Is(err, errExists) {
		return false, nil
	}
	return err == nil, err
}

func (c *cloud) Read(ctx context.Context, key string, off, n int64) ([]byte, error) {
	if off < 0 {
		return nil, fmt.Errorf("range at %d: %w", off, io.ErrUnexpectedEOF)
	}
	data, size, err := c.readOnce(ctx, key, off, n)
	if err != nil {
		return nil, c.explained(err)
	}
	return exactly(data, size, off, n)
}

func (c *cloud) ReadSome(ctx context.Context, key string, off, n int64) ([]byte, error) {
	data, _, err := c.readOnce(ctx, key, off, n)
	return data, c.explained(err)
}

func (c *cloud) Stat(ctx context.Context, key string) (Object, error) {
	o, err := c.statOnce(ctx, key)
	return o, c.explained(err)
}

func (c *cloud) Delete(ctx context.Context, key string) error {
	return unlessGone(c.explained(c.deleteOnce(ctx, key)))
}

func unlessGone(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

func (c *cloud) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return pages(prefix, func(prefix string, token []byte) ([]Object, []byte, error) {
		objects, next, err := c.pageOnce(ctx, prefix, token, listPage)
		return objects, next, c.explained(err)
	})
}

func (c *cloud) Close() error { return c.bucket.Close() }
