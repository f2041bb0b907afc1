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

-- Freezes: rows begun in [from_time, to_time], at positions up to those of the freeze, are in files. The last ones are kept.
CREATE TABLE freezes(
  version INTEGER PRIMARY KEY,
  previous INTEGER NOT NULL, -- version; 0 = it was the first
  from_time INTEGER NOT NULL, to_time INTEGER NOT NULL,
  next_stream INTEGER -- the rows of streams from this stream_no on are still to be removed; NULL = none are
) STRICT;
CREATE INDEX freezes_unswept ON freezes(version) WHERE next_stream IS NOT NULL;
CREATE TABLE freeze_positions(
  version INTEGER NOT NULL,
  class TEXT NOT NULL, gen INTEGER NOT NULL, shard INTEGER NOT NULL, seq INTEGER NOT NULL,
  PRIMARY KEY(version, class, gen, shard)
) STRICT, WITHOUT ROWID;
