package lake

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"time"

	"gocloud.dev/blob"
)

// retrying is a bucket beyond a network: each operation is tried until it succeeds or has no hope (see retrier). Nothing else
// tries again: the stores' own clients are told not to. Repeating is safe: keys are unique and their bytes are the same, so a Put
// whose reply was lost is done again without harm.
type retrying struct {
	cloud   *cloud
	name    string // its URI, without secrets
	login   string // where its credentials come from
	retrier retrier
}

// pingTime bounds Ping: a server that starts is to say soon that its bucket is out of reach.
const pingTime = 15 * time.Second

func (b *retrying) do(ctx context.Context, size int64, attempt func(context.Context) error) error {
	return b.retrier.do(ctx, size, b.cloud.reply, attempt)
}

// Put writes large objects in parts.
func (b *retrying) Put(ctx context.Context, key string, data []byte) error {
	if len(data) > partBytes && b.cloud.putLarge != nil {
		return b.cloud.putLarge(ctx, &b.retrier, key, data)
	}
	return b.do(ctx, int64(len(data)), func(ctx context.Context) error { return b.cloud.putOnce(ctx, key, data, false) })
}

// Create implements creator. When the store says that there is, after a reply was lost, it may be ours.
func (b *retrying) Create(ctx context.Context, key string, data []byte) (bool, error) {
	attempts := 0
	ok, err := created(b.do(ctx, int64(len(data)), func(ctx context.Context) error {
		attempts++
		return b.cloud.putOnce(ctx, key, data, true)
	}))
	if ok || err != nil || attempts == 1 {
		return ok, err
	}
	found, err := b.Read(ctx, key, 0, -1)
	return err == nil && bytes.Equal(found, data), err
}

func (b *retrying) Read(ctx context.Context, key string, off, n int64) ([]byte, error) {
	data, size, err := b.read(ctx, key, off, n)
	if err != nil {
		return nil, err
	}
	return exactly(data, size, off, n)
}

// ReadSome implements tailReader.
func (b *retrying) ReadSome(ctx context.Context, key string, off, n int64) ([]byte, error) {
	data, _, err := b.read(ctx, key, off, n)
	return data, err
}

func (b *retrying) read(ctx context.Context, key string, off, n int64) (data []byte, size int64, err error) {
	if off < 0 {
		return nil, 0, fmt.Errorf("range at %d: %w", off, io.ErrUnexpectedEOF)
	}
	err = b.do(ctx, 0, func(ctx context.Context) (err error) {
		data, size, err = b.cloud.readOnce(ctx, key, off, n)
		return err
	})
	return data, size, err
}

func (b *retrying) Stat(ctx context.Context, key string) (o Object, err error) {
	err = b.do(ctx, 0, func(ctx context.Context) (err error) {
		o, err = b.cloud.statOnce(ctx, key)
		return err
	})
	return o, err
}

func (b *retrying) Delete(ctx context.Context, key string) error {
	return unlessGone(b.do(ctx, 0, func(ctx context.Context) error { return b.cloud.deleteOnce(ctx, key) }))
}

func (b *retrying) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return pages(prefix, func(prefix string, token []byte) ([]Object, []byte, error) {
		return b.page(ctx, prefix, token, listPage)
	})
}

func (b *retrying) page(ctx context.Context, prefix string, token []byte, size int) (objects []Object, next []byte, err error) {
	err = b.do(ctx, 0, func(ctx context.Context) (err error) {
		objects, next, err = b.cloud.pageOnce(ctx, prefix, token, size)
		return err
	})
	return objects, next, err
}

// Ping implements pinger: it asks for one object. The error is a *StoreError.
func (b *retrying) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTime)
	defer cancel()
	_, _, err := b.page(ctx, "", blob.FirstPageToken, 1)
	if err == nil {
		return nil
	}
	return storeError(b.name, b.login, err, b.cloud.reply(err))
}

// SweepTemp implements sweeper.
func (b *retrying) SweepTemp(ctx context.Context, before time.Time) (removed int, err error) {
	if b.cloud.sweep == nil {
		return 0, nil
	}
	err = b.do(ctx, 0, func(ctx context.Context) error {
		n, err := b.cloud.sweep(ctx, before)
		removed += n
		return err
	})
	return removed, err
}

func (b *retrying) Close() error { return b.cloud.Close() }

// RemoteStats implements remoteBucket.
func (b *retrying) RemoteStats() RemoteStats { return b.retrier.stats() }

// idleConnections is how many connections stay open between bursts of requests to one store.
const idleConnections = 128

// remoteTransport is the machine's usual one with more connections kept.
func remoteTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 0, idleConnections
	return t
}
