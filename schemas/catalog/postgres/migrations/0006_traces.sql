-- Which blocks hold a trace id. Ids of a block lie together with its key, in about the order in which they came, so that the oldest can
-- be dropped; and the tree of ids leads to it. A number counts what came up to its row, and what commits that failed would have
-- brought, so differences of numbers are counts, or a little more.

CREATE SEQUENCE trace_numbers;
CREATE TABLE trace_blocks(
  block_no bigint PRIMARY KEY, -- ids up to this block's last one
  stream_no bigint NOT NULL, begin_time bigint NOT NULL, block_id uuid NOT NULL,
  end_time bigint NOT NULL, -- at least begin_time
  insert_time bigint NOT NULL,
  ids uuid[] NOT NULL
);

-- Ids are random, so new ones would go all over a tree of all ids, and each would make a page be written. They go to that of 64 Ki numbers;
-- a look-up goes through some 64 of these.
CREATE TABLE trace_ids(
  era bigint NOT NULL, -- block_no >> 16
  trace_id uuid NOT NULL, block_no bigint NOT NULL,
  PRIMARY KEY(era, trace_id, block_no)
);

-- Of blocks with many ids there are filters.
CREATE SEQUENCE trace_filter_numbers;
CREATE TABLE trace_filters(
  filter_no bigint PRIMARY KEY, -- KiB of filters up to this one
  stream_no bigint NOT NULL, begin_time bigint NOT NULL, block_id uuid NOT NULL,
  end_time bigint NOT NULL, insert_time bigint NOT NULL,
  filter bytea NOT NULL
);
ALTER TABLE trace_filters ALTER COLUMN filter SET STORAGE EXTERNAL; -- random bits
CREATE INDEX trace_filters_end ON trace_filters(end_time, begin_time);

-- What each shard's commits dropped: rows of blocks that ended, or came, up to this time.
CREATE TABLE trace_dropped(
  class text NOT NULL, gen integer NOT NULL, shard integer NOT NULL, until bigint NOT NULL,
  PRIMARY KEY(class, gen, shard)
);

-- Blocks of the time before are in no index.
INSERT INTO trace_dropped SELECT '', 0, 0, (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint + 1000000000 WHERE EXISTS(SELECT 1 FROM packs);
