package wire

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// reservedPrefix begins the keys of properties that only a server may set; a client's are dropped.
const reservedPrefix = "micromegas."

var (
	errDuplicateKey = errors.New("duplicate key")
	errEmptyBody    = errors.New("empty body")
)

// BlockBody is a decoded insert_block body. Dependencies and Objects are the payload's compressed buffers; they alias the body unless
// they had to be put together from pieces.
type BlockBody struct {
	telemetry.Block
	Dependencies []byte
	Objects      []byte
}

// fieldError names the key whose value is wrong.
func fieldError(key string, err error) error { return fmt.Errorf("%s: %w", key, err) }

// checkKeys returns an error naming the first of keys whose bit is missing in seen.
func checkKeys(seen uint32, keys []string) error {
	for i, k := range keys {
		if seen&(1<<i) == 0 {
			return fmt.Errorf("missing key %s", k)
		}
	}
	return nil
}

// keyIndex returns the position of key in keys, -1 for an unknown one. The lists are short and the keys mostly differ in length.
func keyIndex(keys []string, key []byte) int {
	for i, k := range keys {
		if k == string(key) {
			return i
		}
	}
	return -1
}

// fields reads a map with the given keys: field is called with the index of each key and must consume its value. Unknown
// keys are skipped, missing and duplicate ones are errors.
func (r *reader) fields(keys []string, field func(i int) error) error {
	c, err := r.open(majorMap, errNotMap)
	if err != nil {
		return err
	}
	var seen uint32
	for {
		i, err := r.nextField(&c, keys, &seen)
		if err != nil {
			return err
		}
		if i < 0 {
			return checkKeys(seen, keys)
		}
		if err := field(i); err != nil {
			return fieldError(keys[i], err)
		}
	}
}

// nextField returns the index of the next known key, -1 at the end of the map.
func (r *reader) nextField(c *container, keys []string, seen *uint32) (int, error) {
	for {
		ok, err := r.more(c)
		if err != nil || !ok {
			return -1, err
		}
		key, err := r.text()
		if err != nil {
			return -1, fieldError("key", err)
		}
		i := keyIndex(keys, key)
		if i < 0 {
			if err := r.skip(); err != nil {
				return -1, err
			}
			continue
		}
		if *seen&(1<<i) != 0 {
			return -1, fieldError(keys[i], errDuplicateKey)
		}
		*seen |= 1 << i
		return i, nil
	}
}

var processKeys = []string{
	"process_id", "exe", "username", "realname", "computer", "distro", "cpu_brand", "tsc_frequency", "start_time", "start_ticks",
	"parent_process_id", "properties",
}

// DecodeProcess reads an insert_process body. Names are cut and cleaned as CleanName says; properties come sorted by key, the last
// value of a repeated key counts, and those under the reserved prefix "micromegas." are dropped.
func DecodeProcess(body []byte) (telemetry.Process, error) {
	var p telemetry.Process
	r := reader{b: body}
	err := r.fields(processKeys, func(i int) (err error) {
		switch i {
		case 0:
			p.ID, err = r.id()
		case 1:
			p.Exe, err = r.name()
		case 2:
			p.Username, err = r.name()
		case 3:
			p.Realname, err = r.name()
		case 4:
			p.Computer, err = r.name()
		case 5:
			p.Distro, err = r.name()
		case 6:
			p.CPUBrand, err = r.name()
		case 7:
			p.TSCFrequency, err = r.int64()
		case 8:
			p.StartTime, err = r.time()
		case 9:
			p.StartTicks, err = r.int64()
		case 10:
			p.ParentID, err = r.optionalID()
		case 11:
			p.Properties, err = r.properties()
		}
		return err
	})
	if err != nil {
		return telemetry.Process{}, fmt.Errorf("decode process: %w", err)
	}
	return p, nil
}

var streamKeys = []string{"process_id", "stream_id", "dependencies_metadata", "objects_metadata", "tags", "properties"}

