package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	duckdb "github.com/duckdb/duckdb-go-bindings"

	"github.com/micromegas-go/micromegas/query/functions"
)

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

// Error is what the engine says about a statement.
type Error struct {
	Class   Class
	Message string
	// Position is the byte offset of the offending token in the executed SQL, -1 when unknown.
	Position int
	// Subtype is DuckDB's: COLUMN_NOT_FOUND, MISSING_ENTRY, NO_MATCHING_FUNCTION, …
	Subtype string
	// Kind is what was not found: "Table", "Scalar Function", …
	Kind string
	// Name is the name that was not found, Candidates are close ones.
	Name       string
	Candidates []string

	cause error
	fatal bool // the instance refuses further statements
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns the context's error of an interrupted statement.
func (e *Error) Unwrap() error { return e.cause }

// Retryable reports whether the statement was fine and the moment was not.
func (e *Error) Retryable() bool { return e.Class == Resource || e.fatal }

// limitPrefix begins the message of every guard in macros.sql.
const limitPrefix = "limit: "

// classes by DuckDB's names of exceptions; others are Internal. Among those is "Invalid", DuckDB's name for what C++ threw without a class: its
// Parquet reader does so where the bytes of a file make no sense, and no function that a statement can call does.
var classes = map[string]Class{
	"Parser": Parse, "Syntax": Parse,
	"Binder": Bind, "Catalog": Bind, "Parameter Not Allowed": Bind, "Parameter Not Resolved": Bind,
	"Mismatch Type": Bind, "Not implemented": Bind, "Expression": Bind, "Permission": Bind,
	"Conversion": Execution, "Out of Range": Execution, "Invalid Input": Execution, "Invalid type": Execution,
	"Divide by Zero": Execution, "Decimal": Execution, "Constraint": Execution, "Sequence": Execution,
	"Object Size": Resource, "Out of Memory": Resource,
	"INTERRUPT": Interrupted, "Interrupt": Interrupted,
}

func resultError(res *duckdb.Result) *Error { return parseError(duckdb.ResultError(res)) }

// parseError reads DuckDB's message: JSON (errors_as_json), at times behind a prefix such as
// "Parser Error: ".
func parseError(text string) *Error {
	at := strings.IndexByte(text, '{')
	var fields map[string]string
	if at < 0 || json.Unmarshal([]byte(text[at:]), &fields) != nil {
		return plainError(text)
	}
	e := &Error{
		Message: fields["exception_message"], Position: -1,
		Subtype: fields["error_subtype"], Kind: fields["type"], Name: fields["name"],
	}
	kind := fields["exception_type"]
	e.classify(kind)
	if p, err := strconv.Atoi(fields["position"]); err == nil {
		e.Position = p
	}
	if c := fields["candidates"]; c != "" {
		e.Candidates = strings.Split(c, ",")
	}
	e.reword()
	return e
}

// reword gives the messages that clients look for to names that do not exist.
func (e *Error) reword() {
	message := ""
	switch {
	case e.Name == "":
		return
	case e.Subtype == "COLUMN_NOT_FOUND":
		message = "No field named " + e.Name
	case e.Subtype != "MISSING_ENTRY":
		return
	case e.Kind == "Table":
		message = "table '" + e.Name + "' not found"
	case e.Kind == "Table Function":
		message = "table function '" + e.Name + "' not found"
	case strings.HasSuffix(e.Kind, "Function"):
		message = "Invalid function '" + e.Name + "'"
	default:
		return
	}
	if len(e.Candidates) > 0 && e.Kind != "Table" { // DuckDB proposes its own tables
		message += ". Did you mean " + strings.Join(e.Candidates, ", ") + "?"
	}
	e.Message = message
}

// plainError classifies "Kind Error: message".
func plainError(text string) *Error {
	e := &Error{Message: text, Position: -1}
	if kind, rest, ok := strings.Cut(text, " Error: "); ok && len(kind) < 32 {
		e.Message = rest
		e.classify(kind)
	}
	return e
}

// damage begins the messages about files that are not what they should be, in DuckDB 1.5's extension/parquet and third_party/thrift. A statement
// cannot name files, so it is never the statement's fault.
var damage = [...]string{
	"Failed to read file ", "Failed to read Parquet file ", "File '", "Footer length error", "Invalid footer length", "No magic bytes found",
	"TProtocolException", "Couldn't deserialize thrift", "Don't know what type", "No data to read",
	"Malformed Parquet schema", "Node '", "Incorrect stats size for type", "Mismatch in parquet read", "Parquet file ", "Parquet footer length",
	"Invalid string encoding found in Parquet file", "Invalid decimal encoding in Parquet file", "Data corruption detected",
	"ZSTD Decompression", "The width (", "Aligned bitpacking count",
}

func isDamage(message string) bool {
	return slices.ContainsFunc(damage[:], func(d string) bool { return strings.HasPrefix(strings.ToLower(message), strings.ToLower(d)) }) ||
		strings.HasSuffix(message, "too small to be a Parquet file")
}

func (e *Error) classify(kind string) {
	e.Class = classes[kind]
	if isDamage(e.Message) {
		e.Class = Internal
	}
	e.fatal = kind == "FATAL" || kind == "Fatal"
	switch {
	case strings.HasPrefix(e.Message, limitPrefix):
		e.Class, e.Message = Resource, strings.TrimPrefix(e.Message, limitPrefix)
	case strings.HasPrefix(e.Message, functions.IOPrefix):
		e.Class, e.Message = Internal, strings.TrimPrefix(e.Message, functions.IOPrefix)
	case kind == "IO" && strings.Contains(e.Message, "max_temp_directory_size"):
		e.Class = Resource
	}
}

// interrupted is the error of a statement whose context is done.
func interrupted(ctx context.Context) *Error {
	cause := context.Cause(ctx)
	message := "query cancelled"
	if errors.Is(cause, context.DeadlineExceeded) {
		message = "query ran out of time"
	}
	return &Error{Class: Interrupted, Message: message, Position: -1, cause: cause}
}

func internalError(format string, args ...any) *Error {
	return &Error{Class: Internal, Message: fmt.Sprintf(format, args...), Position: -1}
}
