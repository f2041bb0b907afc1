package dialect

import "slices"

// Own lets the package's own output pass the guard.
func Own(o Options) Options {
	o.internal = true
	return o
}

// Known says whether a name of the engine is on the list of allowed or on that of refused names, or is refused by its prefix.
func Known(name string) (allowed, refusedToo bool) {
	return allowedFunctions()[name] || engineTableFunctions[name] || valueTableFunctions[name] || name == "view_instance", refused()[name] || refusedPrefix(name)
}

// BothLists returns the names that are on both lists.
func BothLists() []string {
	var both []string
	for name := range allowedFunctions() {
		if refused()[name] || refusedPrefix(name) {
			both = append(both, name)
		}
	}
	slices.Sort(both)
	return both
}

// MacroFactors returns how often the engine's macros copy an argument.
func MacroFactors() map[string]int { return macroFactors() }

// Unsteady says whether a function must not be computed for owners: its results differ, or it reads the lake.
func Unsteady(name string) bool { return unsteady()[name] || serviceCalls()[name] }
