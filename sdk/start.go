package sdk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Config says what is recorded and where it goes. The zero value of a field means what its comment says; the environment is read for
// those that are zero.
type Config struct {
	// Sink takes the blocks. It is required; Stop closes it.
	Sink Sink
	// Level is the most verbose level of logs that is recorded: Debug, or MICROMEGAS_LOG_LEVEL. It can be changed later, see SetLevel.
	Level Level
	// Targets are levels of targets and what is below them, see SetTargetLevel.
	Targets map[string]Level
	// Verbosity is the most detail of measures and spans that is recorded: all.
	Verbosity Verbosity
	// NoSpans leaves spans out, as does MICROMEGAS_ENABLE_CPU_TRACING=false. A span costs some 30 ns, and some 13 bytes to send.
	NoSpans bool
	// Exe is the name of the program: the path of the executable.
	Exe string
	// Properties describe the process, beside those of the build and the machine and those in MICROMEGAS_PROCESS_PROPERTIES, which they override.
	Properties map[string]string
	// Memory bounds the events that are not yet encoded: 32 MiB, one and a half million of them. What has no room is dropped and counted.
	Memory int
	// BlockBytes is how many bytes of events, uncompressed, make a block: 512 KiB.
	BlockBytes int
	// LogAge, MetricAge and SpanAge are how old the first event of a block may get: 2 s, 5 s, 5 s, or MICROMEGAS_FLUSH_PERIOD.
	LogAge, MetricAge, SpanAge time.Duration
}

// Bounds and defaults of Config.
const (
	defaultMemory     = 32 << 20
	minMemory         = 1 << 20
	defaultBlockBytes = 512 << 10
	minBlockBytes     = 4 << 10
	maxBlockBytes     = 16 << 20
	defaultLogAge     = 2 * time.Second
	defaultAge        = 5 * time.Second
	maxAge            = 10 * time.Minute
)

// complete fills in what is not set, from the environment and the defaults, and reports every mistake.
func (c Config) complete() (Config, error) {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(c.Sink != nil, "no sink: set Config.Sink, for example to one of package httpsink")
	if c.Level == Off {
		c.Level = Debug
		if s := os.Getenv(envLevel); s != "" {
			level, err := ParseLevel(s)
			check(err == nil, "%s: %w", envLevel, err)
			c.Level = level
		}
	}
	if s := os.Getenv(envSpans); s != "" && !c.NoSpans {
		on, err := strconv.ParseBool(s)
		check(err == nil, "%s: %q is neither true nor false", envSpans, s)
		c.NoSpans = !on
	}
	fromEnv, err := parseProperties(os.Getenv(envProperties))
	check(err == nil, "%s: %w", envProperties, err)
	if fromEnv == nil {
		fromEnv = map[string]string{}
	}
	maps.Copy(fromEnv, c.Properties)
	c.Properties = fromEnv
	if err := checkProperties(c.Properties); err != nil {
		errs = append(errs, err)
	}
	age, err := flushPeriod()
	if err != nil {
		errs = append(errs, err)
	}
	for _, a := range []struct {
		age   *time.Duration
		usual time.Duration
	}{{&c.LogAge, defaultLogAge}, {&c.MetricAge, defaultAge}, {&c.SpanAge, defaultAge}} {
		if *a.age == 0 {
			*a.age = a.usual
			if age > 0 {
				*a.age = age
			}
		}
		check(*a.age > 0 && *a.age <= maxAge, "age %s of blocks is not in 0..%s", *a.age, maxAge)
	}
	setDefault(&c.Memory, defaultMemory)
	setDefault(&c.BlockBytes, defaultBlockBytes)
	if c.Verbosity == 0 {
		c.Verbosity = MaxVerbosity
	}
	check(c.Memory >= minMemory, "memory of %d bytes is below %d", c.Memory, minMemory)
	check(c.BlockBytes >= minBlockBytes && c.BlockBytes <= maxBlockBytes, "blocks of %d bytes are not in %d..%d", c.BlockBytes, minBlockBytes, maxBlockBytes)
	return c, errors.Join(errs...)
}

func setDefault(n *int, usual int) {
	if *n == 0 {
		*n = usual
	}
}

