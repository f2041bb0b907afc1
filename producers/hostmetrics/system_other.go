//go:build !linux

package hostmetrics

import "errors"

const supported = false

// roomOf is not there.
func roomOf(string) (bytesOf, error) { return bytesOf{}, errors.ErrUnsupported }
