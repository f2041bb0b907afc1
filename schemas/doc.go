// Package schemas is the root of the formats that stages exchange. Each package below is one format with the one implementation
// of writing and reading it; a stage imports what it needs and never another stage. A format belongs here when two stages exchange its
// bytes. The package itself holds no code.
//
// # Glossary
//
//	process       one run of an instrumented program, registered once under an id of its own
//	stream        an append-only sequence of events of one family (its tag), with the binary layout of its events
//	tag           the family: log, metrics, cpu (spans of a thread), image, net, trace
//	block         a batch of consecutive events of a stream: an envelope (ids, times, counts) and a payload
//	payload       two LZ4 frames: dependencies (strings, records, property sets) and objects (the events)
//	ticks         the producer's counter; a process's registration and a clock turn them into time
//	registration  the body by which a client announces a process or a stream
//	gateway       the stage that takes bodies over HTTP and acknowledges them once they are durable
//	bus           the log of what arrived, on NATS JetStream
//	class         eager (registrations, logs, metrics, unknown) or raw (everything else): two kinds of bus streams
//	shard         one bus stream of a class; a process always goes to the same one
//	frame         a message of the bus: 1..n records
//	record        one client body as it came, with what the gateway knows about it
//	position      generation, class, shard and sequence of a frame; with the index of a record it names a copy of a block
//	generation    one life of a bus stream, so that a position never means two things
//	owner         the one process that holds a shard's lease and so does its work
//	lease         the right to be owner, until it expires; its epoch grows with each change of owner
//	checkpoint    how far a consumer's committed work reaches in a shard; commits compare and swap it
//	archive       the consumer that moves frames into packs and settles which copy of a block counts
//	pack          an object of the lake: consecutive frames of a shard, verbatim
//	skip          a copy that does not count: a duplicate, or unreadable
//	parked        a copy that waits for its stream's or process's registration
//	dead letter   a block that cannot be decoded, kept with the reason
//	view          a table that is built from blocks; a partition is one of its files, with rows of one event-time bucket
//	instance      a view for one process or one stream
//	just in time  of a view whose partitions are built when somebody asks for an instance; eager views are built as data comes
//	chain         blocks of one stream without a gap; what is open at the end of one chain is not in the next
//	slice         the blocks of one partition of an instance: a part of an hour
//	commit        the transaction by which partitions and a checkpoint become true together; commit numbers order them
//	flush         a query's request that owners commit up to the head of the bus: read your acks
//	catalog       the metadata of the lake: registrations, blocks, packs, partitions, leases, checkpoints
//	lake          the bucket with packs and Parquet files
//	member        a living process of a role; members share the role's leases evenly
//	frozen        of a day: its block rows lie in Parquet files of the lake, no longer in the catalog
//
// # Who writes and reads which bytes
//
//	package   | bytes                                                   | written by                         | read by
//	----------+---------------------------------------------------------+------------------------------------+---------------------------------------
//	telemetry | none: the nouns and the clock                           | –                                  | everybody
//	wire      | bodies of the native protocol: CBOR, LZ4, events        | clients (sdk, producers, Rust, …)  | gateway (envelopes), workers,
//	          | (wire/FORMAT.md)                                        |                                    | materializers, query
//	bus       | frames and records, flush requests, dead letters,       | gateway; workers and materializers | workers, materializers, query (flush,
//	          | requests for just-in-time views                         | (dead letters), query (requests)   | requests)
//	catalog   | rows of processes, streams, blocks, packs, partitions,  | workers/archive, materializers     | all servers; query reads only
//	          | leases, checkpoints                                     |                                    |
//	lake      | packs and the keys of all objects (lake/LAYOUT.md)      | workers/archive, materializers,    | workers, materializers, query
//	          |                                                         | bus (claimed bodies)               |
//	  frozen  | Parquet files of old block rows (lake/LAYOUT.md)         | workers/freezer                    | workers/archive, query, materializers
//	  locate  | none: it finds blocks in the catalog and in frozen files | –                                  | materializers/justintime, query
//	tables    | columns of the Parquet files and of query results       | materializers, query               | query, its clients, other engines
//	identity  | keys of callers                                         | operators                          | gateway, query/flight
package schemas
