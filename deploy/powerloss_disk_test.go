package deploy_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// disk models what a file system keeps of one folder when the power goes, from a record of system calls. Every file and
// folder is its list of changes; a change is durable once a sync that began after the change had ended has itself ended.
// What is assumed of the file system is written at TestPowerLoss.
type disk struct {
	path string // of the folder that is modelled
	root *inode
	fds  map[int]*openFile

	kind     string                  // folder in which fsync of a file makes durable the name under which it was made; empty: nowhere
	mapped   map[string]bool         // files that were mapped shared and writable
	writes   map[string]int          // by the last part of a file's path, over all files that had it
	answered func(port int, ok bool) // an HTTP answer is about to leave
	ended    func()                  // a call has ended; nil: not of interest
	printed  func(line string)       // a line is about to leave on standard output; nil: not of interest
}

// inode is a file or a folder.
type inode struct {
	name    string // the last one it had, for messages
	changes []*change
	entries map[string]*inode // folder: as the process sees it
	size    int64             // file: as the process sees it
	created *change           // file: the change that an fsync of the file makes durable too; nil: none
}

// change is one change to an inode.
type change struct {
	done, durable bool

	// of a file: data at off, or (data nil) a new size
	off  int64
	data []byte
	size int64

	// of a folder: a name goes, a name comes; a rename inside a folder is both at once
	gone, name string
	node       *inode
	// arrival is what a rename did to the other folder: the name here is not gone unless it is there.
	arrival *change
}

// openFile is what descriptors refer to. A file outside of the model has no inode.
type openFile struct {
	node     *inode
	offset   int64
	append   bool
	syncEach bool // O_SYNC, O_DSYNC
	port     int  // a socket: the client's
}

func newDisk(path string) *disk {
	return &disk{path: path, root: &inode{name: path, entries: map[string]*inode{}}, mapped: map[string]bool{}, writes: map[string]int{}}
}

// replay follows one life of a process, which began without open files.
func (d *disk) replay(trace string) error {
	d.fds = map[int]*openFile{}
	return readTrace(trace, d.begin, func(c *call) error {
		err := d.end(c)
		if err == nil && d.ended != nil {
			d.ended()
		}
		return err
	})
}

// walk returns the inode of a path, or nil; inside says whether the path is in the model.
func (d *disk) walk(dirFD int, path string) (node *inode, inside bool) {
	parent, name := d.parent(dirFD, path)
	if parent == nil {
		return nil, false
	}
	if name == "" {
		return parent, true
	}
	return parent.entries[name], true
}

// parent returns the folder that holds a path and the last name of the path, which is empty for the root; nil when it is
// outside of the model.
func (d *disk) parent(dirFD int, path string) (*inode, string) {
	folder := d.root
	rest, inside := "", false
	if filepath.IsAbs(path) {
		path = filepath.Clean(path)
		if path == d.path {
			return d.root, ""
		}
		rest, inside = strings.CutPrefix(path, d.path+"/")
	} else if f := d.fds[dirFD]; f != nil && f.node != nil {
		folder, rest, inside = f.node, filepath.Clean(path), true
	}
	if !inside {
		return nil, ""
	}
	parts := strings.Split(rest, "/")
	for _, part := range parts[:len(parts)-1] {
		if folder = folder.entries[part]; folder == nil {
			return nil, ""
		}
	}
	return folder, parts[len(parts)-1]
}

// begin notes what a call may do from now on.
func (d *disk) begin(c *call) error {
	switch c.name {
	case "close":
		delete(d.fds, c.fd(0))
	case "write", "pwrite64", "writev", "pwritev", "pwritev2":
		return d.beginWrite(c)
	case "fsync", "fdatasync":
		if c.file = d.fds[c.fd(0)]; c.file == nil || c.file.node == nil {
			return nil
		}
		for _, ch := range c.file.node.changes {
			if ch.done && !ch.durable {
				c.covers = append(c.covers, ch)
			}
		}
	}
	return nil
}

func (d *disk) beginWrite(c *call) error {
	c.file = d.fds[c.fd(0)]
	if c.fd(0) == 1 && c.file == nil && d.printed != nil {
		text, err := bytesOf(c.arg(1))
		d.printed(strings.TrimSuffix(string(text), "\n"))
		return err
	}
	if c.file == nil || (c.file.node == nil && c.file.port == 0) {
		return nil
	}
	data, err := bytesOf(c.arg(1))
	if err != nil {
		return err
	}
	f := c.file
	if f.port != 0 {
		if rest, ok := strings.CutPrefix(string(data), "HTTP/1.1 "); ok {
			d.answered(f.port, strings.HasPrefix(rest, "200"))
		}
		return nil
	}
	off := f.offset
	switch {
	case c.name == "pwrite64" || c.name == "pwritev" || c.name == "pwritev2":
		if off, err = c.integer(3); err != nil {
			return err
		}
	case f.append:
		off = f.node.size
	}
	c.change = &change{off: off, data: data}
	f.node.changes = append(f.node.changes, c.change)
	return nil
}

