package postgres

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// clean makes a text that PostgreSQL takes: valid UTF-8 without NUL. What is neither becomes U+FFFD.
func clean(s string) string {
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

func cleanAll(list []string) []string {
	cleaned := make([]string, len(list))
	for i, s := range list {
		cleaned[i] = clean(s)
	}
	return cleaned
}

// encodeProperties writes a JSON object with sorted keys; of a key that comes twice the last value stays.
func encodeProperties(properties []telemetry.Property) string {
	m := make(map[string]string, len(properties))
	for _, p := range properties {
		m[p.Key] = p.Value
	}
	return encodeJSON(m)
}

func encodeTags(tags []string) string {
	if tags == nil {
		tags = []string{}
	}
	return encodeJSON(tags)
}

// encodeJSON writes what has an encoding in any case: strings, in lists and maps.
func encodeJSON(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err))
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}

// decodeProperties reads a JSON object of strings; the result is sorted by key.
func decodeProperties(text string) ([]telemetry.Property, error) {
	if text == "{}" {
		return nil, nil
	}
	var m map[string]string
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return nil, fmt.Errorf("properties: %w", err)
	}
	properties := make([]telemetry.Property, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		properties = append(properties, telemetry.Property{Key: k, Value: m[k]})
	}
	return properties, nil
}

func decodeTags(text string) ([]string, error) {
	var tags []string
	if err := json.Unmarshal([]byte(text), &tags); err != nil {
		return nil, fmt.Errorf("tags: %w", err)
	}
	return tags, nil
}
