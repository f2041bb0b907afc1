//go:build unix

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync/atomic"
	"time"
)

// server is the process that blocks are posted to.
type server struct {
	cmd   *exec.Cmd
	in    io.Closer
	out   *bufio.Reader
	url   string
	posts int64 // once it is stopped
}

// startServer starts this program as a server.
func startServer() (*server, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe, "-serve")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{cmd: cmd, in: in, out: bufio.NewReader(out)}
	if _, err := fmt.Fscanln(s.out, &s.url); err != nil {
		return nil, fmt.Errorf("read its address: %w", err)
	}
	return s, nil
}

// stop ends the server and reads how many posts it answered.
func (s *server) stop() error {
	_ = s.in.Close() // what is wrong shows below
	_, err := fmt.Fscanln(s.out, &s.posts)
	if waited := s.cmd.Wait(); waited != nil {
		return fmt.Errorf("server: %w", waited)
	}
	if err != nil {
		return fmt.Errorf("read what the server counted: %w", err)
	}
	return nil
}

// headerTimeout bounds how long a client may take to send its headers.
const headerTimeout = 10 * time.Second

// serve writes its address, answers 200 until in ends, and writes how often.
func serve(in io.Reader, out io.Writer) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var posts atomic.Int64
	s := &http.Server{ReadHeaderTimeout: headerTimeout, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			posts.Add(1)
		}
	})}
	go s.Serve(l) //nolint:errcheck // ends when it is closed
	fmt.Fprintf(out, "http://%s\n", l.Addr())
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	fmt.Fprintln(out, posts.Load())
	return nil
}
