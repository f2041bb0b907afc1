package gateway

import (
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Protocol is one way in: a name and its routes.
type Protocol struct {
	Name   string
	Routes []Route
}

// Route is one path that bodies are posted to.
type Route struct {
	// Path is matched exactly.
	Path string

	// Decode must fill the post's kind, ids and times from the envelope of body, or say why it is not sound (400). It must not change
	// or keep body, and must not panic whatever body is. Body is never empty. The gateway fills in the rest.
	Decode func(body []byte, p *Post) error
}

// Post is one body on its way to the bus.
type Post struct {
	Record bus.Record
	// StreamTag is what a stream's registration says; the gateway remembers it for the blocks that follow.
	StreamTag telemetry.Tag
}
