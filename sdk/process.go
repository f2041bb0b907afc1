package sdk

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"os/user"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

// Names of the environment that the library reads, shared with the other clients of the protocol.
const (
	envParent     = "MICROMEGAS_TELEMETRY_PARENT_PROCESS" // id of the process that started this one; set for its children
	envProperties = "MICROMEGAS_PROCESS_PROPERTIES"       // k=v,k2=v2
	envSpans      = "MICROMEGAS_ENABLE_CPU_TRACING"       // true or false
	envLevel      = "MICROMEGAS_LOG_LEVEL"                // fatal, error, warn, info, debug, trace, off
	envFlush      = "MICROMEGAS_FLUSH_PERIOD"             // seconds: the greatest age of a block
)

// reserved begins names of properties that only a server sets.
const reserved = "micromegas."

// describe returns what is known of this process.
func describe(cfg *Config, c *clock) telemetry.Process {
	p := telemetry.Process{
		ID: telemetry.NewID(), Exe: cfg.Exe, Computer: "unknown", Username: "unknown", Distro: distro(), CPUBrand: cpuBrand(),
		TSCFrequency: 1e9, StartTime: c.start.UnixNano(), StartTicks: 0,
	}
	if p.Exe == "" {
		p.Exe = executable()
	}
	if name, err := os.Hostname(); err == nil {
		p.Computer = name
	}
	if u, err := user.Current(); err == nil {
		p.Username, p.Realname = u.Username, u.Name
	}
	if p.Realname == "" {
		p.Realname = p.Username
	}
	if id, err := telemetry.ParseID(os.Getenv(envParent)); err == nil {
		p.ParentID = id
	}
	props := map[string]string{
		"pid": strconv.Itoa(os.Getpid()), "logical_cpu_count": strconv.Itoa(runtime.NumCPU()), "gomaxprocs": strconv.Itoa(runtime.GOMAXPROCS(0)),
		"os": runtime.GOOS, "arch": runtime.GOARCH, "go_version": runtime.Version(), "sdk": "micromegas-go",
	}
	if b, ok := debug.ReadBuildInfo(); ok {
		addBuild(props, b)
	}
	maps.Copy(props, cfg.Properties)
	for k, v := range props {
		p.Properties = append(p.Properties, cleanProperty(telemetry.Property{Key: k, Value: v}))
	}
	p.Properties = telemetry.SortProperties(p.Properties)
	return p
}

// addBuild adds what the linker noted.
func addBuild(props map[string]string, b *debug.BuildInfo) {
	props["module"] = b.Main.Path
	if b.Main.Version != "" && b.Main.Version != "(devel)" {
		props["version"] = b.Main.Version
	}
	for _, s := range b.Settings {
		switch s.Key {
		case "vcs.revision":
			props["commit"] = s.Value
		case "vcs.time":
			props["commit_time"] = s.Value
		case "vcs.modified":
			props["modified"] = s.Value
		case "-tags":
			props["build_tags"] = s.Value
		}
	}
}

func executable() string {
	if exe, err := os.Executable(); err == nil {
		return exe
	}
	return os.Args[0]
}

// distro returns the name of the operating system.
func distro() string {
	for _, line := range linesOf("/etc/os-release") {
		if v, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			if name, err := strconv.Unquote(v); err == nil {
				return name
			}
			return v
		}
	}
	return runtime.GOOS
}

// cpuBrand returns the name of the processor.
func cpuBrand() string {
	for _, line := range linesOf("/proc/cpuinfo") {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}

// maxLines is how far linesOf reads.
const maxLines = 100

func linesOf(file string) (lines []string) {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	for s := bufio.NewScanner(f); len(lines) < maxLines && s.Scan(); {
		lines = append(lines, s.Text())
	}
	return lines
}

// parseProperties reads k=v,k2=v2.
func parseProperties(s string) (map[string]string, error) {
	props := map[string]string{}
	for pair := range strings.SplitSeq(s, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		k, v, ok := strings.Cut(pair, "=")
		if k = strings.TrimSpace(k); !ok || k == "" {
			return nil, fmt.Errorf("%q is not of the form key=value", pair)
		}
		props[k] = strings.TrimSpace(v)
	}
	return props, nil
}

// checkProperties reports keys that only a server may set.
func checkProperties(props map[string]string) error {
	var bad []string
	for k := range props {
		if strings.HasPrefix(k, reserved) {
			bad = append(bad, k)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	slices.Sort(bad)
	return fmt.Errorf("properties %s begin with %q, which only a server may set: name them differently", strings.Join(bad, ", "), reserved)
}