// end does what a call did.
func (d *disk) end(c *call) error {
	n, ok := c.number()
	if !ok {
		if c.change != nil {
			c.file.node.forget(c.change)
		}
		return nil
	}
	switch c.name {
	case "open":
		return d.endOpen(c, int(n), -1, 0)
	case "openat":
		return d.endOpen(c, int(n), c.fd(0), 1)
	case "accept", "accept4":
		d.fds[int(n)] = &openFile{port: c.peerPort()}
	case "dup", "dup2", "dup3":
		d.fds[int(n)] = d.fds[c.fd(0)]
	case "fcntl":
		if c.has(1, "F_DUPFD") {
			d.fds[int(n)] = d.fds[c.fd(0)]
		}
	case "write", "pwrite64", "writev", "pwritev", "pwritev2":
		d.endWrite(c, n)
	case "fsync", "fdatasync":
		if c.file != nil && c.file.node != nil {
			c.file.node.sync(c.covers)
		}
	case "lseek":
		if f := d.fds[c.fd(0)]; f != nil {
			f.offset = n
		}
	case "ftruncate":
		size, err := c.integer(1)
		if f := d.fds[c.fd(0)]; f != nil && f.node != nil {
			f.node.resize(size)
		}
		return err
	case "fallocate":
		return d.endAllocate(c)
	case "mmap":
		if f := d.fds[c.fd(4)]; f != nil && f.node != nil && c.has(3, "MAP_SHARED") && c.has(2, "PROT_WRITE") {
			d.mapped[f.node.name] = true
		}
	default:
		return d.endName(c)
	}
	return nil
}

func (d *disk) endOpen(c *call, fd, dirFD, at int) error {
	path, err := bytesOf(c.arg(at))
	if err != nil {
		return err
	}
	f := &openFile{append: c.has(at+1, "O_APPEND"), syncEach: c.has(at+1, "O_SYNC") || c.has(at+1, "O_DSYNC")}
	d.fds[fd] = f
	parent, name := d.parent(dirFD, string(path))
	switch {
	case parent == nil:
		return nil
	case name == "" || name == ".":
		f.node = parent
		return nil
	}
	if f.node = parent.entries[name]; f.node == nil {
		if !c.has(at+1, "O_CREAT") {
			return fmt.Errorf("open of %s, which the model does not know", path)
		}
		f.node = &inode{}
		created := parent.add(name, f.node)
		if d.kind != "" && strings.HasPrefix(string(path), d.kind) {
			f.node.created = created
		}
	} else if c.has(at+1, "O_TRUNC") && f.node.size > 0 {
		f.node.resize(0)
	}
	return nil
}

func (d *disk) endWrite(c *call, n int64) {
	if c.change == nil {
		return
	}
	f, ch := c.file, c.change
	ch.data, ch.done = ch.data[:n], true
	d.writes[f.node.name]++
	f.node.size = max(f.node.size, ch.off+n)
	if c.name == "write" || c.name == "writev" {
		f.offset = ch.off + n
	}
	if f.syncEach {
		f.node.sync([]*change{ch})
	}
}

func (d *disk) endAllocate(c *call) error {
	f := d.fds[c.fd(0)]
	if f == nil || f.node == nil {
		return nil
	}
	off, err := c.integer(2)
	if err != nil {
		return err
	}
	n, err := c.integer(3)
	if err != nil {
		return err
	}
	if c.arg(1) != "0" {
		return fmt.Errorf("fallocate %s is not modelled", c.arg(1))
	}
	if off+n > f.node.size {
		f.node.resize(off + n)
	}
	return nil
}

// endName does the calls that change names.
func (d *disk) endName(c *call) error {
	var paths []string
	fds := []int{-1, -1}
	for i, at := 0, 0; i < len(c.args); i++ {
		switch arg := c.args[i]; {
		case strings.HasPrefix(arg, `"`):
			path, err := bytesOf(arg)
			if err != nil {
				return err
			}
			paths = append(paths, string(path))
			at++
		case at < len(fds):
			fds[at] = c.fd(i)
		}
	}
	if len(paths) == 0 {
		return c.refuseUnknown(d)
	}
	parent, name := d.parent(fds[0], paths[0])
	switch c.name {
	case "mkdir", "mkdirat":
		if parent != nil && name != "" {
			parent.add(name, &inode{entries: map[string]*inode{}})
		}
	case "unlink", "unlinkat", "rmdir":
		if parent != nil {
			parent.remove(name)
		}
	case "rename", "renameat":
		target, to := d.parent(fds[1], paths[1])
		if parent == nil && target == nil {
			return nil
		}
		if parent == nil || target == nil {
			return fmt.Errorf("rename of %s to %s leaves the folder", paths[0], paths[1])
		}
		rename(parent, name, target, to)
	default:
		for _, path := range paths {
			if _, inside := d.walk(-1, path); inside {
				return c.refuse()
			}
		}
	}
	return nil
}

