package gateway

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

// Sizes of body buffers. A body starts in the smallest and moves to one up to bufferGrowth times as large when it is full,
// so memory is at most that many times what has arrived (plus the first buffer), and at most a third of a large body's
// bytes are copied on the way. Typical blocks are 20 to 45 kB and never move.
const (
	firstBuffer     = 64 << 10
	bufferGrowth    = 4
	pooledSizes     = 4 // 64 KiB, 256 KiB, 1 MiB, 4 MiB; larger ones are left to the garbage collector
	maxPooledBuffer = firstBuffer << (2 * (pooledSizes - 1))
)

var (
	errBodyTooLarge = errors.New("body too large")
	errBodiesFull   = errors.New("too many bytes of bodies in flight")
)

// bodies hands out buffers and counts their bytes.
type bodies struct {
	maxBody     int64
	maxInFlight int64
	inFlight    atomic.Int64 // bytes of buffers that are out
	pools       [pooledSizes]sync.Pool
}

// body is one request body. The owner calls release in the end, whatever happened.
type body struct {
	from  *bodies
	bytes []byte // what has arrived; its capacity is what is accounted for
}

// poolOf is the pool of buffers of that size, -1 when there is none.
func poolOf(size int) int {
	for i, s := 0, firstBuffer; i < pooledSizes; i, s = i+1, s*bufferGrowth {
		if s == size {
			return i
		}
	}
	return -1
}

// take returns an empty buffer of exactly that capacity.
func (bs *bodies) take(size int) ([]byte, error) {
	if bs.inFlight.Add(int64(size)) > bs.maxInFlight {
		bs.inFlight.Add(-int64(size))
		return nil, errBodiesFull
	}
	if i := poolOf(size); i >= 0 {
		if b, ok := bs.pools[i].Get().(*[]byte); ok {
			return (*b)[:0], nil
		}
	}
	return make([]byte, 0, size), nil
}

func (bs *bodies) give(b []byte) {
	if cap(b) == 0 {
		return
	}
	bs.inFlight.Add(-int64(cap(b)))
	if i := poolOf(cap(b)); i >= 0 {
		b = b[:0]
		bs.pools[i].Put(&b)
	}
}

func (b *body) release() {
	b.from.give(b.bytes)
	b.bytes = nil
}

// read takes in the request's body. It stops at the limit whatever the header claims.
func (b *body) read(r *http.Request) error {
	limit := b.from.maxBody
	if r.ContentLength > limit {
		return errBodyTooLarge
	}
	var err error
	if b.bytes, err = b.from.take(firstBuffer); err != nil {
		return err
	}
	for {
		if len(b.bytes) == cap(b.bytes) {
			if err := b.grow(r.ContentLength); err != nil {
				return err
			}
		}
		n, err := r.Body.Read(b.bytes[len(b.bytes):cap(b.bytes)])
		b.bytes = b.bytes[:len(b.bytes)+n]
		if int64(len(b.bytes)) > limit {
			return errBodyTooLarge
		}
		if err == io.EOF || err == nil && int64(len(b.bytes)) == r.ContentLength {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// grow moves the body to a larger buffer: no larger than the header's length needs, if there is one, and than one byte more
// than the limit, which is enough to notice that it is exceeded.
func (b *body) grow(contentLength int64) error {
	size := int64(cap(b.bytes)) * bufferGrowth
	if size > maxPooledBuffer {
		want := b.from.maxBody + 1
		if contentLength > int64(len(b.bytes)) {
			want = contentLength
		}
		size = min(size, max(want, int64(len(b.bytes))+1))
	}
	larger, err := b.from.take(int(size))
	if err != nil {
		return err
	}
	larger = append(larger, b.bytes...)
	b.from.give(b.bytes)
	b.bytes = larger
	return nil
}
