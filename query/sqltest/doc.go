// Package sqltest runs scripts of SQL statements with the rows or the error that each must give, against anything that
// executes SQL.
package sqltest
