//go:build unix

package main

import (
	"bufio"
	"fmt"
	"io"
	"testing"

	"github.com/micromegas-go/micromegas/sdk/httpsink"
)

// TestEverythingArrives records for a moment, over HTTP, and finds all of it counted.
func TestEverythingArrives(t *testing.T) {
	in, stop := io.Pipe()
	out, answers := io.Pipe()
	served := make(chan error, 1)
	go func() { served <- serve(in, answers) }()
	lines := bufio.NewReader(out)
	cfg := httpsink.DefaultConfig()
	if _, err := fmt.Fscanln(lines, &cfg.URL); err != nil {
		t.Fatal(err)
	}
	sink, err := httpsink.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r, err := measure("http", sink, 0.2, 100_000)
	if err != nil {
		t.Fatal(err)
	}
	stop.Close()
	var posts int64
	if _, err := fmt.Fscanln(lines, &posts); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if s := r.SinkStats; r.Events != 20_000 || s.Events != r.Events || s.Delivered != posts || len(r.Dropped) != 0 || len(s.Drops) != 0 {
		t.Errorf("%d posts, %+v", posts, r)
	}
	if r.CPUPercent <= 0 || r.CallerNS <= 0 {
		t.Errorf("nothing measured: %+v", r)
	}
}
