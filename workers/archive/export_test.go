package archive

// The steps at which a hook is called, in order.
const (
	StepRead      = stepRead
	StepPut       = stepPut
	StepPutDone   = stepPutDone
	StepCommit    = stepCommit
	StepCommitted = stepCommitted
	StepTrim      = stepTrim
	StepTrimmed   = stepTrimmed
)

// Step is a moment of an archive commit.
type Step = step

// Steps are all of them.
var Steps = []Step{StepRead, StepPut, StepPutDone, StepCommit, StepCommitted, StepTrim, StepTrimmed}

// SetHook makes f be called at each step of all shards, before Run.
func (a *Archive) SetHook(f func(Step) error) { a.hook = f }
