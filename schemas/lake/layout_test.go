package lake_test

import (
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/micromegas-go/micromegas/schemas/catalog/sqlite"
	"github.com/micromegas-go/micromegas/schemas/lake"
)

func TestNewerLayoutIsRefused(t *testing.T) {
	dir := t.TempDir()
	cat, err := sqlite.Open(t.Context(), filepath.Join(dir, "catalog.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer cat.Close()
	l, err := lake.Open(t.Context(), "mem://", lake.Options{CacheDir: filepath.Join(dir, "cache")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 2 { // marks it, then finds the mark
		if err := l.CheckLayout(t.Context(), cat); err != nil {
			t.Fatal(err)
		}
	}
	if mark, err := l.Get(t.Context(), lake.LayoutKey); err != nil || string(mark) != "1" {
		t.Errorf("the bucket is marked %q, %v", mark, err)
	}
	if mark, _, err := cat.Setting(t.Context(), lake.SettingLayout); err != nil || mark != "1" {
		t.Errorf("the catalog is marked %q, %v", mark, err)
	}
	for mark, newer := range map[string]bool{"2": true, "one": false, "-1": false} {
		if err := l.Put(t.Context(), lake.LayoutKey, []byte(mark)); err != nil {
			t.Fatal(err)
		}
		if err := l.CheckLayout(t.Context(), cat); err == nil || errors.Is(err, lake.ErrNewerLayout) != newer {
			t.Errorf("a bucket marked %q: %v", mark, err)
		}
	}
	if err := l.Delete(t.Context(), lake.LayoutKey); err != nil {
		t.Fatal(err)
	}
	newer, err := sqlite.Open(t.Context(), filepath.Join(dir, "newer.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer newer.Close()
	if _, err := newer.PutSettingIfAbsent(t.Context(), lake.SettingLayout, "7"); err != nil {
		t.Fatal(err)
	}
	if err := l.CheckLayout(t.Context(), newer); !errors.Is(err, lake.ErrNewerLayout) {
		t.Errorf("a newer catalog: %v", err)
	}
	if found, err := l.Exists(t.Context(), lake.LayoutKey); found || err != nil {
		t.Errorf("a bucket that is refused was written to: %v, %v", found, err)
	}
}