// DecodeStream reads an insert_stream body. Tags and properties are cleaned as those of processes; layouts are not judged here:
// a type that cannot be read is an error of the blocks that use it.
func DecodeStream(body []byte) (telemetry.Stream, error) {
	s := telemetry.Stream{Format: telemetry.FormatTransit}
	r := reader{b: body}
	err := r.fields(streamKeys, func(i int) (err error) {
		switch i {
		case 0:
			s.ProcessID, err = r.id()
		case 1:
			s.ID, err = r.id()
		case 2:
			s.Dependencies, err = r.types()
		case 3:
			s.Objects, err = r.types()
		case 4:
			s.Tags, err = r.names()
		case 5:
			s.Properties, err = r.properties()
		}
		return err
	})
	if err != nil {
		return telemetry.Stream{}, fmt.Errorf("decode stream: %w", err)
	}
	return s, nil
}

// DecodeTypes reads a CBOR array of type layouts, as AppendTypes writes it.
func DecodeTypes(data []byte) ([]telemetry.Type, error) {
	r := reader{b: data}
	types, err := r.types()
	if err != nil {
		return nil, fmt.Errorf("decode types: %w", err)
	}
	return types, nil
}

// DecodeBlock reads an insert_block body.
func DecodeBlock(body []byte) (BlockBody, error) {
	b, payload, err := decodeBlock(body, true)
	if err != nil {
		return BlockBody{}, fmt.Errorf("decode block: %w", err)
	}
	return BlockBody{Block: b, Dependencies: payload.deps, Objects: payload.objs}, nil
}

// DecodeBlockEnvelope checks all of an insert_block body as DecodeBlock does, and returns its envelope and the size of its canonical
// payload (PayloadSize), without copying the payload or allocating.
func DecodeBlockEnvelope(body []byte) (b telemetry.Block, payloadSize int, err error) {
	b, payload, err := decodeBlock(body, false)
	if err != nil {
		return telemetry.Block{}, 0, fmt.Errorf("decode block: %w", err)
	}
	return b, PayloadSize(payload.nDeps, payload.nObjs), nil
}

var (
	blockKeys = []string{
		"block_id", "stream_id", "process_id", "begin_time", "begin_ticks", "end_time", "end_ticks", "payload", "object_offset", "nb_objects",
	}
	payloadKeys = []string{"dependencies", "objects"}
)

// payload is what a block's payload holds: lengths always, buffers when asked for.
type payload struct {
	deps, objs   []byte
	nDeps, nObjs int
}

// decodeBlock spells its loop out where DecodeProcess uses a closure: this is the gateway's hot path.
func decodeBlock(body []byte, collect bool) (b telemetry.Block, pl payload, err error) {
	if len(body) == 0 {
		return b, pl, errEmptyBody
	}
	r := reader{b: body}
	c, err := r.open(majorMap, errNotMap)
	if err != nil {
		return b, pl, err
	}
	var seen uint32
	for {
		i, err := r.nextField(&c, blockKeys, &seen)
		if err != nil {
			return b, pl, err
		}
		switch i {
		case -1:
			return b, pl, checkKeys(seen, blockKeys)
		case 0:
			b.ID, err = r.id()
		case 1:
			b.StreamID, err = r.id()
		case 2:
			b.ProcessID, err = r.id()
		case 3:
			b.BeginTime, err = r.time()
		case 4:
			b.BeginTicks, err = r.int64()
		case 5:
			b.EndTime, err = r.time()
		case 6:
			b.EndTicks, err = r.int64()
		case 7:
			err = r.payload(&pl, collect)
		case 8:
			b.ObjectOffset, err = r.count(math.MaxInt64)
		case 9:
			var n int64
			n, err = r.count(math.MaxInt32)
			b.NbObjects = int32(n)
		}
		if err != nil {
			return b, pl, fieldError(blockKeys[i], err)
		}
	}
}

func (r *reader) payload(pl *payload, collect bool) error {
	c, err := r.open(majorMap, errNotMap)
	if err != nil {
		return err
	}
	var seen uint32
	for {
		i, err := r.nextField(&c, payloadKeys, &seen)
		if err != nil {
			return err
		}
		switch i {
		case -1:
			return checkKeys(seen, payloadKeys)
		case 0:
			pl.deps, pl.nDeps, err = r.octets(collect)
		case 1:
			pl.objs, pl.nObjs, err = r.octets(collect)
		}
		if err != nil {
			return fieldError(payloadKeys[i], err)
		}
	}
}

