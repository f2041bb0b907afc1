-- Partitions of one stream or process are built when somebody asks for them.
ALTER TABLE partitions ADD COLUMN objects INTEGER NOT NULL DEFAULT 0; -- events of the blocks
ALTER TABLE partitions ADD COLUMN max_sort_key INTEGER NOT NULL DEFAULT 0; -- 0 = rows are in no order
ALTER TABLE partitions ADD COLUMN state BLOB; -- its builder's own

-- No builder that lost its lease puts a second one beside the first.
CREATE UNIQUE INDEX partitions_instance ON partitions(view_no, instance_no, bucket, level) WHERE retired IS NULL AND instance_no <> 0;
