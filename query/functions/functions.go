// Package functions holds the SQL functions that Micromegas adds to the engine, and the macros
// that give DuckDB the names and meanings its clients expect.
//
// A function here knows nothing of DuckDB: package engine registers Scalars, row by row behind
// its own vectors, and runs Macros once when it opens. A NULL argument gives NULL without a call.
package functions

import (
	_ "embed"
)

// Macros is the SQL that defines every macro. It must run before integer_division is set: the
// parser turns / into // when that option is on, also inside macro bodies.
//
//go:embed macros.sql
var Macros string

// Type is the type of an argument or a result.
type Type uint8

// Types of arguments and results. JSON is a document in canonical text (package jsonb); as an
// argument it is Text.
const (
	Text Type = iota
	JSON
	Blob
	Bool
	Int32
	Int64
	Uint32
	Float64
	TextList
	JSONList
)

// MaxArgs is the largest number of arguments of a function.
const MaxArgs = 4

// Args are the arguments of one row, each in the field of its type. Texts are valid during the
// call only.
type Args struct {
	Text  [MaxArgs]string
	Float [MaxArgs]float64
	Int   [MaxArgs]int64
}

// Out is the result of one row. Text may alias an argument or a buffer of the function that the
// next call overwrites.
type Out struct {
	Null  bool
	Text  string
	Float float64
	Int   int64
	List  []string
}

// Row computes one row. An error fails the statement.
type Row func(in *Args, out *Out) error

// Scalar is one function. It must give the same result for the same arguments.
type Scalar struct {
	Name   string
	Params []Type
	Result Type
	// New makes the function for one chunk of rows, so that it may keep what it compiled and
	// its buffers from row to row.
	New func() Row
}

// Waiting is a function that reads what others may change, and waits for it: it gets a chunk of rows at once, for each row once, and never
// ahead of the statement. out[i] belongs to args[i].
type Waiting struct {
	Scalar // without New
	All    func(args []Args, out []Out) error
}

// IOPrefix begins the messages of functions about what the statement cannot help.
const IOPrefix = "io: "

// Scalars returns all functions to register.
func Scalars() []Scalar {
	var all []Scalar
	all = append(all, jsonScalars()...)
	all = append(all, textScalars()...)
	all = append(all, guardScalars()...)
	return append(all, colorScalars()...)
}
