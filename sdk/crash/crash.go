// Package crash records what Go's runtime says when it ends a program: a panic that nobody recovers, a fatal error such as concurrent writes
// of a map or no more memory. The program cannot record that any more; the next one that watches the same folder does.
//
// Files: <process id>.crash in the folder, held by the process as long as it lives. Written by the runtime when the process crashes, read
// and removed by the next process that calls Watch.
package crash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/micromegas-go/micromegas/schemas/telemetry"
	"github.com/micromegas-go/micromegas/sdk"
	"github.com/micromegas-go/micromegas/sdk/lockfile"
)

const (
	suffix    = ".crash"
	maxReport = 512 << 10 // bytes of a report that are recorded: it has the stacks of all goroutines
	target    = "crash"
)

// Watch has the runtime write what it says at a crash into a file in dir, which is made if need be, and records what crashed processes have
// left there, each as a Fatal entry of target "crash" with the property crashed_process. It is called after sdk.Start, once.
//
// Where the system does not free the locks of dead processes, reports are written, and nobody reads them.
func Watch(dir string) error {
	id := sdk.ProcessID()
	if id == "" {
		return errors.New("crash: watch: package sdk is not started")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("crash: watch: %w", err)
	}
	f, err := lockfile.Open(filepath.Join(dir, id+suffix), true)
	if err != nil {
		return fmt.Errorf("crash: watch: %w", err)
	}
	// The runtime has a duplicate of the file, and with it the lock, until the process ends.
	if err := errors.Join(debug.SetCrashOutput(f, debug.CrashOptions{}), f.Close()); err != nil {
		return fmt.Errorf("crash: watch: %w", err)
	}
	if lockfile.Freed {
		err = report(dir, id)
	}
	if err != nil {
		return fmt.Errorf("crash: read reports: %w", err)
	}
	return nil
}

// report records and removes the reports of dead processes.
func report(dir, own string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range files {
		if id := strings.TrimSuffix(filepath.Base(path), suffix); id != own {
			errs = append(errs, reportFile(path, id))
		}
	}
	return errors.Join(errs...)
}

func reportFile(path, id string) error {
	f, err := lockfile.Open(path, false)
	if errors.Is(err, lockfile.ErrHeld) || errors.Is(err, os.ErrNotExist) {
		return nil // its process lives, or another one was faster
	}
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxReport))
	if err != nil {
		return err
	}
	if len(text) > 0 {
		sdk.LogProps(context.Background(), 0, target, sdk.Fatal, string(text), []telemetry.Property{{Key: "crashed_process", Value: id}})
	}
	return os.Remove(path)
}
