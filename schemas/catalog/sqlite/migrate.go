package sqlite

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// migrations holds the steps from an empty file to today's tables, one file a version, named NNNN_what.sql. A file that
// was ever released does not change; the next change is the next file.
//
//go:embed migrations/*.sql
var migrations embed.FS

// migrate brings the tables to the newest version. Each step and its version number are one transaction, so an
// interrupted start goes on where it stopped.
func migrate(s *session) error {
	files, err := fs.Glob(migrations, "migrations/*.sql") // sorted by name
	if err != nil {
		return err
	}
	have, err := s.queryInt("PRAGMA user_version")
	if err != nil {
		return fmt.Errorf("read version of the catalog: %w", err)
	}
	if have > int64(len(files)) {
		return fmt.Errorf("the catalog has version %d, this program knows versions up to %d: start the newer program on it", have, len(files))
	}
	for i, name := range files {
		version, err := strconv.Atoi(strings.SplitN(path.Base(name), "_", 2)[0])
		if err != nil || version != i+1 {
			return fmt.Errorf("migration %s is not number %d", name, i+1)
		}
		if int64(version) <= have {
			continue
		}
		text, err := migrations.ReadFile(name)
		if err != nil {
			return err
		}
		if err := s.script(string(text), version); err != nil {
			return fmt.Errorf("migration %s: %w", name, err)
		}
	}
	return nil
}

// script runs the statements of a migration in one transaction.
func (s *session) script(text string, version int) (err error) {
	if _, err := s.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.rollback()
		}
	}()
	if err := s.execScript(text); err != nil {
		return err
	}
	if err := s.execScript(fmt.Sprintf("PRAGMA user_version = %d", version)); err != nil {
		return err
	}
	_, err = s.exec("COMMIT")
	return err
}
