-- Block rows of days long past are in files: partitions of the view "blocks", each with a row here. No program before this one made any.

DROP TABLE frozen_days;
CREATE TABLE frozen(
  part_no INTEGER PRIMARY KEY, -- of a live partition
  max_begin INTEGER NOT NULL, max_end INTEGER NOT NULL,
  first_stream BLOB NOT NULL, last_stream BLOB NOT NULL,
  tail_size INTEGER NOT NULL, tail_crc INTEGER NOT NULL
) STRICT;

-- The commit number of the last freeze.
ALTER TABLE clock ADD COLUMN frozen_no INTEGER NOT NULL DEFAULT 0;

-- Rows that a freeze took out and that are not removed yet: begun in [from_time, to_time], at positions up to those of the sweep.
CREATE TABLE sweeps(
  sweep_no INTEGER PRIMARY KEY,
  from_time INTEGER NOT NULL, to_time INTEGER NOT NULL,
  next_stream INTEGER NOT NULL DEFAULT 0 -- the stream_no to go on with
) STRICT;
CREATE TABLE sweep_positions(
  sweep_no INTEGER NOT NULL,
  class TEXT NOT NULL, gen INTEGER NOT NULL, shard INTEGER NOT NULL, seq INTEGER NOT NULL,
  PRIMARY KEY(sweep_no, class, gen, shard)
) STRICT, WITHOUT ROWID;
