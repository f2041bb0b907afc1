package lake

import (
	"context"
	"errors"
	"fmt"
	"strconv"
)

// LayoutVersion is the version of what LAYOUT.md says. It grows when a release writes what an older one would misread.
const LayoutVersion = 1

// LayoutKey is the object that holds the layout's version as a decimal number, so that a bucket without its catalog says it too.
const LayoutKey = "layout-version"

// SettingLayout is the catalog's setting of the same.
const SettingLayout = "layout_version"

// ErrNewerLayout says that a newer release wrote to the lake.
var ErrNewerLayout = errors.New("the lake has a newer layout than this release knows")

// CheckLayout refuses a bucket or a catalog whose layout is newer than LayoutVersion, and marks those that say nothing yet.
// It must come before anything else is written.
func (l *Lake) CheckLayout(ctx context.Context, s Settings) error {
	inCatalog, _, err := s.Setting(ctx, SettingLayout)
	if err != nil {
		return fmt.Errorf("check layout: %w", err)
	}
	inBucket, err := l.Get(ctx, LayoutKey)
	unmarked := errors.Is(err, ErrNotFound)
	if err != nil && !unmarked {
		return fmt.Errorf("check layout: %w", err)
	}
	if err := checkLayout("the catalog", inCatalog); err != nil {
		return err
	}
	if err := checkLayout("the bucket", string(inBucket)); err != nil {
		return err
	}
	version := strconv.Itoa(LayoutVersion)
	if inCatalog == "" {
		if _, err := s.PutSettingIfAbsent(ctx, SettingLayout, version); err != nil {
			return fmt.Errorf("mark layout: %w", err)
		}
	}
	if unmarked {
		if err := l.Put(ctx, LayoutKey, []byte(version)); err != nil {
			return fmt.Errorf("mark layout: %w", err)
		}
	}
	return nil
}

func checkLayout(where, text string) error {
	if text == "" {
		return nil
	}
	version, err := strconv.Atoi(text)
	if err != nil || version < 1 {
		return fmt.Errorf("%s says that the layout's version is %.20q, which is no number", where, text)
	}
	if version > LayoutVersion {
		return fmt.Errorf("%w: %s says %d, this release knows %d", ErrNewerLayout, where, version, LayoutVersion)
	}
	return nil
}
