package justintime

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/micromegas-go/micromegas/schemas/wire"
)

// schemaVersion is the version of the files' content. A partition of another version is built anew.
const schemaVersion = 1

// partitionSort names the order of rows in files, see schemas/catalog: by time, as each view says.
const partitionSort = 0

// Config bounds the work of one process.
type Config struct {
	SliceObjects int64 // events of the blocks of a slice
	SliceBytes   int64 // their bodies: images are few and large
	Context      int   // blocks before a window upon which it is built when the partition before is not there

	Builds   int // instances that are built at once
	Decoders int // blocks that are decoded at once
	Fetches  int // bodies that are read at once
	// DecodedBytes bounds, over all builds, the blocks that are read and not in rows yet, at what their compressed bytes can become.
	DecodedBytes int64

	RowGroupRows int
	MaxBlockRows int
	Limits       wire.Limits // of one block
	MaxDecoders  int         // layouts whose decoders are kept

	// A clock that is estimated moves with each new block. A partition is built anew when its times would move by more.
	ClockTolerance time.Duration

	FlushTimeout time.Duration // of asking archive for what was accepted before the request
	LeaseExpiry  time.Duration // of the right to build an instance; it is renewed three times in that time
	LeasePoll    time.Duration // between looks at the lease that another process holds
	ForgetLeases time.Duration // age at which the rows of leases that nobody holds are removed
}

// DefaultConfig is right for one process.
func DefaultConfig() Config {
	return Config{
		SliceObjects: 256 << 10, SliceBytes: 64 << 20, Context: 64,
		Builds: 4, Decoders: runtime.GOMAXPROCS(0), Fetches: 16, DecodedBytes: 512 << 20,
		RowGroupRows: 128 << 10, MaxBlockRows: 4 << 20, Limits: wire.DefaultLimits, MaxDecoders: 64,
		ClockTolerance: time.Microsecond,
		FlushTimeout:   5 * time.Second, LeaseExpiry: 3 * time.Second, LeasePoll: 50 * time.Millisecond, ForgetLeases: time.Hour,
	}
}

// Validate returns every mistake at once.
func (c Config) Validate() error {
	var errs []error
	for _, v := range []struct {
		name  string
		value int64
	}{
		{"slice objects", c.SliceObjects},
		{"slice bytes", c.SliceBytes},
		{"builds", int64(c.Builds)},
		{"decoders", int64(c.Decoders)},
		{"fetches", int64(c.Fetches)},
		{"decoded bytes", c.DecodedBytes},
		{"row group rows", int64(c.RowGroupRows)},
		{"max block rows", int64(c.MaxBlockRows)},
		{"max decoders", int64(c.MaxDecoders)},
		{"flush timeout", int64(c.FlushTimeout)},
		{"lease expiry", int64(c.LeaseExpiry)},
		{"lease poll", int64(c.LeasePoll)},
		{"forget leases", int64(c.ForgetLeases)},
	} {
		if v.value <= 0 {
			errs = append(errs, fmt.Errorf("just-in-time views: %s is %d, must be positive", v.name, v.value))
		}
	}
	if c.Context < 0 || c.ClockTolerance < 0 {
		errs = append(errs, fmt.Errorf("just-in-time views: context of %d blocks and clock tolerance %s must not be negative", c.Context, c.ClockTolerance))
	}
	return errors.Join(errs...)
}
