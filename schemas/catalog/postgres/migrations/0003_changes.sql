-- Which rows of processes and streams an archive commit changed, of the last commits of each shard. The commits of a shard form a
-- chain (from_seq is the seq of the one before), so a reader sees whether one is missing: programs of the version before note nothing.

CREATE TABLE changes(
  class text NOT NULL, gen integer NOT NULL, shard integer NOT NULL, seq bigint NOT NULL,
  from_seq bigint NOT NULL,
  weight bigint NOT NULL, -- of all commits of the shard up to this one
  processes bigint[] NOT NULL, streams bigint[] NOT NULL, -- numbers
  PRIMARY KEY(class, gen, shard, seq)
);