// refuseUnknown refuses calls whose effect on the folder is not modelled.
func (c *call) refuseUnknown(d *disk) error {
	switch c.name {
	case "close", "sync_file_range": // the latter promises nothing
		return nil
	case "sendfile", "copy_file_range", "splice":
		target := c.fd(0)
		if c.name != "sendfile" {
			target = c.fd(2)
		}
		if f := d.fds[target]; f == nil || f.node == nil {
			return nil
		}
	}
	return c.refuse()
}

func (c *call) refuse() error { return fmt.Errorf("%s is not modelled: %v", c.name, c.args) }

func (n *inode) forget(c *change) {
	if i := slices.Index(n.changes, c); i >= 0 {
		n.changes = slices.Delete(n.changes, i, i+1)
	}
}

func (n *inode) resize(size int64) {
	n.size = size
	n.changes = append(n.changes, &change{size: size, done: true})
}

func (n *inode) add(name string, child *inode) *change {
	c := &change{name: name, node: child, done: true}
	n.entries[name] = child
	n.changes = append(n.changes, c)
	child.name = name
	return c
}

func (n *inode) remove(name string) *change {
	c := &change{gone: name, done: true}
	delete(n.entries, name)
	n.changes = append(n.changes, c)
	return c
}

func rename(from *inode, name string, target *inode, to string) {
	child := from.entries[name]
	if from == target {
		delete(from.entries, name)
		from.add(to, child).gone = name
		return
	}
	arrival := target.add(to, child)
	from.remove(name).arrival = arrival
}

// sync makes changes durable, and with them, in disk.kind, the name under which a file was made.
func (n *inode) sync(changes []*change) {
	for _, c := range changes {
		c.durable = true
		if c.arrival != nil {
			c.arrival.durable = true
		}
	}
	if n.created != nil {
		n.created.durable = true
	}
}

// loss decides what a power loss takes. Without a random source it takes all that was not synced.
type loss struct {
	random *rand.Rand
	keep   float64 // part of the rest that had reached the disk
	chosen map[*change]bool
}

func (l *loss) kept(c *change) bool {
	if c.durable {
		return true
	}
	if l.random == nil {
		return false
	}
	kept, known := l.chosen[c]
	if !known {
		kept = l.random.Float64() < l.keep && (c.arrival == nil || l.kept(c.arrival))
		l.chosen[c] = kept
	}
	return kept
}

// rebuild writes what is left of the folder to path, which must not exist.
func (d *disk) rebuild(path string, l *loss) error { return d.root.rebuild(path, l) }

func (n *inode) rebuild(path string, l *loss) error {
	if n.entries == nil {
		return os.WriteFile(path, n.content(l), 0o600)
	}
	left := map[string]*inode{}
	for _, c := range n.changes {
		if !l.kept(c) {
			continue
		}
		if c.gone != "" {
			delete(left, c.gone)
		}
		if c.node != nil {
			left[c.name] = c.node
		}
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(left)) {
		errs = append(errs, left[name].rebuild(filepath.Join(path, name), l))
	}
	return errors.Join(errs...)
}

// sectorSize is what a disk writes whole or not at all.
const sectorSize = 512

// content is what is left of a file.
func (n *inode) content(l *loss) []byte {
	var b []byte
	for _, c := range n.changes {
		switch {
		case !l.kept(c):
		case c.data == nil && c.done:
			b = resize(b, c.size)
		case c.durable:
			b = writeAt(b, c.data, c.off)
		default:
			b = l.tear(b, c)
		}
	}
	return b
}

// tear writes an unsynced change: whole, or some of its sectors.
func (l *loss) tear(b []byte, c *change) []byte {
	if l.random.IntN(3) > 0 {
		return writeAt(b, c.data, c.off)
	}
	for off, data := c.off, c.data; len(data) > 0; {
		n := min(sectorSize-off%sectorSize, int64(len(data)))
		if l.random.IntN(2) == 0 {
			b = writeAt(b, data[:n], off)
		}
		off, data = off+n, data[n:]
	}
	return b
}

func writeAt(b, data []byte, off int64) []byte {
	if end := off + int64(len(data)); end > int64(len(b)) {
		b = resize(b, end)
	}
	copy(b[off:], data)
	return b
}

func resize(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}
