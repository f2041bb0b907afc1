package parts

import "golang.org/x/sys/unix"

// hasXattrs says whether files in dir can have the extended attributes in which the server keeps what is not an object's bytes.
func hasXattrs(dir string) bool {
	return unix.Setxattr(dir, "user.micromegas", []byte("?"), 0) == nil
}
