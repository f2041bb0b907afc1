//go:build unix

package httpsink_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/sinktest"
)

// BenchmarkPost measures a request of 10 kB over loopback, sender and server together: cpu-µs/op is the processor time of both. The server
// is the least that reads HTTP, so that most of it is the sender's.
func BenchmarkPost(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go acknowledge(c)
		}
	}()
	s := open(b, config("http://"+l.Addr().String()))
	r := sinktest.Noise(sdk.ClassMetadata, 10_000)
	before := cpu()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		s.Send(r)
		if n++; n%1_000 == 0 { // or the queue would hold the whole benchmark
			sinktest.Flush(b, s)
		}
	}
	sinktest.Close(b, s)
	b.ReportMetric(float64(cpu()-before)/float64(b.N)/1e3, "cpu-µs/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "posts/s")
}

func acknowledge(c net.Conn) {
	defer c.Close()
	r := bufio.NewReaderSize(c, 32<<10)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil {
			return
		}
	}
}

// cpu returns the processor time of this process.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
