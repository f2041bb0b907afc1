package gateway

import (
	"errors"
	"fmt"
	"time"
)

// Config holds every limit of a gateway.
type Config struct {
	MaxBody           int64 // bytes of one request body; above it 413
	MaxBodiesInFlight int64 // bytes of all bodies being read or published; above it 503
	RetryAfter        time.Duration
	PublishTimeout    time.Duration // from a whole body to its acknowledgement by the bus, and by the lake if it is large; above it 503

	TagCacheEntries int           // streams whose tag is remembered
	TagNegativeTTL  time.Duration // how long "not registered yet" is believed, and a catalog that failed is left alone
	TagTimeout      time.Duration // of one question to the catalog; then the block goes the eager way
	TagLookups      int           // questions to the catalog at once; beyond it blocks go the eager way unasked

	// Of the HTTP server that NewServer makes.
	ReadHeaderTimeout time.Duration // from the first byte of a request to the end of its header
	ReadTimeout       time.Duration // to the end of its body
	WriteTimeout      time.Duration // to the end of the answer
	IdleTimeout       time.Duration // between requests of a connection
	MaxHeaderBytes    int
	MaxConnections    int // more wait in the listener's backlog
}

// DefaultConfig is right for one process.
func DefaultConfig() Config {
	return Config{
		MaxBody:           100 << 20,
		MaxBodiesInFlight: 256 << 20,
		RetryAfter:        time.Second,
		PublishTimeout:    20 * time.Second,

		TagCacheEntries: 1 << 16, // about 6 MB when full
		TagNegativeTTL:  time.Second,
		TagTimeout:      250 * time.Millisecond,
		TagLookups:      8,

		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       time.Minute,
		WriteTimeout:      90 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		MaxConnections:    8192,
	}
}

// Validate returns every mistake at once.
func (c Config) Validate() error {
	var mistakes []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			mistakes = append(mistakes, fmt.Errorf("gateway: "+format, args...))
		}
	}
	check(c.MaxBody >= 1 && c.MaxBody < 1<<31, "max body %d is not in 1..2 GiB", c.MaxBody)
	check(c.MaxBodiesInFlight >= c.MaxBody, "max bodies in flight %d holds less than one body of %d", c.MaxBodiesInFlight, c.MaxBody)
	check(c.RetryAfter >= time.Second, "retry after %v is below the header's unit of 1s", c.RetryAfter)
	check(c.PublishTimeout > 0, "publish timeout %v is not positive", c.PublishTimeout)
	check(c.TagCacheEntries >= 1 && c.TagCacheEntries <= 1<<24, "tag cache entries %d is not in 1..%d", c.TagCacheEntries, 1<<24)
	check(c.TagNegativeTTL > 0, "tag negative TTL %v is not positive", c.TagNegativeTTL)
	check(c.TagTimeout > 0, "tag timeout %v is not positive", c.TagTimeout)
	check(c.TagLookups >= 1, "tag lookups %d is not positive", c.TagLookups)
	check(c.ReadHeaderTimeout > 0, "read header timeout %v is not positive", c.ReadHeaderTimeout)
	check(c.ReadTimeout >= c.ReadHeaderTimeout, "read timeout %v is below the read header timeout %v", c.ReadTimeout, c.ReadHeaderTimeout)
	check(c.WriteTimeout > c.ReadTimeout+c.PublishTimeout, "write timeout %v leaves no time after the read timeout %v and the publish timeout %v", c.WriteTimeout, c.ReadTimeout, c.PublishTimeout)
	check(c.IdleTimeout > 0, "idle timeout %v is not positive", c.IdleTimeout)
	check(c.MaxHeaderBytes >= 4<<10, "max header bytes %d is below 4096", c.MaxHeaderBytes)
	check(c.MaxConnections >= 1, "max connections %d is not positive", c.MaxConnections)
	return errors.Join(mistakes...)
}
