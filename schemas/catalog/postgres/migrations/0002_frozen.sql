-- Block rows of days long past are in files: partitions of the view "blocks", each with a row here.

CREATE TABLE frozen(
  part_no bigint PRIMARY KEY, -- of a live partition
  max_begin bigint NOT NULL, max_end bigint NOT NULL,
  first_stream uuid NOT NULL, last_stream uuid NOT NULL,
  tail_size bigint NOT NULL, tail_crc bigint NOT NULL
);

-- The commit number of the last freeze.
ALTER TABLE clock ADD COLUMN frozen_no bigint NOT NULL DEFAULT 0;

-- Freezes: rows begun in [from_time, to_time], at positions up to those of the freeze, are in files. The last ones are kept.
CREATE TABLE freezes(
  version bigint PRIMARY KEY,
  previous bigint NOT NULL, -- version; 0 = it was the first
  from_time bigint NOT NULL, to_time bigint NOT NULL,
  class text[] NOT NULL, gen integer[] NOT NULL, shard integer[] NOT NULL, seq bigint[] NOT NULL
);
