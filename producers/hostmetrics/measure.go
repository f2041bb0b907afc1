package hostmetrics

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"

	"github.com/micromegas-go/micromegas/sdk"
)

var (
	cpuBusy  = sdk.NewFloat("cpu_busy", "ratio")
	cpuMode  = sdk.NewFloat("cpu_mode", "ratio")
	cpuCount = sdk.NewInt("cpu_count", "count")

	loads        = [3]*sdk.FloatMeasure{sdk.NewFloat("load_1m", "count"), sdk.NewFloat("load_5m", "count"), sdk.NewFloat("load_15m", "count")}
	tasksRunning = sdk.NewInt("tasks_running", "count")
	tasks        = sdk.NewInt("tasks", "count")

	memoryTotal     = sdk.NewInt("memory_total", "bytes")
	memoryUsed      = sdk.NewInt("memory_used", "bytes")
	memoryAvailable = sdk.NewInt("memory_available", "bytes")
	swapTotal       = sdk.NewInt("swap_total", "bytes")
	swapUsed        = sdk.NewInt("swap_used", "bytes")

	spaceTotal     = sdk.NewInt("space_total", "bytes")
	spaceUsed      = sdk.NewInt("space_used", "bytes")
	spaceAvailable = sdk.NewInt("space_available", "bytes")

	diskRead    = sdk.NewFloat("disk_read", "bytes/s")
	diskWritten = sdk.NewFloat("disk_written", "bytes/s")
	diskReads   = sdk.NewFloat("disk_reads", "ops/s")
	diskWrites  = sdk.NewFloat("disk_writes", "ops/s")
	diskBusy    = sdk.NewFloat("disk_busy", "ratio")

	networkBytes   = [2]*sdk.FloatMeasure{sdk.NewFloat("network_received", "bytes/s"), sdk.NewFloat("network_sent", "bytes/s")}
	networkPackets = [2]*sdk.FloatMeasure{sdk.NewFloat("network_packets_received", "packets/s"), sdk.NewFloat("network_packets_sent", "packets/s")}
	networkErrors  = [2]*sdk.FloatMeasure{sdk.NewFloat("network_errors_received", "packets/s"), sdk.NewFloat("network_errors_sent", "packets/s")}
	networkDrops   = [2]*sdk.FloatMeasure{sdk.NewFloat("network_drops_received", "packets/s"), sdk.NewFloat("network_drops_sent", "packets/s")}

	goroutines    = sdk.NewInt("process_goroutines", "count")
	processHeap   = sdk.NewInt("process_heap", "bytes")
	processMemory = sdk.NewInt("process_memory", "bytes")

	passedOver = sdk.NewInt("hostmetrics_passed_over", "count")
)

// read returns a file of /proc.
func (m *Meter) read(name string) (string, error) {
	f, err := os.Open(filepath.Join(m.cfg.Proc, name))
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFileBytes))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return string(text), nil
}

// ofProcess returns the name of a file that shows a process's view of the machine: of this process, or, in the procfs of another
// machine, where this process may be none, of its first one.
func (m *Meter) ofProcess(name string) string {
	if m.cfg.Proc == defaultProc {
		return "self/" + name
	}
	return "1/" + name
}

// damaged is the error of a file that makes no sense.
func (m *Meter) damaged(name string) error {
	return fmt.Errorf("%s is not as expected", filepath.Join(m.cfg.Proc, name))
}

func (m *Meter) cpu() error {
	text, err := m.read("stat")
	if err != nil {
		return err
	}
	c, ok := parseCPU(text)
	if !ok {
		return m.damaged("stat")
	}
	if c.cpus > 0 {
		cpuCount.Record(c.cpus)
	}
	var ticks [len(cpuModes)]float64
	sum, known := 0.0, false
	for i, mode := range cpuModes {
		d, ok := m.rates.delta("cpu "+mode, c.modes[i]) // iowait goes back at times: it counts as 0 then
		ticks[i], sum, known = float64(d), sum+float64(d), known || ok
	}
	if !known || sum == 0 {
		return nil
	}
	for i, mode := range cpuModes {
		cpuMode.With(m.propsOf(propsKey{group: "cpu", name: mode}, "mode", mode)).Record(ticks[i] / sum)
	}
	const idle, iowait = 3, 4
	cpuBusy.Record(max(0, 1-(ticks[idle]+ticks[iowait])/sum))
	return nil
}

func (m *Meter) load() error {
	text, err := m.read("loadavg")
	if err != nil {
		return err
	}
	l, ok := parseLoad(text)
	if !ok {
		return m.damaged("loadavg")
	}
	for i, measure := range loads {
		measure.Record(l.averages[i])
	}
	tasksRunning.Record(whole(l.running))
	tasks.Record(whole(l.tasks))
	return nil
}