func (r *reader) count(limit int64) (int64, error) {
	n, err := r.int64()
	if err == nil && (n < 0 || n > limit) {
		err = errRange
	}
	return n, err
}

func (r *reader) id() (telemetry.ID, error) {
	s, err := r.text()
	if err != nil {
		return telemetry.ID{}, err
	}
	return telemetry.ParseID(alias(s))
}

// optionalID reads an id that may be null or empty.
func (r *reader) optionalID() (telemetry.ID, error) {
	if r.null() {
		return telemetry.ID{}, nil
	}
	s, err := r.text()
	if err != nil || len(s) == 0 {
		return telemetry.ID{}, err
	}
	return telemetry.ParseID(alias(s))
}

func (r *reader) time() (int64, error) {
	s, err := r.text()
	if err != nil {
		return 0, err
	}
	return parseTime(s)
}

// name reads a text and returns a cleaned copy.
func (r *reader) name() (string, error) {
	s, err := r.text()
	if err != nil {
		return "", err
	}
	clean, _, _ := CleanName(alias(s))
	return strings.Clone(clean), nil
}

func (r *reader) names() ([]string, error) {
	c, err := r.open(majorArray, errNotArray)
	if err != nil {
		return nil, err
	}
	var names []string
	for {
		ok, err := r.more(&c)
		if err != nil || !ok {
			return names, err
		}
		n, err := r.name()
		if err != nil {
			return nil, err
		}
		names = append(names, n)
	}
}

func (r *reader) properties() ([]telemetry.Property, error) {
	c, err := r.open(majorMap, errNotMap)
	if err != nil {
		return nil, err
	}
	var props []telemetry.Property
	for {
		ok, err := r.more(&c)
		if err != nil {
			return nil, err
		}
		if !ok {
			return telemetry.SortProperties(props), nil
		}
		key, err := r.name()
		if err != nil {
			return nil, err
		}
		value, err := r.text()
		if err != nil {
			return nil, fieldError(key, err)
		}
		if strings.HasPrefix(key, reservedPrefix) {
			continue
		}
		clean, _ := CleanMessage(alias(value))
		clean, _ = replaceNULs(clean) // catalogs cannot store them
		props = append(props, telemetry.Property{Key: key, Value: strings.Clone(clean)})
	}
}

var (
	typeKeys   = []string{"name", "size", "members", "is_reference"}
	memberKeys = []string{"name", "type_name", "offset", "size", "is_reference"}
)

func (r *reader) types() ([]telemetry.Type, error) {
	c, err := r.open(majorArray, errNotArray)
	if err != nil {
		return nil, err
	}
	var types []telemetry.Type
	for {
		ok, err := r.more(&c)
		if err != nil || !ok {
			return types, err
		}
		t, err := r.udt()
		if err != nil {
			return nil, fmt.Errorf("type %d: %w", len(types), err)
		}
		types = append(types, t)
	}
}

func (r *reader) udt() (t telemetry.Type, err error) {
	err = r.fields(typeKeys, func(i int) (err error) {
		switch i {
		case 0:
			t.Name, err = r.copyText()
		case 1:
			t.Size, err = r.size()
		case 2:
			t.Members, err = r.members()
		case 3:
			t.IsReference, err = r.bool()
		}
		return err
	})
	return t, err
}

func (r *reader) members() ([]telemetry.Member, error) {
	c, err := r.open(majorArray, errNotArray)
	if err != nil {
		return nil, err
	}
	var members []telemetry.Member
	for {
		ok, err := r.more(&c)
		if err != nil || !ok {
			return members, err
		}
		m, err := r.member()
		if err != nil {
			return nil, fmt.Errorf("member %d: %w", len(members), err)
		}
		members = append(members, m)
	}
}

func (r *reader) member() (m telemetry.Member, err error) {
	err = r.fields(memberKeys, func(i int) (err error) {
		switch i {
		case 0:
			m.Name, err = r.copyText()
		case 1:
			m.TypeName, err = r.copyText()
		case 2:
			m.Offset, err = r.size()
		case 3:
			m.Size, err = r.size()
		case 4:
			m.IsReference, err = r.bool()
		}
		return err
	})
	return m, err
}

func (r *reader) copyText() (string, error) {
	s, err := r.text()
	return string(s), err
}
