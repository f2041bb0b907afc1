package spool

import "github.com/micromegas-go/micromegas/sdk"

// Recover reads the journal of a dead process.
func Recover(path string) ([]sdk.Request, error) {
	rs, _, err := recoverRequests(path)
	return rs, err
}
