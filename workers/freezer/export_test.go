package freezer

// The steps at which a hook is called, in order.
const (
	StepPut       = stepPut
	StepCommit    = stepCommit
	StepCommitted = stepCommitted
)

// Step is a moment of a freeze.
type Step = step

// SetHook makes g be called at each step.
func (f *Freezer) SetHook(g func(Step) error) { f.hook = g }
