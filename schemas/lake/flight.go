package lake

import (
	"context"
	"sync"
)

// flights lets those who want the same thing at the same time share the work for it, which ends early when all of them have left.
// The zero value is ready to use.
type flights[T any] struct {
	mu    sync.Mutex
	byKey map[string]*flight[T]
	group sync.WaitGroup
}

type flight[T any] struct {
	done    chan struct{} // closed when value and err are set
	value   T
	err     error
	waiting int // guarded by flights.mu
	cancel  context.CancelFunc
}

// do returns what work returns. The context that work gets ends when nobody waits any more; the values in it are those of
// the caller who came first.
func (f *flights[T]) do(ctx context.Context, key string, work func(context.Context) (T, error)) (T, error) {
	c := f.join(ctx, key, work)
	select {
	case <-c.done:
		return c.value, c.err
	case <-ctx.Done():
		f.leave(key, c)
		var none T
		return none, context.Cause(ctx)
	}
}

func (f *flights[T]) join(ctx context.Context, key string, work func(context.Context) (T, error)) *flight[T] {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c, ok := f.byKey[key]; ok {
		c.waiting++
		return c
	}
	if f.byKey == nil {
		f.byKey = map[string]*flight[T]{}
	}
	shared, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &flight[T]{done: make(chan struct{}), waiting: 1, cancel: cancel}
	f.byKey[key] = c
	f.group.Go(func() {
		defer cancel()
		c.value, c.err = work(shared)
		f.mu.Lock()
		f.forget(key, c)
		f.mu.Unlock()
		close(c.done)
	})
	return c
}

// leave ends the work of a flight that nobody waits for; whoever comes now begins a new one.
func (f *flights[T]) leave(key string, c *flight[T]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.waiting--; c.waiting == 0 {
		c.cancel()
		f.forget(key, c)
	}
}

// forget drops a flight unless another has taken its place. The caller holds mu.
func (f *flights[T]) forget(key string, c *flight[T]) {
	if f.byKey[key] == c {
		delete(f.byKey, key)
	}
}

// end cancels all work and waits for it. Nothing may be begun any more.
func (f *flights[T]) end() {
	f.mu.Lock()
	for _, c := range f.byKey {
		c.cancel()
	}
	f.mu.Unlock()
	f.group.Wait()
}
