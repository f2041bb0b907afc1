// Package client asks a FlightSQL server of Micromegas for rows.
//
// It speaks what every client of the house speaks: one DoGet with the SQL text as ticket, the time range in headers.
// What is special is that it reads the warnings that travel beside the rows.
package client
