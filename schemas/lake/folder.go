package lake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/semaphore"
)

// tempFolder holds files that are being written. Keys cannot begin with a dot, so it never collides with an object
// and listings skip it.
const tempFolder = ".tmp"

// maxSyncedFolders bounds the set of folders known to be durable. Beyond it the set starts anew, which costs a few
// fsyncs, not correctness.
const maxSyncedFolders = 8192

// Folder is a bucket in a folder of a local file system: object key = path below the root.
//
// Put writes a temporary file below the root, fsyncs it, renames it to its place and fsyncs the folder that holds the
// new name; a folder is used only after the folder above it was fsynced since this process first saw it (whoever made it,
// and even if it was there already: a process that was killed may have made it without reaching its fsync).
//
// What is assumed of the file system: fsync of a file makes its bytes and length durable; rename within one file
// system is atomic, to readers and over a power loss; fsync of a folder makes the names durable that were
// in it before; a disk that says it has flushed has flushed. ext4, xfs, btrfs, zfs and APFS behave so; network file
// systems and FUSE mounts often do not. Nothing is assumed about the order of what was not fsynced, nor that the temporary name is gone
// after a crash: such leftovers are swept by age.
type Folder struct {
	root string
	fs   FS
	temp atomic.Uint64
	name string // of this process's temporary files

	reading *semaphore.Weighted // files that are read through
	sound   soundFiles

	mu     sync.Mutex
	synced map[string]struct{} // folders whose own name is durable
}

// NewFolder opens the bucket at root, making the folder when it is not there.
func NewFolder(root string, fsys FS) (*Folder, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("folder bucket %s: %w", root, err)
	}
	f := &Folder{root: abs, fs: fsys, name: uuid.NewString(), reading: semaphore.NewWeighted(checksAtOnce), synced: map[string]struct{}{}}
	if err := f.makeRoot(); err != nil {
		return nil, fmt.Errorf("folder bucket %s: %w", abs, err)
	}
	return f, nil
}

// makeRoot makes the root and what is missing above it durable. Folders that exist above the root are the
// installation's and are taken as they are.
func (f *Folder) makeRoot() error {
	var missing []string
	for dir := f.root; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			return fmt.Errorf("%s is not a folder", dir)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		missing = append(missing, dir)
	}
	for _, dir := range slices.Backward(missing) {
		if err := f.fs.Mkdir(dir); err != nil {
			return err
		}
		if err := f.fs.SyncDir(filepath.Dir(dir)); err != nil {
			return err
		}
	}
	if err := f.fs.Mkdir(filepath.Join(f.root, tempFolder)); err != nil {
		return err
	}
	return f.fs.SyncDir(f.root)
}

// Root is the bucket's folder.
func (f *Folder) Root() string { return f.root }

// path is where the object of that key is, or would be.
func (f *Folder) path(key string) string { return filepath.Join(f.root, filepath.FromSlash(key)) }

// Put writes the object durably. See Folder.
func (f *Folder) Put(ctx context.Context, key string, data []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	path := f.path(key)
	dir := filepath.Dir(path)
	temp := filepath.Join(f.root, tempFolder, f.name+"-"+strconv.FormatUint(f.temp.Add(1), 10))
	if err := f.writeTemp(temp, data); err != nil {
		return fmt.Errorf("write temporary file: %w", err)
	}
	if err := f.makeFolder(dir); err != nil {
		return errors.Join(fmt.Errorf("make folder %s: %w", dir, err), f.fs.Remove(temp))
	}
	if err := f.fs.Rename(temp, path); err != nil {
		return errors.Join(err, f.fs.Remove(temp))
	}
	if err := f.fs.SyncDir(dir); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}

// writeTemp leaves a complete, fsynced file, or none.
func (f *Folder) writeTemp(temp string, data []byte) error {
	file, err := f.fs.Create(temp)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, f.fs.Remove(temp))
	}
	return nil
}

// makeFolder returns when dir exists and its name, and those of all folders between it and the root, are durable.
// Two writers that need the same new folder may both fsync; neither returns on the strength of the other's unfinished work.
func (f *Folder) makeFolder(dir string) error {
	if dir == f.root || f.isSynced(dir) {
		return nil
	}
	above := filepath.Dir(dir)
	if err := f.makeFolder(above); err != nil {
		return err
	}
	if err := f.fs.Mkdir(dir); err != nil {
		return err
	}
	if err := f.fs.SyncDir(above); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.synced) >= maxSyncedFolders {
		clear(f.synced)
	}
	f.synced[dir] = struct{}{}
	return nil
}

