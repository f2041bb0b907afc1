// Package output writes the rows of a query for people and programs: as a table, CSV, JSON, Arrow or Parquet.
package output
