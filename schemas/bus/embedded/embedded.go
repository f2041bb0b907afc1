// Package embedded runs a NATS server with JetStream inside the process.
package embedded

import (
	"errors"

	"github.com/nats-io/nats.go"
)

var errSkeleton = errors.New("embedded: under construction")

// Options of a Server.
type Options struct {
	StoreDir string
	Listen   string // host:port; empty = in process only
	MaxStore int64  // bytes of file storage
}

// Server is a handle that stays good across Restart.
type Server struct{}

// Start starts a server.
func Start(o Options) (*Server, error) { return nil, errSkeleton }

// Connect connects in process; the connection survives Restart.
func (s *Server) Connect() (*nats.Conn, error) { return nil, errSkeleton }

// Healthy says why the store does not work.
func (s *Server) Healthy() error { return errSkeleton }

// Restart restarts the server on the same store.
func (s *Server) Restart() error { return errSkeleton }

// Shutdown stops it.
func (s *Server) Shutdown() {}

// ClientURL is where it listens; "" when in process only.
func (s *Server) ClientURL() string { return "" }
