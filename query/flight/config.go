package flight

import (
	"errors"
	"fmt"
)

// Bounds of the server.
const (
	// DefaultMaxMessage is the largest request message. Statements are text; 100 MiB is what clients of the protocol expect.
	DefaultMaxMessage = 100 << 20
	// DefaultBatchBytes is the size that a record batch message is cut to. Some clients refuse messages over 4 MiB.
	DefaultBatchBytes = 2 << 20
	// maxStreams is the number of calls that one connection may have open.
	maxStreams = 256
)

// Config bounds the server.
type Config struct {
	MaxMessage int // bytes of a request message
	BatchBytes int // bytes that a record batch message is cut to; a single larger row goes through whole
}

// DefaultConfig is what serve uses.
func DefaultConfig() Config {
	return Config{MaxMessage: DefaultMaxMessage, BatchBytes: DefaultBatchBytes}
}

// Validate reports every mistake at once.
func (c Config) Validate() error {
	var errs []error
	if c.MaxMessage < 1<<16 {
		errs = append(errs, fmt.Errorf("flight: max message %d, at least 65536 is needed for a statement", c.MaxMessage))
	}
	if c.BatchBytes < 1<<12 {
		errs = append(errs, fmt.Errorf("flight: batch bytes %d, at least 4096 is needed", c.BatchBytes))
	}
	return errors.Join(errs...)
}
