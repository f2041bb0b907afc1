//go:build !linux

package parts

import "syscall"

// s3Attr is for a server in a group of its own.
func s3Attr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// hasXattrs is not asked elsewhere: the server keeps what is not an object's bytes in files of their own.
func hasXattrs(string) bool { return false }
