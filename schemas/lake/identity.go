package lake

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// IdentityKey is the object that says whose the bucket is: it holds the id of the one catalog that names the objects in it.
const IdentityKey = "catalog-id"

// Settings of the catalog.
const (
	// SettingID holds the catalog's id, which Bind makes once.
	SettingID    = "catalog_id"
	settingBound = "lake_bound" // the bucket has the id
)

// ErrForeign says that bucket and catalog do not belong together.
var ErrForeign = errors.New("the bucket does not belong to this catalog")

// Settings is the part of the catalog that binding needs.
type Settings interface {
	Setting(ctx context.Context, key string) (value string, found bool, err error)
	PutSettingIfAbsent(ctx context.Context, key, value string) (stands string, err error)
}

// Bind makes the bucket the one of a catalog, at first, and refuses with ErrForeign a bucket that is another catalog's, or
// that is not the one which the catalog was bound to. Without it a collection would take every object of the other
// catalog for an orphan, and rows would name objects that are nowhere.
func (l *Lake) Bind(ctx context.Context, s Settings) error {
	id, err := s.PutSettingIfAbsent(ctx, SettingID, uuid.NewString())
	if err != nil {
		return fmt.Errorf("bind lake: %w", err)
	}
	_, bound, err := s.Setting(ctx, settingBound)
	if err != nil {
		return fmt.Errorf("bind lake: %w", err)
	}
	found, err := l.Get(ctx, IdentityKey)
	switch {
	case errors.Is(err, ErrNotFound) && bound:
		return fmt.Errorf("%w: it lacks the object %s; was another bucket used before, or one in memory?", ErrForeign, IdentityKey)
	case errors.Is(err, ErrNotFound):
		if err := l.claim(ctx, id); err != nil {
			return fmt.Errorf("bind lake: %w", err)
		}
	case err != nil:
		return fmt.Errorf("bind lake: %w", err)
	case string(found) != id:
		return fmt.Errorf("%w: its object %s names another one", ErrForeign, IdentityKey)
	}
	if !bound {
		if _, err := s.PutSettingIfAbsent(ctx, settingBound, "yes"); err != nil { // after the object: a crash between only repeats
			return fmt.Errorf("bind lake: %w", err)
		}
	}
	return nil
}

// claim writes the identity of an empty bucket. Two catalogs may be at it at this moment, so where the store can it is written only
// if there is none; elsewhere it is looked at again, which leaves a gap of one request.
func (l *Lake) claim(ctx context.Context, id string) error {
	if c, ok := l.bucket.(creator); ok {
		if mine, err := c.Create(ctx, IdentityKey, []byte(id)); mine || err != nil {
			return err
		}
	} else if err := l.Put(ctx, IdentityKey, []byte(id)); err != nil {
		return err
	}
	found, err := l.Get(ctx, IdentityKey)
	if err == nil && string(found) != id {
		return fmt.Errorf("%w: another one took it at this moment", ErrForeign)
	}
	return err
}