func (m *Meter) memory() error {
	text, err := m.read("meminfo")
	if err != nil {
		return err
	}
	b, ok := parseMemory(text)
	if !ok {
		return m.damaged("meminfo")
	}
	memoryTotal.Record(whole(b.total))
	memoryAvailable.Record(whole(b.available))
	memoryUsed.Record(whole(b.total - b.available))
	swapTotal.Record(whole(b.swapTotal))
	swapUsed.Record(whole(b.swapTotal - b.swapFree))
	return nil
}

// whole is n as measures hold it.
func whole(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// bytesOf is the room of a file system.
type bytesOf struct{ total, free, available uint64 }

func (m *Meter) space() error {
	text, err := m.read(m.ofProcess("mounts"))
	if err != nil {
		return err
	}
	mounts, bad := parseMounts(text)
	m.passedOver.Add(bad)
	var errs []error
	for _, f := range mounts {
		b, err := roomOf(filepath.Join(m.cfg.Root, f.path))
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission): // unmounted since, or none of ours
			m.passedOver.Add(1)
			continue
		case err != nil:
			errs = append(errs, fmt.Errorf("space of %s: %w", f.path, err))
			continue
		case b.total == 0:
			continue
		}
		p := m.propsOf(propsKey{"space", f.path, f.device, f.fsType}, "mount", f.path, "device", f.device, "type", f.fsType)
		if p == nil {
			continue
		}
		spaceTotal.With(p).Record(whole(b.total))
		spaceAvailable.With(p).Record(whole(b.available))
		spaceUsed.With(p).Record(whole(b.total - min(b.total, b.free)))
	}
	return errors.Join(errs...)
}

func (m *Meter) disk() error {
	text, err := m.read("diskstats")
	if err != nil {
		return err
	}
	devices := 0
	for d, ok := range parseDisks(text) {
		if !ok {
			m.passedOver.Add(1)
			continue
		}
		if !isDisk(d.name) || m.isPartition(d.name) {
			continue
		}
		if devices++; devices > maxDevices {
			m.passedOver.Add(1)
			continue
		}
		p := m.propsOf(propsKey{group: "disk", name: d.name}, "device", d.name)
		if p == nil {
			continue
		}
		name := "disk " + d.name
		m.rate(diskRead, p, name+" read", d.readSectors, sectorBytes)
		m.rate(diskWritten, p, name+" written", d.written, sectorBytes)
		m.rate(diskReads, p, name+" reads", d.reads, 1)
		m.rate(diskWrites, p, name+" writes", d.writes, 1)
		if v, ok := m.rates.perSecond(name+" busy", d.busyMs, 1e-3); ok {
			diskBusy.With(p).Record(min(1, v))
		}
	}
	return nil
}

// isPartition reports whether a block device is a part of another: those have no folder of their own. Without sysfs none is known to be one.
func (m *Meter) isPartition(name string) bool {
	block := filepath.Join(m.cfg.Sys, "block")
	if _, err := os.Stat(block); err != nil {
		return false
	}
	_, err := os.Stat(filepath.Join(block, name))
	return err != nil
}

func (m *Meter) network() error {
	text, err := m.read(m.ofProcess("net/dev"))
	if err != nil {
		return err
	}
	interfaces := 0
	for c, ok := range parseNetwork(text) {
		if !ok {
			m.passedOver.Add(1)
			continue
		}
		if interfaces++; interfaces > maxDevices {
			m.passedOver.Add(1)
			continue
		}
		p := m.propsOf(propsKey{group: "network", name: c.name}, "interface", c.name)
		if p == nil {
			continue
		}
		for d, direction := range [2]string{" received ", " sent "} {
			name := "network " + c.name + direction
			m.rate(networkBytes[d], p, name+"bytes", c.bytes[d], 1)
			m.rate(networkPackets[d], p, name+"packets", c.packets[d], 1)
			m.rate(networkErrors[d], p, name+"errors", c.errors[d], 1)
			m.rate(networkDrops[d], p, name+"drops", c.drops[d], 1)
		}
	}
	return nil
}

func (m *Meter) rate(measure *sdk.FloatMeasure, p *sdk.Properties, name string, count uint64, unit float64) {
	if v, ok := m.rates.perSecond(name, count, unit); ok {
		measure.With(p).Record(v)
	}
}

func (m *Meter) process() {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	goroutines.Record(int64(runtime.NumGoroutine()))
	processHeap.Record(whole(mem.HeapAlloc))
	processMemory.Record(whole(mem.Sys))
	if !supported {
		cpuCount.Record(int64(runtime.NumCPU()))
	}
}