func flushPeriod() (time.Duration, error) {
	s := os.Getenv(envFlush)
	if s == "" {
		return 0, nil
	}
	seconds, err := strconv.ParseFloat(s, 64)
	if err != nil || !(seconds > 0) || seconds > maxAge.Seconds() {
		return 0, fmt.Errorf("%s: %q is not a number of seconds up to %.0f", envFlush, s, maxAge.Seconds())
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

// The library is one of its process: sites are package variables, so what they write to is, too.
var (
	life    sync.Mutex // of Start and Stop
	running atomic.Pointer[recorder]
)

// ErrRunning is the error of a second Start without a Stop.
var ErrRunning = errors.New("sdk: already started; call Stop first")

// Start begins to record: what sites did before is lost, and cost nothing. ctx bounds the start alone. Registers the process with the sink,
// which the caller hands over.
//
// Children of the process find its id in MICROMEGAS_TELEMETRY_PARENT_PROCESS, and name it as their parent.
func Start(ctx context.Context, cfg Config) error {
	life.Lock()
	defer life.Unlock()
	if running.Load() != nil {
		return ErrRunning
	}
	cfg, err := cfg.complete()
	if err != nil {
		return fmt.Errorf("sdk: start: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("sdk: start: %w", err)
	}
	c := newClock()
	p := describe(&cfg, c)
	if err := os.Setenv(envParent, p.ID.String()); err != nil {
		return fmt.Errorf("sdk: start: set %s: %w", envParent, err)
	}
	r := newRecorder(cfg, p, c)
	cfg.Sink.Send(Request{Kind: KindProcess, Class: ClassMetadata, Body: r.registration, ProcessID: p.ID})
	r.discard()
	memory.open(cfg.Memory/wordBytes, func() {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	})
	go r.run()
	running.Store(r)
	registry.set(func(l *limits) {
		l.running, l.level, l.targets, l.verbosity, l.spans = true, cfg.Level, maps.Clone(cfg.Targets), cfg.Verbosity, !cfg.NoSpans
	})
	return nil
}

// discard drops what was written after the last Stop, and what counters counted.
func (r *recorder) discard() {
	for i := range lanesUsed.Load() {
		lanes[i].drain(func(w []uint64) { drops.add(dropLate, 1) })
	}
	if all := counters.Load(); all != nil {
		for _, c := range *all {
			r.counted[c] = c.sum()
		}
	}
}

// open makes the pool usable, for a recorder that is woken by wake.
func (p *pool) open(words int, wake func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bound, p.wake = words, wake
}

// Flush has everything recorded so far sent, and returns when the sink has delivered it or given it up, or with ctx's error. Before Start
// it does nothing.
func Flush(ctx context.Context) error {
	r := running.Load()
	if r == nil {
		return nil
	}
	if err := r.flush(ctx); err != nil {
		return fmt.Errorf("sdk: flush: %w", err)
	}
	if err := r.sink.Flush(ctx); err != nil {
		return fmt.Errorf("sdk: flush: %w", err)
	}
	return nil
}

// stopWithin is how long Stop takes at most with a ctx that has no deadline.
const stopWithin = 5 * time.Second

// Stop ends recording: it sends what is there and closes the sink, within 5 s or ctx's deadline. What sites do after it is lost, and costs
// nothing. The library can be started again.
func Stop(ctx context.Context) error {
	life.Lock()
	defer life.Unlock()
	r := running.Load()
	if r == nil {
		return nil
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, stopWithin)
		defer cancel()
	}
	registry.set(func(l *limits) { l.running = false })
	running.Store(nil)
	close(r.stop)
	select {
	case <-r.stopped:
	case <-ctx.Done(): // a sink that holds the recorder up, against its promise
	}
	if os.Getenv(envParent) == r.process.ID.String() {
		_ = os.Unsetenv(envParent) // fails for bad names only
	}
	if err := r.sink.Close(ctx); err != nil {
		return fmt.Errorf("sdk: stop: %w", err)
	}
	return nil
}

// ProcessID returns the id under which the process's rows are found, "" when the library is not running.
func ProcessID() string {
	if r := running.Load(); r != nil {
		return r.process.ID.String()
	}
	return ""
}

// IsOwn reports whether an id is that of this process as it is being recorded. A service that takes telemetry in leaves its own out of what it
// records of its work, so that it does not feed on itself.
func IsOwn(process [16]byte) bool {
	r := running.Load()
	return r != nil && r.process.ID == process
}

// Statistics say what became of events.
type Statistics struct {
	// Dropped counts events that the recorder did not keep whole, by reason; what is "text cut" is there, with less text.
	Dropped map[string]int64
	// Sink is what became of requests.
	Sink SinkStats
}

// Stats returns the counts since the process began, and those of the running sink.
func Stats() Statistics {
	s := Statistics{Dropped: map[string]int64{}}
	for i := range drops {
		if n := drops[i].Load(); n != 0 {
			s.Dropped[dropNames[i]] = n
		}
	}
	if r := running.Load(); r != nil {
		s.Sink = r.sink.Stats()
	}
	return s
}
