// Package threadspans builds the view thread_spans: the spans of one thread as a call tree, from the begin and end events of its stream.
//
// Blocks that touch form a chain; where one is missing a new chain begins. In a chain a stack machine pairs the events: a begin pushes, an
// end pops the span of its scope. Spans that are open when a chain ends last until its end. An end without a begin belongs to a span that
// began before the chain (or before what is known of it): it lasts from there, and what was outermost since then is inside it. A chain in
// which an outermost span has ended has a root, which is named for the thread and has the outermost spans inside.
//
// A file holds the spans that ended in its partition, in order of their begins, parents before children. Open ones, and the root of a
// chain that goes on, are in the partition's state only: Window makes rows of the last state of what is read together. It also knows
// what a file could not: since when the chain is known, and whether it got a root later, which puts all its spans one deeper.
//
// An end that does not fit the innermost open span (spans that cross) makes no tree: its block is left out as if it were lost.
package threadspans
