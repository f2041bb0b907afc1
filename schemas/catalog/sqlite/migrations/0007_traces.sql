-- Which blocks hold a trace id. Ids of a block lie together with its key, in the order in which they came, so that the oldest can be
-- dropped; and the tree of ids leads to it. A number counts what came up to its row, so differences of numbers are counts.

CREATE TABLE trace_blocks(
  block_no INTEGER PRIMARY KEY, -- ids up to this block's last one
  stream_no INTEGER NOT NULL, begin_time INTEGER NOT NULL, block_id BLOB NOT NULL,
  end_time INTEGER NOT NULL, -- at least begin_time
  insert_time INTEGER NOT NULL,
  ids BLOB NOT NULL -- 16 bytes each
) STRICT;

-- Ids are random, so new ones would go all over a tree of all ids, and each would make a page be written. They go to that of 64 Ki numbers;
-- a look-up goes through some 64 of these.
CREATE TABLE trace_ids(
  era INTEGER NOT NULL, -- block_no >> 16
  trace_id BLOB NOT NULL, block_no INTEGER NOT NULL,
  PRIMARY KEY(era, trace_id, block_no)
) STRICT, WITHOUT ROWID;

-- Of blocks with many ids there are filters.
CREATE TABLE trace_filters(
  filter_no INTEGER PRIMARY KEY, -- KiB of filters up to this one
  stream_no INTEGER NOT NULL, begin_time INTEGER NOT NULL, block_id BLOB NOT NULL,
  end_time INTEGER NOT NULL, insert_time INTEGER NOT NULL,
  filter BLOB NOT NULL
) STRICT;
CREATE INDEX trace_filters_end ON trace_filters(end_time, begin_time);

-- What each shard's commits dropped: rows of blocks that ended, or came, up to this time.
CREATE TABLE trace_dropped(
  class TEXT NOT NULL, gen INTEGER NOT NULL, shard INTEGER NOT NULL, until INTEGER NOT NULL,
  PRIMARY KEY(class, gen, shard)
) STRICT, WITHOUT ROWID;

-- Blocks of the time before are in no index.
INSERT INTO trace_dropped SELECT '', 0, 0, (unixepoch() + 1) * 1000000000 WHERE EXISTS(SELECT 1 FROM packs);
