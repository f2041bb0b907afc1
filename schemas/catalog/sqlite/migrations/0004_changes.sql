-- Which rows of processes and streams an archive commit changed, of the last commits of each shard. The commits of a shard form a
-- chain (from_seq is the seq of the one before), so a reader sees whether one is missing.

CREATE TABLE changes(
  class TEXT NOT NULL, gen INTEGER NOT NULL, shard INTEGER NOT NULL, seq INTEGER NOT NULL,
  from_seq INTEGER NOT NULL,
  weight INTEGER NOT NULL, -- of all commits of the shard up to this one
  processes BLOB NOT NULL, streams BLOB NOT NULL, -- numbers, ascending: uvarints of the differences
  PRIMARY KEY(class, gen, shard, seq)
) STRICT, WITHOUT ROWID;
