//go:build !unix

package lake

func isNotDir(error) bool { return false }
