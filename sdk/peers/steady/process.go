//go:build unix

package main

import (
	"context"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/micromegas-go/micromegas/sdk"
)

// discard is a sink that takes everything as delivered.
type discard struct{ requests, events, bytes atomic.Int64 }

func (d *discard) Send(r sdk.Request) {
	d.requests.Add(1)
	d.events.Add(int64(r.Events))
	d.bytes.Add(int64(len(r.Body)))
}
func (d *discard) Flush(context.Context) error { return nil }
func (d *discard) Close(context.Context) error { return nil }
func (d *discard) Stats() sdk.SinkStats {
	return sdk.SinkStats{Sent: d.requests.Load(), Delivered: d.requests.Load(), Events: d.events.Load(), Bytes: d.bytes.Load()}
}

// cpuOf returns the CPU time, user and system, of the process while f runs.
func cpuOf(f func()) time.Duration {
	before := cpu()
	f()
	return cpu() - before
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // fails for bad arguments only
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peak returns the highest resident memory so far in bytes, 0 where the kernel does not say.
func peak() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	line, _, _ := strings.Cut(rest, "kB")
	kib, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	if err != nil {
		return 0
	}
	return kib << 10
}
