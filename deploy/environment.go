package deploy

import (
	"flag"
	"slices"
)

// Environment returns the names of the variables that serve reads, sorted: a file that sets another one is mistaken.
func Environment() []string {
	var names []string
	cfg := DefaultConfig()
	bindConfig(flag.NewFlagSet("serve", flag.ContinueOnError), &cfg, func(name string) string {
		names = append(names, name)
		return ""
	})
	slices.Sort(names)
	return slices.Compact(names)
}
