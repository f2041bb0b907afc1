//go:build !micromegas_max_debug && !micromegas_max_info

package sdk

// StaticMaxLevel is the most verbose level that this build can record.
const StaticMaxLevel = Trace
