package lake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// answered is a store's refusal.
type answered reply

func (a answered) Error() string { return fmt.Sprintf("%d %s", a.status, a.code) }

func readAnswered(err error) reply {
	var a answered
	errors.As(err, &a)
	return reply(a)
}

func TestWhatIsTriedAgain(t *testing.T) {
	for _, c := range []struct {
		err   error
		tries int
		want  error
	}{
		{nil, 1, nil},
		{answered{500, "InternalError"}, maxAttempts, nil},
		{answered{200, "InternalError"}, maxAttempts, nil},
		{answered{503, "SlowDown"}, maxAttempts, nil},
		{answered{502, ""}, maxAttempts, nil},
		{answered{429, ""}, maxAttempts, nil},
		{answered{400, "RequestTimeout"}, maxAttempts, nil},
		{answered{409, "ConditionalRequestConflict"}, maxAttempts, nil},
		{answered{200, ""}, maxAttempts, nil}, // and then nothing sensible
		{answered{403, "RequestTimeTooSkewed"}, maxAttempts, ErrClock},
		{syscall.ECONNREFUSED, maxAttempts, ErrUnreachable},
		{io.EOF, maxAttempts, ErrUnreachable},
		{errShort, maxAttempts, io.ErrUnexpectedEOF},
		{answered{404, "NoSuchKey"}, 1, ErrNotFound},
		{answered{404, "NoSuchBucket"}, 1, ErrNoBucket},
		{answered{404, "ContainerNotFound"}, 1, ErrNoBucket},
		{answered{403, "AccessDenied"}, 1, ErrCredentials},
		{answered{401, ""}, 1, ErrCredentials},
		{answered{400, "ExpiredToken"}, 1, ErrCredentials},
		{errNoCredentials, 1, ErrCredentials},
		{answered{412, "PreconditionFailed"}, 1, errExists},
		{answered{409, "BlobAlreadyExists"}, 1, errExists},
		{answered{301, "PermanentRedirect"}, 1, ErrRegion},
		{answered{416, "InvalidRange"}, 1, nil},
		{answered{501, "NotImplemented"}, 1, nil},
		{answered{400, "MalformedXML"}, 1, nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			var r retrier
			tries := 0
			err := r.do(t.Context(), 0, readAnswered, func(context.Context) error { tries++; return c.err })
			if tries != c.tries || !errors.Is(err, c.err) || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%v: %d tries, want %d; %v, want %v", c.err, tries, c.tries, err, c.want)
			}
			if s := r.stats(); s.Operations != 1 || s.Retries != int64(c.tries-1) || s.Failures != int64(min(c.tries-1, 1)) {
				t.Errorf("%v: stats = %+v", c.err, s)
			}
		})
	}
}

func TestRetriesEndWithSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r retrier
		tries := 0
		err := r.do(t.Context(), 0, readAnswered, func(context.Context) error {
			if tries++; tries < 4 {
				return answered{500, ""}
			}
			return nil
		})
		if err != nil || tries != 4 || r.stats() != (RemoteStats{Operations: 1, Retries: 3, Refused: 3}) {
			t.Errorf("%d tries, %v, %+v", tries, err, r.stats())
		}
	})
}

// Attempts that hang are cut, later ones later, and the whole is bounded.
func TestHangingAttemptsAreCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r retrier
		var took []time.Duration
		begun := time.Now()
		err := r.do(t.Context(), 2*slowestTransfer, readAnswered, func(ctx context.Context) error {
			at := time.Now()
			<-ctx.Done()
			took = append(took, time.Since(at))
			return ctx.Err()
		})
		if !errors.Is(err, errTimeout) || !errors.Is(err, ErrUnreachable) {
			t.Errorf("error = %v", err)
		}
		want := []time.Duration{5 * time.Second, 8 * time.Second, 14 * time.Second, 26 * time.Second, 32 * time.Second}
		if len(took) < 4 {
			t.Fatalf("attempts took %v, want about %v", took, want)
		}
		for i := range took {
			if took[i] != want[i] {
				t.Errorf("attempt %d took %s, want %s", i, took[i], want[i])
			}
		}
		if all := time.Since(begun); all > retryTime+maxAttemptTime+10*time.Second || r.stats().Timeouts != int64(len(took)) {
			t.Errorf("gave up after %s, %+v", all, r.stats())
		}
	})
}

// A reply whose size is known late has the time for it.
func TestAllowedTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r retrier
		begun := time.Now()
		err := r.do(t.Context(), 0, readAnswered, func(ctx context.Context) error {
			allow(ctx, 10*slowestTransfer)
			select {
			case <-time.After(12 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if err != nil || time.Since(begun) != 12*time.Second {
			t.Errorf("after %s: %v", time.Since(begun), err)
		}
	})
}

// The caller's context ends all of it at once.
func TestRetriesEndWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		var r retrier
		begun := time.Now()
		err := r.do(ctx, 0, readAnswered, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != 4*time.Second {
			t.Errorf("after %s: %v", time.Since(begun), err)
		}
		cancel()
		tries := 0
		err = r.do(ctx, 0, readAnswered, func(ctx context.Context) error { tries++; return answered{500, ""} })
		if err == nil || tries > 1 {
			t.Errorf("%d tries with an ended context, %v", tries, err)
		}
	})
}

func TestWaitsAreRandomAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := map[time.Duration]bool{}
		for n := range 40 {
			begun := time.Now()
			if err := pause(t.Context(), n%8); err != nil {
				t.Fatal(err)
			}
			waited := time.Since(begun)
			if waited > min(firstBackoff<<(n%8), maxBackoff) {
				t.Errorf("waited %s before attempt %d", waited, n%8+1)
			}
			seen[waited] = true
		}
		if len(seen) < 20 {
			t.Errorf("%d different waits of 40", len(seen))
		}
	})
}
