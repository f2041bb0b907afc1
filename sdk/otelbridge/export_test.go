package otelbridge

// NewLimited returns a processor with another bound of open spans.
func NewLimited(limit int) *Processor {
	p := New()
	p.limit = limit
	return p
}
