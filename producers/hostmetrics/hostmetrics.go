// Package hostmetrics measures the machine that it runs on and records what it finds through package sdk: processor, load, memory, file
// systems, disks and network on Linux, from /proc, /sys and statfs; elsewhere what package runtime knows of the process itself.
//
// What the system counts since it booted is recorded as a rate a second, from the difference of two samples: the first sample records
// none. A counter that is lower than before was reset, or wrapped around, and gives no value for that sample.
//
// The files are read as if by an enemy: up to a size, a number of lines and a number of devices, and a line that makes no sense is passed
// over and counted. The measures:
//
//	cpu_busy, cpu_mode {mode}, cpu_count                              ratio of the machine's time; count
//	load_1m, load_5m, load_15m, tasks_running, tasks                  count
//	memory_total, memory_used, memory_available                       bytes
//	swap_total, swap_used                                             bytes
//	space_total, space_used, space_available {mount, device, type}    bytes
//	disk_read, disk_written, disk_reads, disk_writes, disk_busy {device}              bytes/s, ops/s, ratio
//	network_{received, sent, packets_…, errors_…, drops_…} {interface}                bytes/s, packets/s
//	process_goroutines, process_heap, process_memory                  count, bytes: of the producer itself
//	hostmetrics_passed_over                                           count, of lines and devices in a sample, when there are any
package hostmetrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
)

// A Group is what is measured together.
type Group string

// The groups. All but Process are of Linux.
const (
	CPU     Group = "cpu"
	Load    Group = "load"
	Memory  Group = "memory"
	Space   Group = "space" // of mounted file systems
	Disk    Group = "disk"
	Network Group = "network"
	Process Group = "process" // this one, by package runtime
)

// Groups returns all groups that this system can measure.
func Groups() []Group {
	if !supported {
		return []Group{Process}
	}
	return []Group{CPU, Load, Memory, Space, Disk, Network, Process}
}

// Bounds of the producer.
const (
	minPeriod    = 10 * time.Millisecond
	maxFileBytes = 4 << 20 // of a file in /proc that is looked at
	maxDevices   = 64      // in a sample, of a kind
	maxNames     = 1024    // sets of properties over the life of a Meter, as the library keeps each for good
)

// Config says what is measured, and where it is found.
type Config struct {
	Period time.Duration // between samples
	Groups []Group
	Proc   string // folder of procfs: in a container that measures its host, where the host's is mounted
	Sys    string // likewise, of sysfs
	Root   string // likewise, of the file systems whose space is measured
}

// DefaultConfig measures all that this system can, every 10 seconds.
func DefaultConfig() Config {
	return Config{Period: 10 * time.Second, Groups: Groups(), Proc: defaultProc, Sys: "/sys", Root: "/"}
}

const defaultProc = "/proc"

// Validate returns every mistake at once. A group that this system cannot measure is one, with errors.ErrUnsupported in it.
func (c Config) Validate() error {
	var errs []error
	if c.Period < minPeriod {
		errs = append(errs, fmt.Errorf("period %s is below %s", c.Period, minPeriod))
	}
	if len(c.Groups) == 0 {
		errs = append(errs, fmt.Errorf("no groups: choose of %s", join(Groups())))
	}
	for _, g := range c.Groups {
		switch {
		case slices.Contains(Groups(), g):
		case slices.Contains([]Group{CPU, Load, Memory, Space, Disk, Network}, g):
			errs = append(errs, fmt.Errorf("group %s cannot be measured on %s: %w; leave it out, %s works everywhere", g, runtime.GOOS, errors.ErrUnsupported, Process))
		default:
			errs = append(errs, fmt.Errorf("no group %q: choose of %s", g, join(Groups())))
		}
	}
	if supported && (c.Proc == "" || c.Sys == "" || c.Root == "") {
		errs = append(errs, errors.New("proc, sys and root must name folders"))
	}
	return errors.Join(errs...)
}

func join(groups []Group) string {
	names := make([]string, len(groups))
	for i, g := range groups {
		names[i] = string(g)
	}
	return strings.Join(names, ", ")
}

// Statistics are counts since the Meter was made.
type Statistics struct {
	Samples    int64
	Failures   int64 // of groups
	PassedOver int64 // lines that make no sense, and devices beyond the bounds
}

// Meter measures. One goroutine runs it.
type Meter struct {
	cfg    Config
	log    *slog.Logger
	props  map[propsKey]*sdk.Properties
	rates  rates
	failed map[Group]string // the last failure of a group, so that it is reported once

	samples, failures, passedOver atomic.Int64
}

// New makes a Meter; nothing is measured before Run.
func New(cfg Config, log *slog.Logger) (*Meter, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("hostmetrics config: %w", err)
	}
	return &Meter{cfg: cfg, log: log, props: map[propsKey]*sdk.Properties{}, failed: map[Group]string{}}, nil
}

// Stats returns the counts so far. It is safe to call while Run runs.
func (m *Meter) Stats() Statistics {
	return Statistics{Samples: m.samples.Load(), Failures: m.failures.Load(), PassedOver: m.passedOver.Load()}
}

// Run measures at once and then every period, until ctx ends. It returns nil: a group that cannot be read is reported and tried again.
// What it finds is recorded by package sdk as long as that is started.
func (m *Meter) Run(ctx context.Context) error {
	ticker := time.NewTicker(m.cfg.Period)
	defer ticker.Stop()
	for {
		m.sample(time.Now())
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// sample measures all groups. now has the monotonic clock.
func (m *Meter) sample(now time.Time) {
	before := m.passedOver.Load()
	m.rates.begin(now)
	for _, g := range m.cfg.Groups {
		m.report(g, m.measure(g))
	}
	m.rates.end()
	if n := m.passedOver.Load() - before; n > 0 {
		passedOver.Record(n)
	}
	m.samples.Add(1)
}

// report says once why a group fails, and once that it does no more.
func (m *Meter) report(g Group, err error) {
	before, failing := m.failed[g]
	switch {
	case err == nil && failing:
		delete(m.failed, g)
		m.log.Info("measured again", "group", g)
	case err != nil:
		m.failures.Add(1)
		if err.Error() != before {
			m.failed[g] = err.Error()
			m.log.Warn("cannot measure", "group", g, "error", err)
		}
	}
}

func (m *Meter) measure(g Group) error {
	switch g {
	case CPU:
		return m.cpu()
	case Load:
		return m.load()
	case Memory:
		return m.memory()
	case Space:
		return m.space()
	case Disk:
		return m.disk()
	case Network:
		return m.network()
	default:
		m.process()
		return nil
	}
}

// propsKey names a set of properties: of a device, or of a file system.
type propsKey struct{ group, name, device, fsType string }

// propsOf returns the set of properties, nil when there have been too many.
func (m *Meter) propsOf(key propsKey, keysAndValues ...string) *sdk.Properties {
	if p := m.props[key]; p != nil {
		return p
	}
	if len(m.props) >= maxNames {
		m.passedOver.Add(1)
		return nil
	}
	p := sdk.Props(keysAndValues...)
	m.props[key] = p
	return p
}
