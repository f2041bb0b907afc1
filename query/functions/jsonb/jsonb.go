// Package jsonb reads and writes JSON documents as the SQL surface defines them: the binary
// form that clients receive, its canonical text, the lenient text parser and JSONPath.
package jsonb
