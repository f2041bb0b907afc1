-- Ranges of positions that a checkpoint has passed unbuilt. No program before this one opened any.

DROP TABLE backlog;
CREATE TABLE backlog(
  range_no INTEGER PRIMARY KEY AUTOINCREMENT, -- a number is never used twice: a worker may still hold the old one
  consumer TEXT NOT NULL, class TEXT NOT NULL, gen INTEGER NOT NULL, shard INTEGER NOT NULL,
  first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, -- first_seq moves with each chunk
  min_time INTEGER NOT NULL, max_time INTEGER NOT NULL, -- of the events
  owner TEXT NOT NULL DEFAULT '', epoch INTEGER NOT NULL DEFAULT 0, expires INTEGER NOT NULL DEFAULT 0 -- the claim
) STRICT;
