-- The end time of the block that last_ticks is of: the two give the clock of a process that does not know its tick frequency. NULL = none
-- since the version before, which kept last_time for it.
ALTER TABLE process_seen ADD COLUMN last_ticks_time bigint;
