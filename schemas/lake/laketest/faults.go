package laketest

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/micromegas-go/micromegas/schemas/lake"
)

// Op is an operation of a bucket.
type Op string

// The operations that can fail.
const (
	OpPut    Op = "put"
	OpRead   Op = "read"
	OpStat   Op = "stat"
	OpDelete Op = "delete"
	OpList   Op = "list"
)

// ErrInjected is the default error of a fault.
var ErrInjected = errors.New("injected fault")

// Fault is what happens to one operation. The zero value is no fault.
type Fault struct {
	Delay  time.Duration // before everything else; ends early with the context
	Before bool          // fails, and nothing was done
	After  bool          // is done, and fails nevertheless: the reply was lost
	Torn   bool          // a put writes the first half and fails; a read returns the first half and succeeds
	Err    error         // what failing returns; nil means ErrInjected
}

func (f Fault) err() error {
	if f.Err != nil {
		return f.Err
	}
	return ErrInjected
}

// Faults is a bucket whose operations go wrong as Decide says. It hides optional abilities of the bucket below, so the
// lake treats it as remote.
type Faults struct {
	lake.Bucket

	mu     sync.Mutex
	decide func(op Op, key string) Fault
	counts map[Op]int
}

// NewFaults wraps a bucket; until Decide is called nothing goes wrong.
func NewFaults(b lake.Bucket) *Faults {
	return &Faults{Bucket: b, counts: map[Op]int{}}
}

// Decide sets what happens to each operation from now on; nil means no faults.
func (f *Faults) Decide(decide func(op Op, key string) Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.decide = decide
}

// Count is how many operations of a kind were begun.
func (f *Faults) Count(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[op]
}

// Sometimes fails each operation with probability p: half of them before, half after it was done.
func Sometimes(seed uint64, p float64) func(Op, string) Fault {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, 0))
	return func(Op, string) Fault {
		mu.Lock()
		defer mu.Unlock()
		if r.Float64() >= p {
			return Fault{}
		}
		before := r.IntN(2) == 0
		return Fault{Before: before, After: !before}
	}
}

// begin waits and decides; the error is that of a fault before the operation.
func (f *Faults) begin(ctx context.Context, op Op, key string) (Fault, error) {
	f.mu.Lock()
	f.counts[op]++
	var fault Fault
	if f.decide != nil {
		fault = f.decide(op, key)
	}
	f.mu.Unlock()
	if fault.Delay > 0 {
		timer := time.NewTimer(fault.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return fault, ctx.Err()
		}
	}
	if fault.Before {
		return fault, fault.err()
	}
	return fault, nil
}

// end is the error of an operation that was done.
func (f Fault) end(err error) error {
	if err == nil && f.After {
		return f.err()
	}
	return err
}

// Put implements lake.Bucket.
func (f *Faults) Put(ctx context.Context, key string, data []byte) error {
	fault, err := f.begin(ctx, OpPut, key)
	if err != nil {
		return err
	}
	if fault.Torn {
		return errors.Join(fault.err(), f.Bucket.Put(ctx, key, data[:len(data)/2]))
	}
	return fault.end(f.Bucket.Put(ctx, key, data))
}

// Read implements lake.Bucket.
func (f *Faults) Read(ctx context.Context, key string, off, n int64) ([]byte, error) {
	fault, err := f.begin(ctx, OpRead, key)
	if err != nil {
		return nil, err
	}
	data, err := f.Bucket.Read(ctx, key, off, n)
	if err = fault.end(err); err != nil {
		return nil, err
	}
	if fault.Torn {
		data = data[:len(data)/2]
	}
	return data, nil
}

// Stat implements lake.Bucket.
func (f *Faults) Stat(ctx context.Context, key string) (lake.Object, error) {
	fault, err := f.begin(ctx, OpStat, key)
	if err != nil {
		return lake.Object{}, err
	}
	o, err := f.Bucket.Stat(ctx, key)
	return o, fault.end(err)
}

// Delete implements lake.Bucket.
func (f *Faults) Delete(ctx context.Context, key string) error {
	fault, err := f.begin(ctx, OpDelete, key)
	if err != nil {
		return err
	}
	return fault.end(f.Bucket.Delete(ctx, key))
}

// List implements lake.Bucket. A fault after it comes in the place of the second object.
func (f *Faults) List(ctx context.Context, prefix string) iter.Seq2[lake.Object, error] {
	return func(yield func(lake.Object, error) bool) {
		fault, err := f.begin(ctx, OpList, prefix)
		if err != nil {
			yield(lake.Object{}, err)
			return
		}
		n := 0
		for o, err := range f.Bucket.List(ctx, prefix) {
			if n++; n == 2 && fault.After {
				yield(lake.Object{}, fault.err())
				return
			}
			if !yield(o, err) {
				return
			}
		}
	}
}
