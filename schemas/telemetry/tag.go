package telemetry

// Tag is the family of a stream's events.
type Tag uint8

// The families. TagUnknown is a stream whose registration has not been seen; TagOther is one whose tags name no known family.
// The values are stored: they do not change.
const (
	TagUnknown Tag = iota
	TagLog
	TagMetrics
	TagCPU
	TagImage
	TagNet
	TagTrace
	TagOther
)

var tagNames = [...]string{"unknown", "log", "metrics", "cpu", "image", "net", "trace", "other"}

// TagOf returns the family that a registered stream's tags name: the first known one, else TagOther.
func TagOf(tags []string) Tag {
	for _, t := range tags {
		for tag := TagLog; tag <= TagTrace; tag++ {
			if t == tagNames[tag] {
				return tag
			}
		}
	}
	return TagOther
}

// String returns the tag's name as streams carry it.
func (t Tag) String() string {
	if int(t) < len(tagNames) {
		return tagNames[t]
	}
	return "invalid"
}

// Eager reports whether views of this family are built as blocks come (logs, metrics), or must be treated so because the family
// is not known yet. All other families are only archived, and built when somebody asks.
func (t Tag) Eager() bool { return t == TagLog || t == TagMetrics || t == TagUnknown }
