// Package flight serves SQL over Arrow FlightSQL: to Micromegas clients, and to ADBC, JDBC and Grafana.
//
// A statement's handle and a ticket's handle are the SQL text itself, so the server keeps nothing between calls.
// Tickets are accepted with and without the Any wrapper. Every RPC but health is authenticated.
//
// Invariants: the schema is sent at once, before the first row exists; batches are uncompressed and near 2 MiB; rows are
// not copied between the engine's batches and the HTTP/2 framer; a FlightInfo's and a prepared statement's schema is exactly that
// of the stream. Warnings of a query travel as the app_metadata of the schema message, JSON {"warnings": […]}.
//
// Before its schema a query may wait for views that are built for it. A call whose header x-progress-id names it can be followed meanwhile:
// the action QueryProgress, with that name as its body, gives one result, JSON {"blocks_done": …, "blocks": …}, or none when nothing is
// known (yet, any more, or because another server answers).
package flight
