package parts

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// s3Attr is for a server in a group of its own that ends with this process.
func s3Attr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// hasXattrs says whether files in dir can have the extended attributes in which the server keeps what is not an object's bytes.
func hasXattrs(dir string) bool {
	return unix.Setxattr(dir, "user.micromegas", []byte("?"), 0) == nil
}
