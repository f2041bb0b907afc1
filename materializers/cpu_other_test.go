//go:build !unix

package materializers_test

import "time"

var begun = time.Now()

// cpuTime returns elapsed time: the best there is here.
func cpuTime() time.Duration { return time.Since(begun) }
