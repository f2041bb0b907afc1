package engine

// Class says who must act on an error.
type Class uint8

// Classes of errors.
const (
	Internal    Class = iota // a defect here or in DuckDB
	Parse                    // the text is not SQL
	Bind                     // a name, a function or a type does not fit
	Execution                // a value does not fit: conversion, overflow, a function's own complaint
	Resource                 // memory, temporary space or a guard's limit
	Interrupted              // cancelled or out of time
)

func (c Class) String() string {
	switch c {
	case Parse:
		return "parse"
	case Bind:
		return "bind"
	case Execution:
		return "execution"
	case Resource:
		return "resource"
	case Interrupted:
		return "interrupted"
	default:
		return "internal"
	}
}

// Error is what DuckDB said about a statement.
type Error struct {
	Class   Class
	Message string
	// Position is the byte offset of the offending token in the executed SQL, -1 when unknown.
	Position int
	// Subtype is COLUMN_NOT_FOUND, MISSING_ENTRY, … ; empty when DuckDB gives none.
	Subtype string
	// Name is the name that was not found, Candidates are close ones.
	Name       string
	Candidates []string
	// Kind is what was not found: "Table", "Scalar Function", …
	Kind string
}

func (e *Error) Error() string { return e.Message }
