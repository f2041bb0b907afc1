package engine

import (
	"context"
	"encoding/json"
	"errors"
	"io"

	"github.com/apache/arrow-go/v18/arrow"
	duckdb "github.com/duckdb/duckdb-go-bindings"
)

// parser is a connection that touches no tables: it turns SQL into trees and back, and folds
// constants. It opens when it is first used.
type parser struct {
	engine *Engine
	link   *link
	stmts  map[string]duckdb.PreparedStatement
}

func (p *parser) open() error {
	if p.link != nil {
		return nil
	}
	inst, raw, err := p.engine.connect()
	if err != nil {
		return err
	}
	p.link = p.engine.enter(&link{engine: p.engine, inst: inst, raw: *raw})
	p.stmts = make(map[string]duckdb.PreparedStatement)
	return nil
}

func (p *parser) close() {
	if p.link == nil {
		return
	}
	for _, stmt := range p.stmts {
		duckdb.DestroyPrepare(&stmt)
	}
	p.link.close()
	p.link, p.stmts = nil, nil
}

// withParser lends an idle parser to f. After an error that a user's mistake does not explain
// the parser's connection is thrown away.
func (e *Engine) withParser(ctx context.Context, f func(*parser) error) error {
	var p *parser
	select {
	case p = <-e.idle:
	case <-e.closed:
		return ErrClosed
	case <-ctx.Done():
		return interrupted(ctx)
	}
	defer func() { e.idle <- p }()
	if err := p.open(); err != nil {
		return err
	}
	err := f(p)
	var failed *Error
	if errors.As(err, &failed) && (failed.Class == Interrupted || failed.Class == Internal) {
		p.close()
	}
	return err
}

// call runs a statement of one text parameter and one text result.
func (p *parser) call(ctx context.Context, sql, arg string) (string, error) {
	out := ""
	err := p.link.run(ctx, func() *Error {
		stmt, ok := p.stmts[sql]
		if !ok {
			var err *Error
			if stmt, err = p.link.prepare(sql); err != nil {
				return err
			}
			p.stmts[sql] = stmt
		}
		if duckdb.BindVarchar(stmt, 1, arg) != duckdb.StateSuccess {
			return &Error{Class: Parse, Message: "statement is not UTF-8", Position: -1}
		}
		var res duckdb.Result
		defer duckdb.DestroyResult(&res)
		if duckdb.ExecutePrepared(stmt, &res) != duckdb.StateSuccess {
			return resultError(&res)
		}
		chunk := duckdb.FetchChunk(res)
		if chunk.Ptr == nil {
			return internalError("%s returns no row", sql)
		}
		defer duckdb.DestroyDataChunk(&chunk)
		var t texts
		t.bind(duckdb.DataChunkGetVector(chunk, 0))
		if t.isNull(0) {
			return internalError("%s returns NULL", sql)
		}
		out = string([]byte(t.at(0).text()))
		return nil
	})
	return out, err
}

// SerializeSQL parses statements and returns their tree as DuckDB's JSON. Nothing is bound or
// opened. Only SELECT-like statements have a tree. What does not parse is an *Error of class
// Parse, with its position.
func (e *Engine) SerializeSQL(ctx context.Context, sql string) ([]byte, error) {
	var tree string
	err := e.withParser(ctx, func(p *parser) error {
		var err error
		tree, err = p.call(ctx, "SELECT CAST(json_serialize_sql(?::VARCHAR) AS VARCHAR)", sql)
		return err
	})
	if err != nil {
		return nil, err
	}
	return []byte(tree), nil
}

// DeserializeSQL prints a tree of SerializeSQL as SQL.
func (e *Engine) DeserializeSQL(ctx context.Context, tree []byte) (string, error) {
	if !json.Valid(tree) {
		return "", internalError("syntax tree is not JSON")
	}
	var sql string
	err := e.withParser(ctx, func(p *parser) error {
		var err error
		sql, err = p.call(ctx, "SELECT json_deserialize_sql(CAST(?::VARCHAR AS JSON))", string(tree))
		return err
	})
	return sql, err
}

// Eval runs a statement that gives one row without reading any table, and returns the row: nil,
// bool, int64, uint64, float64, string, []byte, time.Time, or Arrow's JSON form of anything else.
func (e *Engine) Eval(ctx context.Context, sql string) ([]any, error) {
	var row []any
	err := e.withParser(ctx, func(p *parser) error {
		res, err := p.link.query(ctx, sql, QueryOptions{})
		if err != nil {
			return err
		}
		defer res.close()
		batch, err := res.Next()
		if errors.Is(err, io.EOF) {
			return &Error{Class: Execution, Message: "expression gives no row", Position: -1}
		}
		if err != nil {
			return err
		}
		defer batch.Release()
		if batch.NumRows() != 1 {
			return &Error{Class: Execution, Message: "expression gives several rows", Position: -1}
		}
		for _, c := range batch.Columns() {
			row = append(row, constant(c))
		}
		return nil
	})
	return row, err
}

// constant returns the first value of an array.
func constant(a arrow.Array) any {
	if a.IsNull(0) {
		return nil
	}
	return goValue(a, 0)
}
