package hostmetrics

import (
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
)

// numbers returns the decimal numbers of fields; false = one is none, or there are fewer than want.
func numbers(fields []string, want int) ([]uint64, bool) {
	if len(fields) < want {
		return nil, false
	}
	all := make([]uint64, want)
	for i := range all {
		n, err := strconv.ParseUint(fields[i], 10, 64)
		if err != nil {
			return nil, false
		}
		all[i] = n
	}
	return all, true
}

// cpuModes are the columns of /proc/stat, in ticks. Those behind them, of guests, are in user and nice already.
var cpuModes = [...]string{"user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"}

// cpuTimes is the first line of /proc/stat, and how many processors there are.
type cpuTimes struct {
	modes [len(cpuModes)]uint64
	cpus  int64
}

// parseCPU reads /proc/stat.
func parseCPU(text string) (c cpuTimes, ok bool) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || !strings.HasPrefix(fields[0], "cpu"):
		case fields[0] == "cpu":
			n, good := numbers(fields[1:], len(cpuModes))
			ok = good
			copy(c.modes[:], n)
		default:
			c.cpus++
		}
	}
	return c, ok
}

// loadAverages is /proc/loadavg.
type loadAverages struct {
	averages       [3]float64 // over 1, 5 and 15 minutes
	running, tasks uint64
}

func parseLoad(text string) (l loadAverages, ok bool) {
	fields := strings.Fields(text)
	if len(fields) < 4 {
		return l, false
	}
	for i := range l.averages {
		v, err := strconv.ParseFloat(fields[i], 64)
		if err != nil || v < 0 || math.IsInf(v, 0) || math.IsNaN(v) {
			return l, false
		}
		l.averages[i] = v
	}
	running, tasks, _ := strings.Cut(fields[3], "/")
	n, ok := numbers([]string{running, tasks}, 2)
	if !ok {
		return l, false
	}
	l.running, l.tasks = n[0], n[1]
	return l, true
}

// memoryBytes is what counts of /proc/meminfo.
type memoryBytes struct{ total, available, swapTotal, swapFree uint64 }

// parseMemory reads /proc/meminfo. Kernels that do not say what is available are those before 3.14: there it is what is free, and what
// holds files that can be read again.
func parseMemory(text string) (m memoryBytes, ok bool) {
	kib := map[string]uint64{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "MemTotal", "MemAvailable", "MemFree", "Buffers", "Cached", "SwapTotal", "SwapFree":
			n, good := numbers(strings.Fields(value), 1)
			if !good || n[0] > math.MaxInt64>>12 {
				return m, false
			}
			kib[name] = n[0]
		}
	}
	available, known := kib["MemAvailable"]
	if !known {
		available = kib["MemFree"] + kib["Buffers"] + kib["Cached"]
	}
	total := kib["MemTotal"]
	m = memoryBytes{
		total: total << 10, available: min(available, total) << 10,
		swapTotal: kib["SwapTotal"] << 10, swapFree: min(kib["SwapFree"], kib["SwapTotal"]) << 10,
	}
	return m, total > 0
}

// diskCounts is a line of /proc/diskstats.
type diskCounts struct {
	name                 string
	reads, writes        uint64
	readSectors, written uint64 // of 512 bytes, whatever the disk's are
	busyMs               uint64
}

const sectorBytes = 512

// parseDisks yields the lines of /proc/diskstats; false = one that makes no sense.
func parseDisks(text string) iter.Seq2[diskCounts, bool] {
	return func(yield func(diskCounts, bool) bool) {
		for line := range strings.Lines(text) {
			fields := strings.Fields(line)
			if len(fields) == 0 {
				continue
			}
			var d diskCounts
			n, ok := numbers(fields[min(3, len(fields)):], 10)
			if ok {
				d = diskCounts{name: fields[2], reads: n[0], readSectors: n[2], writes: n[4], written: n[6], busyMs: n[9]}
			}
			if !yield(d, ok) {
				return
			}
		}
	}
}

// isDisk reports whether a block device is one that something is stored on, by its name.
func isDisk(name string) bool {
	for _, not := range []string{"loop", "ram", "zram", "sr", "fd"} {
		if rest, ok := strings.CutPrefix(name, not); ok && strings.Trim(rest, "0123456789") == "" {
			return false
		}
	}
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}

// networkCounts is a line of /proc/net/dev, received before sent.
type networkCounts struct {
	name                          string
	bytes, packets, errors, drops [2]uint64
}

// parseNetwork yields the lines of /proc/net/dev behind its two of heading; false = one that makes no sense.
func parseNetwork(text string) iter.Seq2[networkCounts, bool] {
	return func(yield func(networkCounts, bool) bool) {
		at := 0
		for line := range strings.Lines(text) {
			if at++; at <= 2 || strings.TrimSpace(line) == "" {
				continue
			}
			var c networkCounts
			colon := strings.LastIndexByte(line, ':') // a name may have one: eth0:1
			n, ok := numbers(strings.Fields(line[colon+1:]), 16)
			if ok = ok && colon > 0; ok {
				c.name = strings.TrimSpace(line[:colon])
				for d := range 2 {
					c.bytes[d], c.packets[d], c.errors[d], c.drops[d] = n[8*d], n[8*d+1], n[8*d+2], n[8*d+3]
				}
			}
			if !yield(c, ok) {
				return
			}
		}
	}
}

// mount is a line of /proc/self/mounts.
type mount struct{ device, path, fsType string }

// storing are the file systems that store something on a disk of this machine. Those of the network are not among them: to ask for the space
// of one whose server is away blocks for as long as it is. Neither are squashfs and its like, which are full by nature.
var storing = []string{
	"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "bcachefs", "f2fs", "jfs", "reiserfs", "nilfs2", "vfat", "exfat", "ntfs3", "hfsplus", "ufs",
}

// parseMounts returns the file systems that store something, one a device: the one with the shortest path, as the others are parts of it
// that are mounted elsewhere. An overlay counts where it is the root, as in a container. bad is how many lines make no sense.
func parseMounts(text string) (mounts []mount, bad int64) {
	at := map[string]int{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) < 4 {
			bad++
			continue
		}
		m := mount{device: unescape(fields[0]), path: unescape(fields[1]), fsType: fields[2]}
		if !slices.Contains(storing, m.fsType) && (m.fsType != "overlay" || m.path != "/") {
			continue
		}
		if !strings.HasPrefix(m.path, "/") || strings.Contains(m.path, "\x00") {
			bad++
			continue
		}
		have, known := at[m.device]
		switch {
		case !known && len(mounts) >= maxDevices:
			bad++
		case !known:
			at[m.device] = len(mounts)
			mounts = append(mounts, m)
		case len(m.path) < len(mounts[have].path):
			mounts[have] = m
		}
	}
	return mounts, bad
}

// unescape replaces the octal escapes of blanks in /proc/self/mounts.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