func (f *Folder) isSynced(dir string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.synced[dir]
	return ok
}

// Read reads a range of an object.
func (f *Folder) Read(ctx context.Context, key string, off, n int64) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	file, err := os.Open(f.path(key))
	if err != nil {
		return nil, notFound(err)
	}
	defer file.Close() // opened for reading: nothing to lose
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, ErrNotFound
	}
	if n, err = clipRange(info.Size(), off, n); err != nil {
		return nil, err
	}
	data := make([]byte, n)
	if n == 0 {
		return data, nil
	}
	if _, err := file.ReadAt(data, off); err != nil {
		return nil, err
	}
	return data, nil
}

// clipRange turns a wanted range into a length, and refuses one that the object does not have.
func clipRange(size, off, n int64) (int64, error) {
	if n < 0 {
		n = size - off
	}
	if off < 0 || n < 0 || off > size || n > size-off {
		return 0, fmt.Errorf("range of %d bytes at %d is outside the object's %d bytes: %w", n, off, size, io.ErrUnexpectedEOF)
	}
	return n, nil
}

// Stat describes an object.
func (f *Folder) Stat(ctx context.Context, key string) (Object, error) {
	if err := ctx.Err(); err != nil {
		return Object{}, err
	}
	info, err := os.Stat(f.path(key))
	if err != nil {
		return Object{}, notFound(err)
	}
	if !info.Mode().IsRegular() {
		return Object{}, ErrNotFound
	}
	return Object{Key: key, Size: info.Size(), ModTime: info.ModTime()}, nil
}

// Delete removes an object. The removal itself is not made durable: an object that comes back after a power loss is
// collected again.
func (f *Folder) Delete(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := f.fs.Remove(f.path(key)); err != nil && !errors.Is(notFound(err), ErrNotFound) {
		return err
	}
	return nil
}

// List walks the folders that can hold the prefix.
func (f *Folder) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		base := ""
		if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
			base = prefix[:i+1]
		}
		if err := f.walk(ctx, base, prefix, yield); err != nil && !errors.Is(err, errStop) {
			yield(Object{}, err)
		}
	}
}

// errStop ends a walk whose reader has gone.
var errStop = errors.New("stop")

// walk yields the objects below the folder of key prefix base ("" or ending in a slash), in order of their keys.
func (f *Folder) walk(ctx context.Context, base, prefix string, yield func(Object, error) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := os.ReadDir(f.path(base))
	if errors.Is(notFound(err), ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	// Keys sort with their slashes, so a folder sorts as its name and a slash: "a.b" comes before "a/c".
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(sortName(a), sortName(b)) })
	for _, e := range entries {
		key := base + e.Name()
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if e.IsDir() && (strings.HasPrefix(key, prefix) || strings.HasPrefix(prefix, key)) {
			if err := f.walk(ctx, key+"/", prefix, yield); err != nil {
				return err
			}
			continue
		}
		if !e.Type().IsRegular() || !strings.HasPrefix(key, prefix) {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted since the folder was read
		}
		if err != nil {
			return err
		}
		if !yield(Object{Key: key, Size: info.Size(), ModTime: info.ModTime()}, nil) {
			return errStop
		}
	}
	return nil
}

func sortName(e fs.DirEntry) string {
	if e.IsDir() {
		return e.Name() + "/"
	}
	return e.Name()
}

// SweepTemp removes temporary files last written before that time: what killed processes left.
func (f *Folder) SweepTemp(ctx context.Context, before time.Time) (removed int, err error) {
	dir := filepath.Join(f.root, tempFolder)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return removed, err
		}
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || !info.ModTime().Before(before) {
			continue
		}
		if err := f.fs.Remove(filepath.Join(dir, e.Name())); err == nil {
			removed++
		}
	}
	return removed, nil
}

// Now is the time of the file system's stamps.
func (f *Folder) Now() time.Time { return time.Now() }

// Close has nothing to close.
func (f *Folder) Close() error { return nil }

// notFound turns the file system's word for a missing file, or for a file where a folder was expected, into ErrNotFound.
func notFound(err error) error {
	if errors.Is(err, fs.ErrNotExist) || isNotDir(err) {
		return fmt.Errorf("%w (%w)", ErrNotFound, err)
	}
	return err
}
