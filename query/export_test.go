package query

import (
	"context"

	"github.com/micromegas-go/micromegas/query/dialect"
)

// UseRelations has a service answer from relations of a test's own: names is what statements may name, and of returns the
// query behind each relation that a statement expects, by the relation's name. What the service knows of the catalog
// itself stays.
func UseRelations(s *Service, names dialect.Catalog, of func(*dialect.Statement) map[string]string) {
	s.statements = dialect.NewCache(s.parts.Engine, names, s.cfg.Statements)
	s.relations = func(_ context.Context, r *run) (views, warnings []string, err error) {
		for name, body := range of(r.st) {
			views = append(views, createView(name, body))
		}
		for _, which := range r.st.Internals {
			views = append(views, createView(which.ViewName(), s.names.internalRelation(which)))
		}
		return views, nil, nil
	}
}
