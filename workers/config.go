package workers

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/micromegas-go/micromegas/schemas/catalog/ownership"
)

// Config bounds what the pool does at once and how long it tries.
type Config struct {
	MaxHandlers   int           // Handle calls that run at once, over all consumers
	BatchRecords  int           // records given to one Handle call
	BatchBytes    int           // their bodies; a larger record comes alone
	HandleTimeout time.Duration // of one Handle call

	MaxAttempts        int           // Handle calls with one record alone before it becomes a dead letter
	RetryMin, RetryMax time.Duration // pauses between them, doubling
	CommitInterval     time.Duration // how often a position is made durable
	Grace              time.Duration // how long a running Handle may finish when the pool stops

	Ownership ownership.Config
}

// DefaultConfig is right for consumers that take milliseconds.
func DefaultConfig() Config {
	return Config{
		MaxHandlers:    4 * runtime.GOMAXPROCS(0),
		BatchRecords:   256,
		BatchBytes:     4 << 20,
		HandleTimeout:  30 * time.Second,
		MaxAttempts:    5,
		RetryMin:       50 * time.Millisecond,
		RetryMax:       5 * time.Second,
		CommitInterval: time.Second,
		Grace:          5 * time.Second,
		Ownership:      ownership.DefaultConfig(),
	}
}

// Validate returns every mistake at once.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("workers: "+format, args...))
		}
	}
	check(c.MaxHandlers >= 1, "max handlers %d is not positive", c.MaxHandlers)
	check(c.BatchRecords >= 1, "batch records %d is not positive", c.BatchRecords)
	check(c.BatchBytes >= 1, "batch bytes %d is not positive", c.BatchBytes)
	check(c.HandleTimeout > 0, "handle timeout %v is not positive", c.HandleTimeout)
	check(c.MaxAttempts >= 1, "max attempts %d is not positive", c.MaxAttempts)
	check(c.RetryMin > 0 && c.RetryMin <= c.RetryMax, "retry pauses %v..%v are not an ascending range", c.RetryMin, c.RetryMax)
	check(c.CommitInterval > 0, "commit interval %v is not positive", c.CommitInterval)
	check(c.Grace >= 0, "grace %v is negative", c.Grace)
	return errors.Join(append(errs, c.Ownership.Validate())...)
}
