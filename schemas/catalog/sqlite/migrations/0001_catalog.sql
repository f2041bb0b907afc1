-- The catalog's tables. Times: int64 ns UTC. *_no: surrogate keys. UUIDs and hashes: BLOB.

CREATE TABLE lake(
  k TEXT PRIMARY KEY,
  v TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The last statement of each commit that changes partitions moves commit_no.
CREATE TABLE clock(
  one INTEGER PRIMARY KEY CHECK(one = 1),
  commit_no INTEGER NOT NULL
) STRICT;
INSERT INTO clock(one, commit_no) VALUES(1, 0);

CREATE TABLE generations(
  class TEXT NOT NULL, gen INTEGER NOT NULL, shard INTEGER NOT NULL,
  stream TEXT NOT NULL, created INTEGER NOT NULL, first_seq INTEGER NOT NULL,
  PRIMARY KEY(class, gen, shard)
) STRICT, WITHOUT ROWID;

CREATE TABLE leases(
  name TEXT PRIMARY KEY,
  owner TEXT NOT NULL, epoch INTEGER NOT NULL, expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoints(
  consumer TEXT NOT NULL, class TEXT NOT NULL, gen INTEGER NOT NULL, shard INTEGER NOT NULL,
  seq INTEGER NOT NULL, epoch INTEGER NOT NULL,
  PRIMARY KEY(consumer, class, gen, shard)
) STRICT, WITHOUT ROWID;

CREATE TABLE backlog(
  range_no INTEGER PRIMARY KEY,
  consumer TEXT NOT NULL, class TEXT NOT NULL, gen INTEGER NOT NULL, shard INTEGER NOT NULL,
  first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
  owner TEXT, epoch INTEGER, target TEXT
) STRICT;

CREATE TABLE skips(
  class TEXT NOT NULL, gen INTEGER NOT NULL, shard INTEGER NOT NULL, seq INTEGER NOT NULL, rec INTEGER NOT NULL,
  reason INTEGER NOT NULL,
  PRIMARY KEY(class, gen, shard, seq, rec)
) STRICT, WITHOUT ROWID;

CREATE TABLE parked(
  consumer TEXT NOT NULL, class TEXT NOT NULL, gen INTEGER NOT NULL, shard INTEGER NOT NULL, seq INTEGER NOT NULL, rec INTEGER NOT NULL,
  stream_id BLOB NOT NULL, process_id BLOB NOT NULL, since INTEGER NOT NULL,
  dead INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '',
  PRIMARY KEY(consumer, class, gen, shard, seq, rec)
) STRICT, WITHOUT ROWID;
CREATE INDEX parked_stream ON parked(stream_id);
CREATE INDEX parked_process ON parked(process_id);

CREATE TABLE processes(
  process_no INTEGER PRIMARY KEY,
  process_id BLOB NOT NULL UNIQUE,
  registered INTEGER, -- NULL = stub
  exe TEXT, username TEXT, realname TEXT, computer TEXT, distro TEXT, cpu_brand TEXT,
  tsc_frequency INTEGER, start_time INTEGER, start_ticks INTEGER, parent_process_id BLOB,
  properties TEXT, -- JSON object
  first_time INTEGER, last_time INTEGER, last_insert INTEGER, last_ticks INTEGER -- over its blocks; NULL = none
) STRICT;

CREATE TABLE layouts(
  layout_no INTEGER PRIMARY KEY,
  sha256 BLOB NOT NULL UNIQUE,
  body BLOB NOT NULL -- CBOR array of types
) STRICT;

CREATE TABLE streams(
  stream_no INTEGER PRIMARY KEY,
  stream_id BLOB NOT NULL UNIQUE,
  process_no INTEGER NOT NULL,
  registered INTEGER, -- NULL = stub
  tags TEXT, -- JSON array
  format TEXT,
  properties TEXT, -- JSON object
  dependencies INTEGER, objects INTEGER, -- layouts
  first_time INTEGER, last_time INTEGER, last_insert INTEGER -- over its blocks; NULL = none
) STRICT;
CREATE INDEX streams_process ON streams(process_no);

CREATE TABLE packs(
  pack_no INTEGER PRIMARY KEY,
  class TEXT NOT NULL, gen INTEGER NOT NULL, shard INTEGER NOT NULL,
  first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
  key TEXT NOT NULL, size INTEGER NOT NULL, live_blocks INTEGER NOT NULL, created INTEGER NOT NULL,
  adopted INTEGER NOT NULL DEFAULT 0 -- 1 = the body of one oversize block, no frames
) STRICT;
CREATE INDEX packs_position ON packs(class, gen, shard, last_seq);
CREATE INDEX packs_key ON packs(key);

-- One tree is the duplicate check (a retry resends identical bytes) and the look-up of a stream's blocks by time.
CREATE TABLE blocks(
  stream_no INTEGER NOT NULL, begin_time INTEGER NOT NULL, block_id BLOB NOT NULL,
  end_time INTEGER NOT NULL, begin_ticks INTEGER NOT NULL, end_ticks INTEGER NOT NULL,
  object_offset INTEGER NOT NULL, insert_time INTEGER NOT NULL,
  pack_no INTEGER NOT NULL, pack_off INTEGER NOT NULL, pack_len INTEGER NOT NULL,
  payload_size INTEGER NOT NULL, nb_objects INTEGER NOT NULL,
  PRIMARY KEY(stream_no, begin_time, block_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX blocks_pack ON blocks(pack_no);

CREATE TABLE frozen_days(
  day INTEGER PRIMARY KEY,
  part_no INTEGER NOT NULL
) STRICT;

CREATE TABLE views(
  view_no INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE partitions(
  part_no INTEGER PRIMARY KEY,
  view_no INTEGER NOT NULL,
  instance_no INTEGER NOT NULL, -- 0 = global, else process_no or stream_no
  level INTEGER NOT NULL, bucket INTEGER NOT NULL,
  min_time INTEGER NOT NULL, max_time INTEGER NOT NULL, min_insert INTEGER NOT NULL, max_insert INTEGER NOT NULL,
  rows INTEGER NOT NULL, size INTEGER NOT NULL,
  schema_ver INTEGER NOT NULL, sort INTEGER NOT NULL,
  procs BLOB, key TEXT NOT NULL, src_hash BLOB,
  added INTEGER NOT NULL, -- commit numbers
  retired INTEGER, retired_at INTEGER -- NULL = live
) STRICT;
CREATE INDEX partitions_added ON partitions(added);
CREATE INDEX partitions_retired ON partitions(retired) WHERE retired IS NOT NULL;
CREATE INDEX partitions_live ON partitions(view_no, instance_no, max_time) WHERE retired IS NULL;
CREATE UNIQUE INDEX partitions_key ON partitions(key);
