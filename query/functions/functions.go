// Package functions holds the SQL functions that Micromegas adds to the engine, and the macros
// that give DuckDB the names and meanings its clients expect.
package functions
