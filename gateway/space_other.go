//go:build !(linux || darwin || freebsd)

package gateway

import "errors"

func statSpace(string) (Space, error) { return Space{}, errors.ErrUnsupported }
