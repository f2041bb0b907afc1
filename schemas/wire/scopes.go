package wire

import (
	"encoding/binary"
	"errors"
)

// Scope is where a span comes from: the place of its call, and the name that it has there.
type Scope struct {
	Name, Target, Filename string
	Line                   uint32
	Hash                   uint32 // ScopeHash of the others: both ends of a span have the same one
}

// ScopeHash is the hash by which spans name their scopes in rows: XXH32 chained over name, filename, target and line.
func ScopeHash(name, filename, target string, line uint32) uint32 {
	h := xxh32Seed([]byte(name), 0) // these conversions copy nothing
	h = xxh32Seed([]byte(filename), h)
	h = xxh32Seed([]byte(target), h)
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], line)
	return xxh32Seed(b[:], h)
}

// scopeCost is what a scope counts against MaxText beside its texts: an event of a few bytes may bring a new one.
const scopeCost = 64

var errManyScopes = errors.New("too many scopes of spans")

// site is the record of a span, or of a place whose spans bring their names.
type site struct {
	name, target, file string
	line               uint32
	has                uint8
	scope              int32 // of its spans, noScope before the first one
}

// What a site has.
const (
	siteName = 1 << iota
	siteTarget
	siteFile
	siteLine

	sitePlace = siteTarget | siteFile | siteLine
)

const noScope = -1

// site reads what spans need of a record.
func (d *Decoder) site(pl *depPlan, body []byte) site {
	s := site{scope: noScope}
	for _, t := range [...]struct {
		leaf leaf
		text *string
		has  uint8
	}{
		{pl.texts[textName], &s.name, siteName},
		{pl.texts[textTarget], &s.target, siteTarget},
		{pl.file, &s.file, siteFile},
	} {
		if t.leaf.kind != kindRef {
			continue
		}
		if ref, ok := d.ids.find(u64At(body, t.leaf)); ok && ref.kind() == depText {
			*t.text = d.name(ref.index())
			s.has |= t.has
		}
	}
	if pl.line.kind == kindU32 {
		s.line = binary.LittleEndian.Uint32(body[pl.line.offset:])
		s.has |= siteLine
	}
	return s
}

// scopeOf returns the number of the scope that the record id is.
func (d *Decoder) scopeOf(id uint64, dst *SpanBlock) (int32, error) {
	i, err := d.indexOf(id, depObject)
	if err != nil {
		return 0, err
	}
	s := &d.sites[i]
	if s.scope != noScope {
		return s.scope, nil
	}
	if s.has != siteName|sitePlace {
		return 0, errNoRow
	}
	s.scope, err = d.addScope(s, s.name, dst)
	return s.scope, err
}

// namedScopeOf returns the number of the scope of a span at the record id that brings its name.
func (d *Decoder) namedScopeOf(id, name uint64, dst *SpanBlock) (int32, error) {
	i, err := d.indexOf(id, depObject)
	if err != nil {
		return 0, err
	}
	n, err := d.indexOf(name, depText)
	if err != nil {
		return 0, err
	}
	pair := uint64(i)<<32 | uint64(n)
	if scope, ok := d.named.find(pair); ok {
		return int32(scope), nil
	}
	s := &d.sites[i]
	if s.has&sitePlace != sitePlace {
		return 0, errNoRow
	}
	scope, err := d.addScope(s, d.name(n), dst)
	if err == nil {
		d.named.insert(pair, depRef(scope))
	}
	return scope, err
}

// addScope appends a scope to dst.
func (d *Decoder) addScope(s *site, name string, dst *SpanBlock) (int32, error) {
	d.built += scopeCost + len(name) + len(s.file) + len(s.target)
	if d.built > d.limits.MaxText || len(dst.Scopes) > maxScope {
		return noScope, errManyScopes
	}
	dst.Scopes = append(dst.Scopes, Scope{
		Name: name, Target: s.target, Filename: s.file, Line: s.line, Hash: ScopeHash(name, s.file, s.target, s.line),
	})
	return int32(len(dst.Scopes) - 1), nil
}
