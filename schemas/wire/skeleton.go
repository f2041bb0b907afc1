package wire

import (
	"github.com/micromegas-go/micromegas/schemas/telemetry"
)

func LogTypes() (deps, objs []telemetry.Type)     { return nil, nil }
func MetricsTypes() (deps, objs []telemetry.Type) { return nil, nil }
func CPUTypes() (deps, objs []telemetry.Type)     { return nil, nil }
func ImageTypes() (deps, objs []telemetry.Type)   { return nil, nil }
func NetTypes() (deps, objs []telemetry.Type)     { return nil, nil }
