// Package nativehttp is the native protocol of Micromegas clients: three routes that take CBOR bodies.
// The bodies are described and decoded by schemas/wire; they travel on as the client sent them, byte for byte.
//
// That holds for properties under the reserved prefix "micromegas." too: they stay in the bytes, and wire.DecodeProcess and
// wire.DecodeStream leave them out wherever a registration is read.
package nativehttp

import (
	"fmt"

	"github.com/micromegas-go/micromegas/gateway"
	"github.com/micromegas-go/micromegas/schemas/bus"
	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/schemas/wire"
)

// The routes.
const (
	PathProcess = "/ingestion/insert_process"
	PathStream  = "/ingestion/insert_stream"
	PathBlock   = "/ingestion/insert_block"
)

// Protocol is the native protocol.
func Protocol() gateway.Protocol {
	return gateway.Protocol{
		Name: "native",
		Routes: []gateway.Route{
			{Path: PathProcess, Decode: decodeProcess},
			{Path: PathStream, Decode: decodeStream},
			{Path: PathBlock, Decode: decodeBlock},
		},
	}
}

func decodeProcess(body []byte, p *gateway.Post) error {
	process, err := wire.DecodeProcess(body)
	if err != nil {
		return fmt.Errorf("decode process: %w", err)
	}
	p.Record.Kind = bus.KindProcess
	p.Record.ProcessID = process.ID
	return nil
}

func decodeStream(body []byte, p *gateway.Post) error {
	stream, err := wire.DecodeStream(body)
	if err != nil {
		return fmt.Errorf("decode stream: %w", err)
	}
	p.Record.Kind = bus.KindStream
	p.Record.ProcessID, p.Record.StreamID = stream.ProcessID, stream.ID
	p.StreamTag = telemetry.TagOf(stream.Tags)
	return nil
}

func decodeBlock(body []byte, p *gateway.Post) error {
	block, _, err := wire.DecodeBlockEnvelope(body)
	if err != nil {
		return fmt.Errorf("decode block: %w", err)
	}
	p.Record.Kind = bus.KindBlock
	p.Record.ProcessID, p.Record.StreamID, p.Record.BlockID = block.ProcessID, block.StreamID, block.ID
	p.Record.BeginTime, p.Record.EndTime = block.BeginTime, block.EndTime
	return nil
}
