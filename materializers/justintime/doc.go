// Package justintime builds views when somebody asks for them: spans of threads, asynchronous spans, images and network spans, whose
// blocks are by far the largest part of the data and are seldom looked at. Their blocks are only archived until then.
//
// query asks over the bus (bus.Materialize) for one instance of a view (a stream's or a process's) and a range of time; any process that
// materializes may answer. What it builds are partitions in the catalog, which the next one who asks finds; the answer names their files.
//
// # Partitions
//
// The blocks of an instance are divided by the hour in which they begin, and each hour, in the order of the blocks, into slices of at
// most Config.SliceObjects events (a block is never divided). So a partition is (view, instance, hour, slice), it is a function of the
// blocks of its hour, and what comes later changes the last slice only, unless it is late. The order is that of the producer's ticks. The
// first hour is that of the process's start, which has all blocks that say that they began before.
//
// Rows of a chained view (View.Chained) depend on the blocks before: a span that begins in one slice and ends in another is one row,
// in the partition of its last event. So each partition keeps the state in which it leaves the work, and is built upon the state of the
// one before. It is fresh when it was built of the same blocks and upon the same state. The first of a window is built upon the
// partition before it if that is fresh as far back as Config.Context blocks, else upon those blocks; what began earlier is clipped there.
//
// Invariants: at most one partition lives for each (view, instance, hour, slice), which the catalog sees to; a window that is answered
// holds each row of its blocks once; equal blocks give equal rows whatever was built before, as long as the window's first hour is the same.
package justintime
