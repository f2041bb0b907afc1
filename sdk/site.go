package sdk

import (
	"maps"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
)

// site is a call site: what is constant of the events that it makes. Its on field alone decides whether an event is recorded; all that
// has a say is put together there whenever something changes.
type site struct {
	on atomic.Uint32 // 0 = off, 1 = on, n = one of n
	id uint32        // index in the registry

	head      uint64
	kind      siteKind
	level     Level     // of logs
	verbosity Verbosity // of the others
	text      string    // format of a log, name of a measure or span; "" = each span brings its name
	unit      string
	target    string
	module    string
	file      string
	line      uint32
	depID     uint64  // of its record in blocks
	owner     any     // *Log, *IntMeasure, … whose site this is
	texts     [5]text // text, unit, target, module, file

	// Of the registry's lock.
	disabled bool
	every    uint32 // one of so many is recorded
}

type siteKind uint8

const (
	siteLog siteKind = 1 + iota
	siteInt
	siteFloat
	siteCounter
	siteSpan
)

// sampled reports whether the event at hand is one of those that are recorded. n is what on holds.
func sampled(n uint32) bool { return n == 1 || rand.Uint32N(n) == 0 }

// SetEnabled turns the site off, or on as far as levels and verbosity allow.
func (s *site) SetEnabled(on bool) {
	registry.change(s, func() { s.disabled = !on })
}

// Sample makes the site record one of n events, chosen at random; a span counts as one event. 0 and 1 mean all.
func (s *site) Sample(n int) {
	registry.change(s, func() { s.every = uint32(max(1, min(n, 1<<30))) })
}

// Enabled reports whether the site records. It is for work that only serves an event.
func (s *site) Enabled() bool { return s.on.Load() != 0 }

// SiteOption changes a call site.
type SiteOption func(*site)

// Target sets the target of a site in place of the package that declares it. Levels are set by target, and each row carries it.
func Target(target string) SiteOption { return func(s *site) { s.target = target } }

// WithVerbosity sets how much detail a measure or a span is.
func WithVerbosity(v Verbosity) SiteOption { return func(s *site) { s.verbosity = v } }

// maxSites bounds the call sites of a process. A program has some thousands; more come from code that declares them in a loop.
const maxSites = 1 << 16

// siteKey tells sites apart: one declared again is the same.
type siteKey struct {
	kind       siteKind
	level      Level
	text, unit string
	target     string
	file       string
	line       uint32
}

// sites are all call sites, and what decides whether they are on.
type sites struct {
	mu     sync.Mutex
	byKey  map[siteKey]*site
	all    atomic.Pointer[[]*site] // by id; only grows
	limits limits
}

// limits say what is recorded.
type limits struct {
	running   bool
	level     Level
	targets   map[string]Level
	verbosity Verbosity
	spans     bool
}

var registry = sites{byKey: map[siteKey]*site{}}

// snapshot returns all sites; the slice is not changed.
func (r *sites) snapshot() []*site {
	if all := r.all.Load(); all != nil {
		return *all
	}
	return nil
}

// add returns the site that was declared by the function skip frames above the caller.
func (r *sites) add(skip int, s *site, options []SiteOption) (owner any) {
	s.module, s.file, s.line = caller(skip + 1)
	s.target, s.verbosity, s.every = s.module, MedVerbosity, 1
	for _, o := range options {
		o(s)
	}
	return r.intern(s).owner
}

// intern returns s, or the same site from before.
func (r *sites) intern(s *site) *site {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := siteKey{s.kind, s.level, s.text, s.unit, s.target, s.file, s.line}
	if have := r.byKey[key]; have != nil {
		return have
	}
	all := r.snapshot()
	if len(all) >= maxSites {
		drops.add(dropSite, 1)
		return s // which stays off
	}
	s.id, s.depID = uint32(len(all)), nextID()
	if s.kind == siteInt {
		s.head = uint64(headOf(kindInt, 0, 3, s.id))
	} else {
		s.head = uint64(headOf(kindFloat, 0, 3, s.id))
	}
	if s.kind == siteLog {
		s.texts[0] = internMessage(s.text)
	} else {
		s.texts[0] = internName(s.text)
	}
	for i, t := range [...]string{s.unit, s.target, s.module, s.file} {
		s.texts[1+i] = internName(t)
	}
	grown := append(all, s) // beyond the length of what others hold
	r.all.Store(&grown)
	r.byKey[key] = s
	r.apply(s)
	return s
}

// change changes something of a site that decides whether it is on.
func (r *sites) change(s *site, f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	r.apply(s)
}

// set changes the limits.
func (r *sites) set(f func(*limits)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.limits)
	for _, s := range r.snapshot() {
		r.apply(s)
	}
}

// apply sets whether a site is on.
func (r *sites) apply(s *site) {
	if s.depID == 0 {
		return // not registered
	}
	on := uint32(0)
	if !s.disabled && r.limits.allow(s) {
		on = s.every
	}
	s.on.Store(on)
}

func (l *limits) allow(s *site) bool {
	if !l.running {
		return false
	}
	switch s.kind {
	case siteLog:
		return s.level <= StaticMaxLevel && s.level <= l.levelOf(s.target)
	case siteSpan:
		return l.spans && s.verbosity <= l.verbosity
	}
	return s.verbosity <= l.verbosity
}

// levelOf returns the level of the longest prefix of the target that has one. A prefix ends where a part of the target does.
func (l *limits) levelOf(target string) Level {
	for t := target; t != ""; {
		if level, ok := l.targets[t]; ok {
			return level
		}
		t = t[:max(0, strings.LastIndexAny(t, "/.:"))]
	}
	return l.level
}

// caller returns package, file and line of the function skip frames above the caller.
func caller(skip int) (module, file string, line uint32) {
	var pcs [1]uintptr
	if runtime.Callers(skip+2, pcs[:]) == 0 {
		return "unknown", "unknown", 0
	}
	return place(pcs[0])
}

// place returns package, file and line of a return address.
func place(pc uintptr) (module, file string, line uint32) {
	f, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	return packageOf(f.Function), f.File, uint32(max(0, f.Line))
}

// packageOf returns the import path of a function's package: what is before the first dot after the last slash.
func packageOf(function string) string {
	slash := strings.LastIndexByte(function, '/') + 1
	if dot := strings.IndexByte(function[slash:], '.'); dot >= 0 {
		return function[:slash+dot]
	}
	return function
}

// SetLevel changes which logs are recorded: those up to level, where no target says otherwise.
func SetLevel(level Level) { registry.set(func(l *limits) { l.level = level }) }

// SetTargetLevel changes which logs of a target, and of the targets below it, are recorded: "example.com/game/net" is below
// "example.com/game". A longer name counts before a shorter one.
func SetTargetLevel(target string, level Level) {
	registry.set(func(l *limits) {
		targets := make(map[string]Level, len(l.targets)+1)
		maps.Copy(targets, l.targets)
		targets[target] = level
		l.targets = targets
	})
}

// SetVerbosity changes which measures and spans are recorded.
func SetVerbosity(v Verbosity) { registry.set(func(l *limits) { l.verbosity = v }) }

// SetSpans turns all spans on or off.
func SetSpans(on bool) { registry.set(func(l *limits) { l.spans = on }) }
