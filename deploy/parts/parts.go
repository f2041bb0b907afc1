// Package parts starts the real servers that tests and `bench --distributed` run against: PostgreSQL, an S3 server, NATS
// servers that form a cluster, and a proxy that breaks the network between them. Nothing that ships imports it.
//
// Every server listens on a loopback address with a free port, keeps its files below the folder that it is given, writes
// its output to a file there, and ends with Stop. It dies with this process where the system can arrange that.
//
// PostgreSQL is an installed one; the others are built once from their modules into the user's cache folder (see Binary).
package parts

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The programs that Binary knows.
const (
	NATSServer      = "nats-server"
	VersityGW       = "versitygw" // an S3 server over a folder
	ToxiproxyServer = "toxiproxy"
)

// mains are their main packages. nats-server is of the version that is embedded, so it comes from the main module; the others
// would drag what they need into it, so they are tools.
var mains = map[string]struct{ module, main string }{
	NATSServer:      {"go.mod", "github.com/nats-io/nats-server/v2"},
	VersityGW:       {"deploy/tools/go.mod", "github.com/versity/versitygw/cmd/versitygw"},
	ToxiproxyServer: {"deploy/tools/go.mod", "github.com/Shopify/toxiproxy/v2/cmd/server"},
}

// Binary builds a program, unless it was built before from the same versions, and returns its path.
func Binary(ctx context.Context, name string) (string, error) {
	m, ok := mains[name]
	if !ok {
		return "", fmt.Errorf("build %s: no such part", name)
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	path, err := cachePath(root, name, m.module)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	temp, err := os.CreateTemp(filepath.Dir(path), name+"-*")
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	_ = temp.Close() // nothing was written
	defer os.Remove(temp.Name())
	cmd := exec.CommandContext(ctx, "go", "build", "-modfile", m.module, "-o", temp.Name(), m.main)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	// Others may build the same at this moment: whoever is last replaces equal by equal.
	if err := errors.Join(os.Chmod(temp.Name(), 0o755), os.Rename(temp.Name(), path)); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	return path, nil
}

// moduleRoot is the folder of this repository's go.mod, seen from the working folder.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	file := strings.TrimSpace(string(out))
	if filepath.Base(file) != "go.mod" {
		return "", errors.New("find the module: the working folder is outside the repository, whose source says which versions to build")
	}
	return filepath.Dir(file), nil
}

// cachePath is where the program of these versions is kept.
func cachePath(root, name, module string) (string, error) {
	text, err := os.ReadFile(filepath.Join(root, module))
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "micromegas-parts")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return filepath.Join(dir, name+"-"+hex.EncodeToString(sum[:6])), nil
}
