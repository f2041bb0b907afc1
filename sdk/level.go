package sdk

import (
	"fmt"
	"strings"
)

// Level is the severity of a log site, the most severe first. The numbers are those of the wire.
type Level uint8

// The levels.
const (
	Fatal Level = 1 + iota
	Error
	Warn
	Info
	Debug
	Trace

	// Off is below all levels: as a limit it lets nothing pass.
	Off Level = 0
)

var levelNames = [...]string{"off", "fatal", "error", "warn", "info", "debug", "trace"}

// String returns the name of the level.
func (l Level) String() string {
	if int(l) < len(levelNames) {
		return levelNames[l]
	}
	return fmt.Sprintf("level(%d)", uint8(l))
}

// ParseLevel reads the name of a level, in upper or lower case; "warning" is "warn".
func ParseLevel(s string) (Level, error) {
	name := strings.ToLower(strings.TrimSpace(s))
	if name == "warning" {
		name = "warn"
	}
	for l, n := range levelNames {
		if n == name {
			return Level(l), nil
		}
	}
	return Off, fmt.Errorf("level %q is none of %s", s, strings.Join(levelNames[:], ", "))
}

// DebugEnabled and TraceEnabled are constants, so that the compiler removes what only serves a level that this build leaves out:
//
//	if sdk.TraceEnabled {
//		packet.Log(sdk.String(hex.Dump(p)))
//	}
//
// The build tag micromegas_max_debug leaves out Trace, micromegas_max_info also Debug.
const (
	DebugEnabled = StaticMaxLevel >= Debug
	TraceEnabled = StaticMaxLevel >= Trace
)

// Verbosity says how much detail a measure or a span is: those above Config.Verbosity are not recorded. The numbers are those of the wire.
type Verbosity uint8

// The verbosities.
const (
	MinVerbosity Verbosity = 1 + iota // always wanted
	MedVerbosity                      // what sites have by default
	MaxVerbosity                      // details
)
