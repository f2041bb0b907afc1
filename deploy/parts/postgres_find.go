package parts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// ErrNotInstalled is the error of a start whose program is neither built here nor found on the system. It says what to install.
var ErrNotInstalled = errors.New("not installed")

// oldestPostgres is the first major version that the catalog is kept to.
const oldestPostgres = 14

// postgresFolders are where packages put the server's programs, beside the PATH.
var postgresFolders = []string{
	"/usr/lib/postgresql/*/bin", // Debian
	"/usr/pgsql-*/bin",          // Red Hat
	"/usr/libexec/postgresql*",  // Alpine
	"/opt/homebrew/opt/postgresql*/bin",
	"/usr/local/opt/postgresql*/bin",
}

// findPostgres returns the folder with the programs postgres and initdb: the one on the PATH, else the newest installed.
func findPostgres(ctx context.Context) (string, error) {
	if found, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(found); err == nil && usable(ctx, filepath.Dir(real)) {
			return filepath.Dir(real), nil
		}
	}
	var all []string
	for _, pattern := range postgresFolders {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return "", err
		}
		all = append(all, found...)
	}
	slices.SortFunc(all, func(a, b string) int { return cmp.Compare(versionIn(b), versionIn(a)) })
	for _, dir := range all {
		if usable(ctx, dir) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("PostgreSQL %d or newer is %w: install the package postgresql (Debian, Ubuntu), postgresql-server (Red Hat) or "+
		"postgresql@17 (Homebrew), or put the folder of its programs on the PATH", oldestPostgres, ErrNotInstalled)
}

var number = regexp.MustCompile(`\d+`)

// versionIn returns the first number in a text, 0 without one.
func versionIn(text string) int {
	n, err := strconv.Atoi(number.FindString(text))
	if err != nil {
		return 0
	}
	return n
}

func usable(ctx context.Context, dir string) bool {
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return false
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	return err == nil && versionIn(string(out)) >= oldestPostgres
}
