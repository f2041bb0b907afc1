// Package columnar holds rows of a table in columns, sorts them, and writes and reads them as Parquet files.
// Written by materializers, read back by it when it merges files, and by the query engine.
//
// A column of text or bytes is a dictionary and an index per row, from the decoder to the file: a value that repeats is hashed once per
// block, compared and written once per row group, and costs four bytes of memory per row. Numbers are kept as int64 or
// float64, and a row group writes them as a dictionary too when they repeat.
//
// Pages are encoded here, since the values are known to come as indices and runs; page headers, compression, statistics and
// the footer are arrow-go's. Files have required columns only, version 1 data pages without levels, zstd.
// The reader reads what the writer writes, and refuses other files.
package columnar
