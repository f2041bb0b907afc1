package hostmetrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/memsink"
)

// begin starts the library, and returns how to stop it and read the measures.
func begin(t *testing.T) (stop func() []memsink.Measure) {
	t.Helper()
	sink := memsink.New(0)
	if err := sdk.Start(t.Context(), sdk.Config{Sink: sink}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sdk.Stop(context.Background()) })
	return func() []memsink.Measure {
		t.Helper()
		if err := sdk.Stop(context.Background()); err != nil {
			t.Fatal(err)
		}
		d, err := sink.Decode()
		if err != nil {
			t.Fatal(err)
		}
		all, err := d.Measures()
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
}

func linuxOnly(t *testing.T) {
	t.Helper()
	if !supported {
		t.Skip("measures Linux")
	}
}

func newMeter(t *testing.T, proc string, groups ...Group) *Meter {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Proc, cfg.Sys, cfg.Root, cfg.Groups = proc, "testdata/sys", t.TempDir(), groups
	if err := os.MkdirAll(filepath.Join(cfg.Root, "srv/game data"), 0o755); err != nil {
		t.Fatal(err)
	}
	m, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// lines writes measures as "name{device} value unit", without those of the file systems of this machine.
func lines(all []memsink.Measure) map[string]string {
	m := map[string]string{}
	for _, v := range all {
		key := v.Name
		for _, p := range v.Properties.Props {
			if p.Key != "type" && (p.Key != "device" || !strings.HasPrefix(v.Name, "space")) {
				key += "{" + p.Value + "}"
			}
		}
		if strings.HasPrefix(v.Name, "space") {
			m[key] = v.Unit
			continue
		}
		m[key] = fmt.Sprintf("%.4g %s", v.Value, v.Unit)
	}
	return m
}

func TestRecordedMachine(t *testing.T) {
	linuxOnly(t)
	stop := begin(t)
	m := newMeter(t, "testdata/first", CPU, Load, Memory, Space, Disk, Network)
	m.sample(noon)
	first := lines(stop())
	for name := range first {
		if strings.HasPrefix(name, "disk") || strings.HasPrefix(name, "network") || strings.HasPrefix(name, "cpu_mode") || strings.HasPrefix(name, "cpu_busy") {
			t.Errorf("the first sample has the rate %s", name)
		}
	}
	stop = begin(t)
	m.cfg.Proc = "testdata/second"
	m.sample(noon.Add(10 * time.Second))
	want := map[string]string{
		"cpu_count": "2 count", "cpu_busy": "0.4565 ratio",
		"cpu_mode{user}": "0.3261 ratio", "cpu_mode{nice}": "0 ratio", "cpu_mode{system}": "0.1087 ratio", "cpu_mode{idle}": "0.5435 ratio",
		"cpu_mode{iowait}": "0 ratio", "cpu_mode{irq}": "0.01087 ratio", "cpu_mode{softirq}": "0.01087 ratio", "cpu_mode{steal}": "0 ratio",
		"load_1m": "1.5 count", "load_5m": "0.75 count", "load_15m": "0.25 count", "tasks_running": "1 count", "tasks": "400 count",
		"memory_total": "1.638e+10 bytes", "memory_used": "6.144e+09 bytes", "memory_available": "1.024e+10 bytes",
		"swap_total": "4.096e+09 bytes", "swap_used": "5.12e+08 bytes",
		"space_total{/}": "bytes", "space_used{/}": "bytes", "space_available{/}": "bytes",
		"space_total{/srv/game data}": "bytes", "space_used{/srv/game data}": "bytes", "space_available{/srv/game data}": "bytes",
		"disk_read{sda}": "1.049e+06 bytes/s", "disk_written{sda}": "5120 bytes/s", "disk_reads{sda}": "10 ops/s", "disk_writes{sda}": "5 ops/s",
		"disk_busy{sda}":        "0.5 ratio",
		"disk_written{nvme0n1}": "8192 bytes/s", "disk_writes{nvme0n1}": "2 ops/s", "disk_busy{nvme0n1}": "1 ratio", // what was read wrapped around
		"network_received{eth0}": "1e+04 bytes/s", "network_packets_received{eth0}": "10 packets/s",
		"network_errors_received{eth0}": "0 packets/s", "network_drops_received{eth0}": "2 packets/s",
		"network_sent{eth0}": "100 bytes/s", "network_packets_sent{eth0}": "1 packets/s",
		"network_errors_sent{eth0}": "0.5 packets/s", "network_drops_sent{eth0}": "0 packets/s",
		"network_packets_received{wlan0}": "1 packets/s", "network_errors_received{wlan0}": "0 packets/s", "network_drops_received{wlan0}": "0 packets/s",
		"network_sent{wlan0}": "10 bytes/s", "network_packets_sent{wlan0}": "0.1 packets/s",
		"network_errors_sent{wlan0}": "0 packets/s", "network_drops_sent{wlan0}": "0 packets/s",
		"hostmetrics_passed_over": "2 count", // a line of an interface, a mount that is gone
	}
	for _, name := range []string{"received", "packets_received", "errors_received", "drops_received", "sent", "packets_sent", "errors_sent", "drops_sent"} {
		unit := "packets/s"
		if name == "received" || name == "sent" {
			unit = "bytes/s"
		}
		want["network_"+name+"{lo}"] = "0 " + unit
	}
	if diff := cmp.Diff(want, lines(stop())); diff != "" {
		t.Error(diff)
	}
	if s := m.Stats(); s.Samples != 2 || s.Failures != 0 || s.PassedOver != 3 {
		t.Errorf("%+v", s)
	}
}

func TestCountersThatResetGiveNoValue(t *testing.T) {
	var r rates
	at := noon
	step := func(counts ...uint64) (got []float64) {
		r.begin(at)
		defer r.end()
		at = at.Add(2 * time.Second)
		for i, c := range counts {
			if v, ok := r.perSecond(fmt.Sprint(i), c, 1); ok {
				got = append(got, v)
			}
		}
		return got
	}
	for i, s := range []struct {
		counts []uint64
		want   []float64
	}{
		{[]uint64{100, math.MaxUint64}, nil},
		{[]uint64{200, math.MaxUint64}, []float64{50, 0}},
		{[]uint64{0, 3}, nil}, // the first was reset, the second wrapped
		{[]uint64{10, 5}, []float64{5, 1}},
		{[]uint64{10}, []float64{0}}, // a device is away
		{[]uint64{10, 1 << 60}, []float64{0}},
	} {
		if got := step(s.counts...); !slices.Equal(got, s.want) {
			t.Errorf("step %d: %v, want %v", i, got, s.want)
		}
	}
}

func TestDevicesAreBounded(t *testing.T) {
	linuxOnly(t)
	stop := begin(t)
	dir := t.TempDir()
	m := newMeter(t, dir, Network)
	for round := range 40 {
		var b strings.Builder
		b.WriteString("heading\nheading\n")
		for i := range 70 {
			fmt.Fprintf(&b, "veth%d_%d: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n", round/2, i)
		}
		write(t, dir, "1/net/dev", b.String())
		m.sample(noon.Add(time.Duration(round) * time.Second))
	}
	if n := len(m.props); n != maxNames {
		t.Errorf("%d sets of properties", n)
	}
	devices := map[string]bool{}
	for _, v := range stop() {
		for _, p := range v.Properties.Props {
			devices[p.Value] = true
		}
	}
	if len(devices) != maxNames {
		t.Errorf("%d devices", len(devices))
	}
	if s := m.Stats(); s.PassedOver < 40*6 {
		t.Errorf("%+v", s)
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	name = filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFailuresAreReportedOnce(t *testing.T) {
	linuxOnly(t)
	dir := t.TempDir()
	m := newMeter(t, dir, CPU, Memory)
	var log strings.Builder
	m.log = slog.New(slog.NewTextHandler(&log, nil))
	write(t, dir, "stat", "cpu  1 2 three 4\n")
	for i := range 3 {
		m.sample(noon.Add(time.Duration(i) * time.Second))
	}
	if n := strings.Count(log.String(), "cannot measure"); n != 2 || !strings.Contains(log.String(), "not as expected") {
		t.Errorf("%d reports:\n%s", n, log.String())
	}
	write(t, dir, "stat", "cpu  1 2 3 4 5 6 7 8\n")
	m.sample(noon.Add(time.Minute))
	if !strings.Contains(log.String(), "measured again") || m.Stats().Failures != 7 {
		t.Errorf("%+v\n%s", m.Stats(), log.String())
	}
}

// TestThisMachine runs on what is here, until everything has been measured twice.
func TestThisMachine(t *testing.T) {
	stop := begin(t)
	cfg := DefaultConfig()
	cfg.Period = 50 * time.Millisecond
	m, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	for m.Stats().Samples < 4 && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond) // polls
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	got := lines(stop())
	want := []string{"process_goroutines", "process_heap", "process_memory", "cpu_count"}
	if runtime.GOOS == "linux" {
		want = append(want, "memory_total", "load_1m", "tasks", "cpu_busy", "cpu_mode{idle}", "network_received{lo}")
	}
	for _, name := range want {
		if got[name] == "" {
			t.Errorf("no %s in %v", name, slices.Sorted(maps.Keys(got)))
		}
	}
}

func TestConfigMistakesAreReportedTogether(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	err := Config{Groups: []Group{"gpu"}}.Validate()
	if err == nil || !strings.Contains(err.Error(), "period") || !strings.Contains(err.Error(), `no group "gpu"`) {
		t.Error(err)
	}
	if err := (Config{Period: time.Second}).Validate(); err == nil || !strings.Contains(err.Error(), "no groups") {
		t.Error(err)
	}
	if !supported {
		c := DefaultConfig()
		c.Groups = []Group{CPU}
		if err := c.Validate(); !errors.Is(err, errors.ErrUnsupported) {
			t.Error(err)
		}
	}
}

// FuzzParse feeds every reader: none may panic, and what they return holds what measures rely on.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"stat", "loadavg", "meminfo", "diskstats", "1/mounts", "1/net/dev"} {
		text, err := os.ReadFile(filepath.Join("testdata/first", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("a\nb\n:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\nx: -1\n\xff: 99999999999999999999999\n")
	f.Add("NaN Inf -1 1/2\n")
	f.Add(`/dev/\777 /\000 ext4 rw` + "\n" + `\ \0 ext4 rw` + "\n")
	f.Add("MemTotal: 18446744073709551615 kB\n")
	f.Fuzz(func(t *testing.T, text string) {
		parseCPU(text)
		if l, ok := parseLoad(text); ok && !(l.averages[0] >= 0 && l.averages[0] < math.Inf(1)) {
			t.Errorf("%+v", l)
		}
		if m, ok := parseMemory(text); ok && (m.available > m.total || m.swapFree > m.swapTotal || m.total > math.MaxInt64) {
			t.Errorf("%+v", m)
		}
		for d, ok := range parseDisks(text) {
			if isDisk(d.name) && (!ok || strings.Contains(d.name, "/")) {
				t.Errorf("%+v", d)
			}
		}
		for c, ok := range parseNetwork(text) {
			if ok && c.name == "" && !strings.Contains(text, " :") {
				t.Errorf("%+v", c)
			}
		}
		mounts, _ := parseMounts(text)
		for _, m := range mounts {
			if len(mounts) > maxDevices || !strings.HasPrefix(m.path, "/") || strings.Contains(m.path, "\x00") {
				t.Errorf("%+v", m)
			}
		}
	})
}
