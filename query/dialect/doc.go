// Package dialect turns the SQL that clients send into the SQL that the engine runs: a client's statement in, a checked
// and rewritten statement out, together with the tables, view instances and table functions that must exist before it runs.
//
// Clients speak DataFusion's SQL; the engine is DuckDB. Every statement takes the same way:
//
//  1. The lexer pass (lexer.go, lexpass.go) folds identifiers, spells DataFusion-only forms so that DuckDB parses them,
//     and recognises SHOW, DESCRIBE and EXPLAIN. It keeps a map back to the client's text for error positions.
//  2. The Parser turns the text into a syntax tree (json_serialize_sql: parses only, binds nothing, opens nothing).
//  3. The guard (guard.go, names in allow.go) refuses by default: a node class, table, function or table function that is not
//     known to be harmless does not pass. The engine's settings are a second line, not the first.
//  4. The table finder (walk.go) resolves names with the scoping of real CTEs and collects what the statement needs.
//  5. The rewrite (rewrite.go) patches nodes so that results equal DataFusion's, and names the output columns (names.go).
//  6. The Parser prints the tree again: Statement.SQL.
//
// The package never talks to the engine itself: it is given a Parser and, for the constant arguments of table functions,
// Options.Eval, which is only called with expressions that hold no column, subquery or table function.
//
// Invariants: Rewrite returns a *Error for everything that is the client's fault, with a position in the client's text where one is
// known; it never panics on foreign text; what it accepts names nothing outside the Catalog.
package dialect
