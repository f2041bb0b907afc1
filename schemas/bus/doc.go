// Package bus carries what clients post from the gateway to everybody else, over NATS JetStream.
// Written by gateway; read by workers, materializers and query (which only asks: see Flush).
//
// # Streams
//
// There are two classes of streams. Eager ones (subjects blocks.eager.<shard>) hold registrations, log and metrics
// blocks, and blocks whose tag is not known yet: what views are built from as it arrives. Raw ones (blocks.raw.<shard>)
// hold every other block, which is only archived. A process always lands in the same shard of a class, so its
// registrations and blocks keep their order as a rule (readers must not rely on it).
//
// A stream is a log with one writer per publishing process and any number of readers. It is stored in files that are
// synced before the acknowledgement, keeps its messages until Trim (or refuses new ones when it is full), and is purged
// from its head only. So a hole in the sequence is damage, and readers say so (ErrHole).
//
// # Positions
//
// A Position is (class, shard, generation, sequence). A generation is one life of a stream: when the stream was made
// anew, or comes back older than what is already archived, Open starts the next generation and its sequences continue
// above the old ones. A position never means two things. Progress of readers is kept by the readers (in the catalog),
// not by JetStream.
//
// # Clusters
//
// The servers are one in this process (package embedded), one elsewhere, or a cluster (Connect), of nats-server 2.12 or newer
// with sync_interval: always. Streams of a cluster have three copies, so the loss of one server loses nothing. Then leaders change, and what
// a server says may be late; so what others build on is made certain first: Head, and that a stream is lost (see certain and
// ensure in the source). Meanwhile publishing answers ErrUnavailable once its time is over, Head does so too, and Readers wait.
// An election takes 4 to 9 s after the loss of a leader. A frame that was refused may be stored all the same, also seconds
// later, when a server that held it goes on; one that was acknowledged is stored once, unless a server held a repetition for
// longer than the duplicates window (twice Config.PublishTimeout), which archive settles like a client's own repetition.
//
// # Frames
//
// A message is a frame: 1..n records, the clients' bodies verbatim. Its bytes, all numbers little endian:
//
//	frame  := header table record*
//	header := magic "MMF" version <1b> | count u32 | crc u32           crc: CRC-32C of magic, version, count and table
//	table  := count × length u32                                       length of each record, in order
//	record := crc u32 | kind u8 | tag u8 | flags u8 | 0 u8             crc: CRC-32C of the rest up to the body, and of a claim key
//	        | insert_time i64 (µs) | process id 16b | stream id 16b | block id 16b
//	        | begin_time i64 | end_time i64 | body_size u64 | body_crc u32 (CRC-32C of the body)
//	        | body, or the claim key when flag 1 is set
//
// Lengths sit in the table, so a damaged record never hides its neighbours; the body has a checksum of its own, so a
// record with a damaged body still says whose it is. A frame is at most Config.MaxFrame bytes. A body that does not fit
// is put into the object store first, and its record carries the object's key (claim check).
//
// # Names and limits
//
//	blocks.<class>.<shard>            subject of a shard's frames; its stream is blocks-<class>-<shard>
//	flush.<target>.<class>.<shard>    subject of requests to a shard's owner, answered by whoever holds its lease (JSON)
//	materialize                       subject of requests for just-in-time views, answered by any one process of the queue group
//	                                  materializers (JSON): progress, then the end in parts (header Materialize-Part)
//	materialize.keep.<request>        subject of the asker's signs of life
//	barrier                           no subject of any stream: what Head purges to have the servers agree
//	deadletters                       subject of dead letters (JSON); their stream is dead-letters, the oldest go first
//	Nats-Msg-Id                       header of a frame: its id, by which a publisher's own repetition is recognised
//	Nats-Expected-Stream              header of a frame: a message that would land elsewhere is refused
//
// Every bound is a field of Config or a constant beside its use. A shard's stream takes its part of Config.MaxBytes and
// refuses more; Trim leaves its part of Config.KeepArchivedBytes; a Reader holds at most about two Config.ReadAhead.
//
// Readers see frames as they were published, from the bus or from packs (which hold the same bytes), and iterate over
// records with Frame.Records. Nobody else parses frames.
package bus
